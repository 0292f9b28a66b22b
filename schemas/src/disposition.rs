//! What becomes of a report (contract 1.3).

use std::fmt;

/// Where every received report ends: exactly one of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Disposition {
    Accepted,
    Duplicate,
    Suspended,
}

impl Disposition {
    pub const ALL: [Disposition; 3] =
        [Disposition::Accepted, Disposition::Duplicate, Disposition::Suspended];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Accepted => "accepted",
            Disposition::Duplicate => "duplicate",
            Disposition::Suspended => "suspended",
        }
    }
}

/// What is known of a report's outer signature, where it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureStatus {
    Verified,
    Unverifiable,
}

impl SignatureStatus {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SignatureStatus::Verified => "verified",
            SignatureStatus::Unverifiable => "unverifiable",
        }
    }
}

macro_rules! reasons {
    ($($name:ident = $text:literal, $advice:literal;)*) => {
        /// Why a report was suspended, in the order of the contract: of those that apply, the
        /// first is given.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($name),* }

        impl Reason {
            /// Every reason, in the order of the contract.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),*];

            /// The code that the journal, the counts and the metrics carry.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text),* }
            }

            /// The reason of a code.
            #[must_use]
            pub fn parse(code: &str) -> Option<Reason> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == code)
            }

            /// What a person can do about it.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self { $(Reason::$name => $advice),* }
            }
        }
    };
}

reasons! {
    Malformed = "malformed", "ask the collector for the file again; it is not what the device wrote";
    TooLarge = "too-large", "a report this large is no RUM report; raise the limit in the configuration if it is";
    TooDeep = "too-deep", "a report nested this deeply is no RUM report";
    MissingField = "missing-field", "the report lacks what identifies it or its usage; ask the collector for it again";
    BadValue = "bad-value", "a value is not of the kind the contract names; ask the collector for it again";
    BadInterval = "bad-interval", "a measurement ends before it starts, or lies before 2000; look at the device's clock";
    ClockFuture = "clock-future", "a measurement ends in the future; look at the device's clock, then send it again";
    SourceNotAllowed = "source-not-allowed", "usage is taken only from CSLU, SSM On-Prem, a controller or a file (R10.9)";
    UdiMismatch = "udi-mismatch", "the signer is neither the reporting device nor in its HA group; look into how it was collected";
    SignatureMissing = "signature-missing", "collect the report again with its signature";
    TrustUnknown = "trust-unknown", "import the device's trust code, then `rumledger suspense retry` (R7.4)";
    SignatureInvalid = "signature-invalid", "the report was changed, or the trust code on record is another one: where the book was wrong, mend it, then `rumledger suspense retry` (R7.4)";
    TrustNotValidThen = "trust-not-valid-then", "the trust code was not in force when the report was made; check its validity in the book";
    SignatureUnverifiable = "signature-unverifiable", "the policy wants a verified signature here; collect the report in its signed form";
    ContentConflict = "content-conflict", "another report with this id is on record; find out which of the two is right";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which unverifiable reports are accepted (contract 1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// Reports without utility mode may be unverifiable; utility-mode reports must be verified.
    #[default]
    AcceptPrepaid,
    Accept,
    Suspend,
}

impl std::str::FromStr for SignaturePolicy {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "accept-prepaid" => Ok(SignaturePolicy::AcceptPrepaid),
            "accept" => Ok(SignaturePolicy::Accept),
            "suspend" => Ok(SignaturePolicy::Suspend),
            other => Err(format!(
                "'{other}' is no signature policy; use accept-prepaid, accept or suspend"
            )),
        }
    }
}
