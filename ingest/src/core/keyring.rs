//! Trust codes by UDI, and the check of a signature against them (R7).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::ParsedPublicKey;
use schemas::book::TrustCode;
use schemas::key::{Algorithm, parse_public_key};
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::mediate::SignedParts;
use super::report::DecodedReport;

/// What the keyring says of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified,
    /// No trust code of the signer is on record.
    TrustUnknown,
    /// No trust code on record of that algorithm verifies it.
    Invalid,
    /// A trust code verifies it that was not in force at the report's end.
    NotValidThen,
}

/// What was signed: the exact bytes, and their digest.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    pub message: &'a [u8],
    pub sha256: &'a [u8; 32],
}

/// A public key, parsed when it is first used and kept parsed.
struct Key {
    algorithm: Algorithm,
    spki_base64: String,
    parsed: OnceLock<Option<ParsedPublicKey>>,
}

impl Key {
    fn verifies(&self, signed: Signed<'_>, signature: &[u8]) -> bool {
        let parsed =
            self.parsed.get_or_init(|| parse_public_key(self.algorithm, &self.spki_base64).ok());
        let Some(key) = parsed else { return false };
        match self.algorithm {
            Algorithm::EdDsa => key.verify_sig(signed.message, signature).is_ok(),
            // Both sign the SHA-256 of the message, which is known already.
            Algorithm::Rs256 | Algorithm::Es256 => Digest::import_less_safe(signed.sha256, &SHA256)
                .is_ok_and(|digest| key.verify_digest_sig(&digest, signature).is_ok()),
        }
    }
}

struct Code {
    key: Arc<Key>,
    valid_from: EpochSeconds,
    /// Exclusive.
    valid_to: EpochSeconds,
}

/// All trust codes of a book.
#[derive(Default)]
pub struct Keyring {
    codes: HashMap<Udi, Vec<Code>>,
}

impl Keyring {
    #[must_use]
    pub fn new(trust_codes: &[TrustCode]) -> Keyring {
        let mut keys: HashMap<(Algorithm, &str), Arc<Key>> = HashMap::new();
        let mut by_udi: HashMap<&Udi, Vec<&TrustCode>> = HashMap::new();
        for code in trust_codes {
            by_udi.entry(&code.udi).or_default().push(code);
        }
        let codes = by_udi
            .into_iter()
            .map(|(udi, of_udi)| {
                let codes = of_udi.iter().map(|code| Code {
                    key: Arc::clone(keys.entry((code.algorithm, &code.public_key)).or_insert_with(
                        || {
                            Arc::new(Key {
                                algorithm: code.algorithm,
                                spki_base64: code.public_key.clone(),
                                parsed: OnceLock::new(),
                            })
                        },
                    )),
                    valid_from: code.valid_from,
                    valid_to: code.valid_to.unwrap_or_else(|| overwritten_at(code, &of_udi)),
                });
                (udi.clone(), codes.collect())
            })
            .collect();
        Keyring { codes }
    }

    /// Checks a signature over the exact bytes that were signed (R7.1).
    #[must_use]
    pub fn verify(
        &self,
        signer: &Udi,
        algorithm: Algorithm,
        signed: Signed<'_>,
        signature: Option<&[u8]>,
        at: EpochSeconds,
    ) -> Verdict {
        let Some(codes) = self.codes.get(signer) else {
            return Verdict::TrustUnknown;
        };
        let Some(signature) = signature else {
            return Verdict::Invalid;
        };
        let mut verdict = Verdict::Invalid;
        for code in codes.iter().filter(|c| c.key.algorithm == algorithm) {
            let in_force = code.valid_from <= at && at < code.valid_to;
            // A code that could not change the verdict need not be tried.
            if (in_force || verdict == Verdict::Invalid) && code.key.verifies(signed, signature) {
                if in_force {
                    return Verdict::Verified;
                }
                verdict = Verdict::NotValidThen;
            }
        }
        verdict
    }
}

/// A trust code, and when it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFact {
    pub algorithm: Algorithm,
    /// SPKI DER in base64.
    pub public_key: String,
    pub valid_from: EpochSeconds,
    /// Exclusive; `None` of one without end.
    pub valid_to: Option<EpochSeconds>,
}

impl Keyring {
    /// The trust code that verifies a report and was in force at its end.
    #[must_use]
    pub fn verifying(&self, parts: &SignedParts<'_>, report: &DecodedReport) -> Option<TrustFact> {
        let signature = parts.value.as_deref()?;
        let signed = Signed { message: parts.message, sha256: &report.payload_sha256 };
        let at = report.last_end;
        let of_signer = self.codes.get(parts.signer)?.iter();
        let code = of_signer
            .filter(|code| code.key.algorithm == parts.algorithm)
            .filter(|code| code.valid_from <= at && at < code.valid_to)
            .find(|code| code.key.verifies(signed, signature))?;
        Some(TrustFact {
            algorithm: code.key.algorithm,
            public_key: code.key.spki_base64.clone(),
            valid_from: code.valid_from,
            valid_to: (code.valid_to != EpochSeconds::MAX).then_some(code.valid_to),
        })
    }
}

/// A trust code without an end ends where a later one of its UDI starts (R7.2).
fn overwritten_at(code: &TrustCode, of_udi: &[&TrustCode]) -> EpochSeconds {
    of_udi
        .iter()
        .map(|other| other.valid_from)
        .filter(|from| *from > code.valid_from)
        .min()
        .unwrap_or(EpochSeconds::MAX)
}
