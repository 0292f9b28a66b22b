//! Bytes of one report to its fields, or to the reason why not (contract 1.2, 1.3).

mod asides;
mod check;
mod fields;

use aws_lc_rs::digest::{SHA256, digest};
use schemas::disposition::Reason;
use schemas::period::EpochSeconds;
use simdutf8::compat::from_utf8;

use self::check::{check, check_times};
use self::fields::{Envelope, Payload, read_envelope, read_payload_fields};
use super::json::{Fault, FaultKind, Kind, Reader};
use super::report::{DecodedReport, Readings, RefusedReport};

/// Bounds on one report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportLimits {
    pub report_bytes_max: usize,
    pub measurements_max: usize,
    pub depth_max: u32,
}

impl Default for ReportLimits {
    /// The defaults of contract 1.3.
    fn default() -> Self {
        ReportLimits { report_bytes_max: 1 << 20, measurements_max: 10_000, depth_max: 64 }
    }
}

/// Reads one report. `received_at` decides what lies in the future.
///
/// # Errors
/// The first reason that applies, with what could be read.
pub fn decode(
    text: &[u8],
    limits: &ReportLimits,
    received_at: EpochSeconds,
) -> Result<DecodedReport, Box<RefusedReport>> {
    let mut readings = Readings::default();
    match read(text, limits, &mut readings).and_then(|rest| {
        check_times(&readings.measurements, received_at)?;
        Ok(rest)
    }) {
        Ok(rest) => Ok(DecodedReport { readings, ..rest }),
        Err((reason, detail)) => Err(Box::new(RefusedReport { reason, detail, readings })),
    }
}

type Refusal = (Reason, String);

fn read(
    text: &[u8],
    limits: &ReportLimits,
    readings: &mut Readings,
) -> Result<DecodedReport, Refusal> {
    let too_large = text.len() > limits.report_bytes_max;
    let within = &text[..text.len().min(limits.report_bytes_max)];
    let within = match from_utf8(within) {
        Ok(text) => text,
        // The cut may fall inside a character; anything else is no UTF-8.
        Err(error) if too_large && error.error_len().is_none() => {
            from_utf8(&within[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => {
            return Err((Reason::Malformed, format!("not UTF-8 at byte {}", error.valid_up_to())));
        }
    };
    let mut reader = Reader::new(within, limits.depth_max);
    let envelope = read_envelope(&mut reader, limits);
    match envelope {
        Ok(envelope) if !too_large => interpret(envelope, limits, readings),
        Err(fault) if !too_large || fault.kind != FaultKind::Incomplete => {
            Err(refusal(fault, "the report", limits))
        }
        Ok(_) | Err(_) => Err((
            Reason::TooLarge,
            format!("the report has {} bytes, allowed are {}", text.len(), limits.report_bytes_max),
        )),
    }
}

/// A fault of reading as a reason and a place.
#[must_use]
pub fn refusal(fault: Fault, part: &str, limits: &ReportLimits) -> Refusal {
    let at = fault.offset;
    match fault.kind {
        FaultKind::Syntax(what) => {
            (Reason::Malformed, format!("{part} is not JSON: {what} at byte {at}"))
        }
        FaultKind::Incomplete => {
            (Reason::Malformed, format!("{part} ends inside a value, at byte {at}"))
        }
        FaultKind::DuplicateKey => {
            (Reason::Malformed, format!("a key comes twice in {part}, at byte {at}"))
        }
        FaultKind::TooDeep => (
            Reason::TooDeep,
            format!("{part} is nested deeper than {} at byte {at}", limits.depth_max),
        ),
        FaultKind::TooMany => (
            Reason::TooLarge,
            format!("{part} has more than {} measurements", limits.measurements_max),
        ),
    }
}
/// From the envelope to a decoded report: the payload is read, its fields are checked.
fn interpret(
    envelope: Envelope<'_>,
    limits: &ReportLimits,
    readings: &mut Readings,
) -> Result<DecodedReport, Refusal> {
    let misfit = |what: &str| (Reason::BadValue, format!("{what} is of another type"));
    match envelope.payload {
        None => Err((Reason::MissingField, "the report has no payload".to_owned())),
        Some(Payload::OfAnotherType) => Err(misfit("payload")),
        Some(Payload::Object(fields, text)) => {
            let report = check(&fields, envelope.signature, sha256(text.as_bytes()), readings)?;
            asides::read(text, &mut readings.asides);
            Ok(report)
        }
        Some(Payload::Text(text)) => {
            let signed = text.into_bytes().map_err(|f| refusal(f, "the payload string", limits))?;
            let digest = sha256(&signed);
            readings.payload_sha256 = Some(digest);
            // It was text before it was unescaped.
            let payload = from_utf8(&signed)
                .map_err(|e| (Reason::Malformed, format!("the payload is not UTF-8: {e}")))?;
            let mut reader = Reader::new(payload, limits.depth_max);
            let in_payload = |fault| refusal(fault, "the payload", limits);
            if reader.kind().map_err(in_payload)? != Kind::Object {
                reader.skip().and_then(|()| reader.end()).map_err(in_payload)?;
                return Err(misfit("the payload's content"));
            }
            let fields = read_payload_fields(&mut reader, limits).map_err(in_payload)?;
            reader.end().map_err(in_payload)?;
            let report = check(&fields, envelope.signature, digest, readings)?;
            drop(fields);
            asides::read(payload, &mut readings.asides);
            Ok(DecodedReport { signed_payload: Some(signed), ..report })
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}
