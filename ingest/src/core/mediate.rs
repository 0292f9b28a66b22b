//! One disposition for each report (contract 1.3).
//!
//! | decoded | source, signer | known id | signature | disposition |
//! | --- | --- | --- | --- | --- |
//! | no | | | | suspended, the reason of decoding |
//! | yes | not allowed, mismatch | | | suspended |
//! | yes | good | same bytes | not looked at | duplicate |
//! | yes | good | no, or other bytes | missing, unknown, invalid, against policy | suspended |
//! | yes | good | other bytes | good | suspended, `content-conflict` |
//! | yes | good | no | good | accepted |

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemas::disposition::{Disposition, Reason, SignaturePolicy, SignatureStatus};
use schemas::key::Algorithm;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::keyring::{Keyring, Proof, Verdict};
use super::report::{DecodedReport, Judged, RefusedReport, Signer};

/// The settings by which reports are judged.
#[derive(Clone, Debug)]
pub struct Rules {
    pub policy: SignaturePolicy,
    /// Collectors whose reports are taken (R10.9).
    pub collectors: Vec<String>,
    /// A vendor's other tokens for the three algorithms.
    pub signing_types: HashMap<String, Algorithm>,
    /// Signatures are checked eight at a time where the processor can ([`super::eight`]).
    pub vector_signatures: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Rules {
            policy: SignaturePolicy::default(),
            collectors: ["cslu", "ssm-on-prem", "dna-center", "vmanage", "file"]
                .map(str::to_owned)
                .to_vec(),
            signing_types: HashMap::new(),
            vector_signatures: true,
        }
    }
}

impl Rules {
    fn algorithm(&self, signing_type: &str) -> Option<Algorithm> {
        Algorithm::parse(signing_type).or_else(|| self.signing_types.get(signing_type).copied())
    }
}

/// What is known of a report's id.
/// Whatever the way that a copy came, it is one (R2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    New,
    Duplicate,
    Conflict,
}

/// What looking at the signature gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Status(SignatureStatus),
    Suspend(Reason),
}

/// Checks that need neither index nor keys: the source, and whether the signer may sign this. A
/// record whose producer names no collector is legal (contract 1.4).
#[must_use]
pub fn check_origin(
    report: &DecodedReport,
    collector: Option<&str>,
    rules: &Rules,
) -> Option<(Reason, String)> {
    if let Some(collector) = collector
        && !rules.collectors.iter().any(|c| c == collector)
    {
        return Some((
            Reason::SourceNotAllowed,
            format!(
                "the collector '{}' is none of {}",
                collector.escape_debug(),
                rules.collectors.join(", ")
            ),
        ));
    }
    match &report.signer {
        Signer::Reporter => None,
        // In HA each member has a trust code of its own (R7.3).
        Signer::Named(udi) if udi == report.udi() || report.readings.ha_udi.contains(udi) => None,
        Signer::Named(udi) => Some((
            Reason::UdiMismatch,
            format!("{udi} signed, but the report is of {} and its group", report.udi()),
        )),
        Signer::Unreadable => {
            Some((Reason::UdiMismatch, "the signature's sudi names no device".to_owned()))
        }
    }
}

/// Looks at the signature of a report that is no duplicate.
#[must_use]
pub fn check_signature(report: &DecodedReport, keyring: &Keyring, rules: &Rules) -> Checked {
    check_parts(report, signed_parts(report, rules), Proof::default(), keyring, rules)
}

/// The same of several reports, whose signatures are looked at together where that is faster.
#[must_use]
pub fn check_signatures(
    reports: &[&DecodedReport],
    keyring: &Keyring,
    rules: &Rules,
) -> Vec<Checked> {
    let parts: Vec<_> = reports.iter().map(|report| signed_parts(report, rules)).collect();
    let proofs = if rules.vector_signatures {
        keyring.prove(&parts)
    } else {
        vec![Proof::default(); parts.len()]
    };
    let check = |((report, parts), proof): ((&&DecodedReport, _), _)| {
        check_parts(report, parts, proof, keyring, rules)
    };
    reports.iter().zip(parts).zip(proofs).map(check).collect()
}

fn check_parts(
    report: &DecodedReport,
    parts: Option<SignedParts<'_>>,
    proof: Proof<'_>,
    keyring: &Keyring,
    rules: &Rules,
) -> Checked {
    if report.signature.is_none() {
        return Checked::Suspend(Reason::SignatureMissing);
    }
    let Some(parts) = parts else {
        let accepted = match rules.policy {
            SignaturePolicy::Accept => true,
            SignaturePolicy::AcceptPrepaid => !report.readings.utility,
            SignaturePolicy::Suspend => false,
        };
        return if accepted {
            Checked::Status(SignatureStatus::Unverifiable)
        } else {
            Checked::Suspend(Reason::SignatureUnverifiable)
        };
    };
    match keyring.verify(&parts, proof) {
        Verdict::Verified => Checked::Status(SignatureStatus::Verified),
        Verdict::TrustUnknown => Checked::Suspend(Reason::TrustUnknown),
        Verdict::Invalid => Checked::Suspend(Reason::SignatureInvalid),
        Verdict::NotValidThen => Checked::Suspend(Reason::TrustNotValidThen),
    }
}

/// What it takes to check a signature here.
pub struct SignedParts<'a> {
    /// The exact bytes that were signed.
    pub message: &'a [u8],
    pub sha256: &'a [u8; 32],
    pub algorithm: Algorithm,
    pub signer: &'a Udi,
    /// `None` if it is not base64.
    pub value: Option<Vec<u8>>,
    /// The report's last end, at which a trust code must be in force.
    pub at: EpochSeconds,
}

/// The parts of a report's signature; `None` where it cannot be checked here: an object payload is no
/// signed bytes, and a token that is not mapped (builtin among them) can be checked by the vendor alone.
#[must_use]
pub fn signed_parts<'a>(report: &'a DecodedReport, rules: &Rules) -> Option<SignedParts<'a>> {
    let signature = report.signature.as_ref()?;
    let signer = match &report.signer {
        Signer::Named(udi) => udi,
        Signer::Reporter | Signer::Unreadable => report.udi(),
    };
    Some(SignedParts {
        message: report.signed_payload.as_ref()?,
        sha256: &report.payload_sha256,
        algorithm: rules.algorithm(&signature.signing_type)?,
        signer,
        value: decode_base64(&signature.value),
        at: report.last_end,
    })
}

/// Base64 that may hold line breaks. Few do, so they are looked for only where it cannot be read otherwise.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let compact = || text.bytes().filter(|b| !b.is_ascii_whitespace()).collect::<Vec<u8>>();
    STANDARD.decode(text).or_else(|_| STANDARD.decode(compact())).ok()
}

/// The last word on a report that was decoded and whose origin is good.
#[must_use]
pub fn judge(probe: Probe, checked: Option<Checked>) -> Judged {
    let suspended = |reason: Reason, detail: &str, signature| Judged {
        disposition: Disposition::Suspended,
        reason: Some(reason),
        detail: Some(detail.to_owned()),
        signature,
    };
    match (probe, checked) {
        (Probe::Duplicate, _) => Judged {
            disposition: Disposition::Duplicate,
            reason: None,
            detail: None,
            signature: None,
        },
        (_, Some(Checked::Suspend(reason))) => {
            suspended(reason, signature_detail(reason), status_with(reason))
        }
        (Probe::Conflict, Some(Checked::Status(status))) => suspended(
            Reason::ContentConflict,
            "an accepted report has this device and report id, but another payload",
            Some(status),
        ),
        (Probe::New, Some(Checked::Status(status))) => Judged {
            disposition: Disposition::Accepted,
            reason: None,
            detail: None,
            signature: Some(status),
        },
        (Probe::New | Probe::Conflict, None) => {
            unreachable!("only a duplicate is judged without looking at its signature")
        }
    }
}

/// A report that was refused before its id was looked up.
#[must_use]
pub fn suspend(refused: &RefusedReport) -> Judged {
    Judged {
        disposition: Disposition::Suspended,
        reason: Some(refused.reason),
        detail: Some(refused.detail.clone()),
        signature: None,
    }
}

/// What the signature of a report is that is suspended for it: it was looked at (contract 5).
fn status_with(reason: Reason) -> Option<SignatureStatus> {
    match reason {
        Reason::TrustNotValidThen => Some(SignatureStatus::Verified),
        Reason::SignatureUnverifiable => Some(SignatureStatus::Unverifiable),
        _ => None,
    }
}

fn signature_detail(reason: Reason) -> &'static str {
    match reason {
        Reason::SignatureMissing => "the report has no signature, or one without type or value",
        Reason::TrustUnknown => "no trust code of the signer is on record",
        Reason::SignatureInvalid => {
            "no trust code on record of that algorithm verifies the signature"
        }
        Reason::TrustNotValidThen => {
            "the trust code that verifies it was not in force at the report's last end_time"
        }
        _ => "the signature cannot be checked here, and the policy wants it verified",
    }
}
