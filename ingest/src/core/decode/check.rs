//! What must be true of a report's fields, and which reason says that it is not (contract 1.3).

use std::borrow::Cow;

use schemas::disposition::Reason;
use schemas::journal::ENTITLEMENT_METRIC;
use schemas::period::{EARLIEST, EpochSeconds};
use schemas::udi::{IDENTIFIER_BYTES_MAX, Udi};

use super::Refusal;
use super::fields::{MeasurementFields, PayloadFields, SignatureFields, UdiFields};
use crate::core::json::Scalar;
use crate::core::report::{DecodedReport, Measurement, Metric, OuterSignature, Readings, Signer};

/// A count is exact in every JSON implementation up to here.
const COUNT_MAX: i64 = 1 << 53;
/// A device's clock may run ahead by a day.
const CLOCK_AHEAD_MAX: EpochSeconds = 24 * 3600;

/// Checks every field: first that what is required is there, then that each value is good, then
/// the intervals. Whatever can be read is left in `readings`, for suspended reports too.
pub(super) fn check(
    fields: &PayloadFields<'_>,
    signature: Option<SignatureFields<'_>>,
    payload_sha256: [u8; 32],
    readings: &mut Readings,
) -> Result<DecodedReport, Refusal> {
    let mut faults = Faults::default();
    readings.payload_sha256 = Some(payload_sha256);

    let layout = check_layout(fields, &mut faults);
    readings.layout = layout;
    let report_id = check_report_id(fields, layout, &mut faults);
    readings.report_id = report_id;
    let reporter = "asset_identification.instance.sudi";
    if fields.sudi.is_none() {
        faults.missing(reporter);
    }
    let udi = fields.sudi.and_then(|udi| check_udi(udi, reporter, true, &mut faults));
    readings.measurements = check_measurements(fields, &mut faults);
    readings.tag = check_tag(fields, &mut faults);
    // Layout 1 has no utility mode (contract 1.2).
    readings.utility =
        layout == Some(2) && check_flag(fields.utility, "meta.utility_enabled", &mut faults);
    readings.software_version = optional_text(fields.software_version);
    readings.subscription_id = optional_text(fields.subscription_id).filter(|id| !id.is_empty());
    if fields.ha_udi_misfit {
        faults.bad("meta.ha_udi", "is no list of objects");
    }
    for member in &fields.ha_udi {
        let Some(udi) = member.sudi else { continue };
        if matches!(udi, UdiFields::Other(Scalar::Null)) {
            continue;
        }
        if let Some(udi) = check_udi(udi, "meta.ha_udi[].sudi", false, &mut faults) {
            readings.ha_udi.push(udi);
            readings.asides.ha_roles.push(optional_text(member.role).unwrap_or_default());
        }
    }
    let (signer, signature) = check_signature(signature, udi.as_ref(), &mut faults);
    readings.udi = udi;
    faults.first()?;
    check_intervals(&readings.measurements)?;
    let (Some(_), Some(report_id)) = (&readings.udi, report_id) else {
        return Err((Reason::MissingField, "the report does not say whose it is".to_owned()));
    };
    Ok(DecodedReport {
        readings: Readings::default(),
        report_id,
        payload_sha256,
        signed_payload: None,
        signer,
        signature,
        last_end: readings.measurements.iter().map(|m| m.end).max().unwrap_or(EARLIEST),
    })
}

/// The first missing field and the first bad value; a missing field goes before.
#[derive(Default)]
struct Faults {
    missing: Option<String>,
    bad: Option<String>,
}

impl Faults {
    fn missing(&mut self, field: &str) {
        self.missing.get_or_insert_with(|| format!("{field} is missing"));
    }

    fn bad(&mut self, field: &str, why: &str) {
        self.bad.get_or_insert_with(|| format!("{field} {why}"));
    }

    fn first(self) -> Result<(), Refusal> {
        match (self.missing, self.bad) {
            (Some(detail), _) => Err((Reason::MissingField, detail)),
            (None, Some(detail)) => Err((Reason::BadValue, detail)),
            (None, None) => Ok(()),
        }
    }
}

/// 1 or 2; `None` for a version that is neither.
fn check_layout(fields: &PayloadFields<'_>, faults: &mut Faults) -> Option<i32> {
    match fields.version {
        None => Some(1),
        Some(version) => {
            let known = text_of(Some(version)).is_some_and(|v| v.starts_with("2."));
            if !known {
                faults.bad("version", "does not start with \"2.\"");
            }
            known.then_some(2)
        }
    }
}

fn check_report_id(
    fields: &PayloadFields<'_>,
    layout: Option<i32>,
    faults: &mut Faults,
) -> Option<u64> {
    let (field, id) = match layout {
        Some(1) => ("meta.report_id", fields.meta_report_id),
        Some(_) => ("asset_identification.report_id", fields.asset_report_id),
        None => ("report_id", fields.asset_report_id.or(fields.meta_report_id)),
    };
    let Some(id) = id else {
        faults.missing(field);
        return None;
    };
    let digits = match id {
        Scalar::Number(number) => Some(Cow::Borrowed(number)),
        Scalar::String(text) => text.unescape().ok(),
        _ => None,
    };
    let id = digits
        .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|d| d.parse().ok());
    if id.is_none() {
        faults.bad(field, "is no whole number from 0 to 2^64 - 1");
    }
    id
}

/// A UDI of two strings, neither empty nor too long. `required`: a part that is not there is
/// missing, otherwise it is bad.
fn check_udi(udi: UdiFields<'_>, field: &str, required: bool, faults: &mut Faults) -> Option<Udi> {
    let (pid, serial) = match udi {
        UdiFields::Object { pid, serial } => (pid, serial),
        UdiFields::Other(_) => {
            faults.bad(field, "is of another type");
            return None;
        }
    };
    let mut part = |name: &str, value: Option<Scalar<'_>>| match value {
        None if required => {
            faults.missing(&format!("{field}.{name}"));
            None
        }
        value => match value.and_then(|v| optional_text(Some(v))) {
            Some(text) if (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) => Some(text),
            _ => {
                faults.bad(&format!("{field}.{name}"), "is no text of 1 to 256 bytes");
                None
            }
        },
    };
    let (pid, serial) = (part("udi_pid", pid), part("udi_serial_number", serial));
    Some(Udi::new(pid?, serial?))
}

fn check_measurements(fields: &PayloadFields<'_>, faults: &mut Faults) -> Vec<Measurement> {
    if fields.measurements_misfit {
        faults.bad("measurements", "is no list of objects");
    }
    let all = fields.measurements.as_deref().unwrap_or_default();
    if all.is_empty() && !fields.measurements_misfit {
        faults.missing("measurements[0]");
    }
    all.iter()
        .enumerate()
        .filter_map(|(i, m)| {
            let whole = "is no whole number of seconds";
            let metric = |v| text_of(Some(v)).map(|name| Metric::new(&name));
            let metric = need(faults, i, "metric_name", m.metric, metric, "is no text");
            let start = need(faults, i, "start_time", m.start, seconds, whole);
            let end = need(faults, i, "end_time", m.end, seconds, whole);
            let value = need(
                faults,
                i,
                "value.value",
                m.value,
                count,
                "is no count: digits in a string, at most 2^53",
            );
            Some(Measurement { metric: metric?, start: start?, end: end?, value: value? })
        })
        .collect()
}

/// A field that each measurement must have, read by `parse`.
fn need<'a, T>(
    faults: &mut Faults,
    index: usize,
    name: &str,
    value: Option<Scalar<'a>>,
    parse: fn(Scalar<'a>) -> Option<T>,
    why: &str,
) -> Option<T> {
    let Some(value) = value else {
        faults.missing(&format!("measurements[{index}].{name}"));
        return None;
    };
    let parsed = parse(value);
    if parsed.is_none() {
        faults.bad(&format!("measurements[{index}].{name}"), why);
    }
    parsed
}

/// The tag may be absent if no measurement is usage.
fn check_tag(fields: &PayloadFields<'_>, faults: &mut Faults) -> Option<String> {
    let is_usage = |m: &MeasurementFields<'_>| {
        text_of(m.metric).is_some_and(|metric| metric == ENTITLEMENT_METRIC)
    };
    match fields.tag {
        None => {
            if fields.measurements.iter().flatten().any(is_usage) {
                faults.missing("meta.entitlement_tag");
            }
            None
        }
        Some(tag) => {
            let text =
                optional_text(Some(tag)).filter(|t| (1..=IDENTIFIER_BYTES_MAX).contains(&t.len()));
            if text.is_none() {
                faults.bad("meta.entitlement_tag", "is no text of 1 to 256 bytes");
            }
            text
        }
    }
}

fn check_flag(value: Option<Scalar<'_>>, field: &str, faults: &mut Faults) -> bool {
    match value {
        None | Some(Scalar::Null) => false,
        Some(Scalar::Boolean(flag)) => flag,
        Some(_) => {
            // Taken as false, a post-paid report would become prepaid without a word.
            faults.bad(field, "is neither true nor false");
            false
        }
    }
}

fn check_signature(
    fields: Option<SignatureFields<'_>>,
    reporter: Option<&Udi>,
    faults: &mut Faults,
) -> (Signer, Option<OuterSignature>) {
    let Some(fields) = fields else {
        return (Signer::Reporter, None);
    };
    let signer = match fields.sudi {
        None | Some(UdiFields::Other(Scalar::Null)) => Signer::Reporter,
        Some(UdiFields::Object {
            pid: pid @ Some(Scalar::String(_)),
            serial: serial @ Some(Scalar::String(_)),
        }) => {
            // Most devices name themselves.
            let is = |value, part: &str| text_of(value).is_some_and(|text| text == part);
            if reporter.is_some_and(|udi| is(pid, &udi.pid) && is(serial, &udi.serial)) {
                Signer::Reporter
            } else {
                let named = UdiFields::Object { pid, serial };
                check_udi(named, "signature.sudi", false, faults)
                    .map_or(Signer::Unreadable, Signer::Named)
            }
        }
        Some(_) => Signer::Unreadable,
    };
    let text = |value| optional_text(value).filter(|t| !t.is_empty());
    let signature = match (text(fields.signing_type), text(fields.value)) {
        (Some(signing_type), Some(value)) => Some(OuterSignature { signing_type, value }),
        _ => None,
    };
    (signer, signature)
}

fn optional_text(value: Option<Scalar<'_>>) -> Option<String> {
    text_of(value).map(Cow::into_owned)
}

fn text_of(value: Option<Scalar<'_>>) -> Option<Cow<'_, str>> {
    match value {
        Some(Scalar::String(text)) => text.unescape().ok(),
        _ => None,
    }
}

fn seconds(value: Scalar<'_>) -> Option<EpochSeconds> {
    match value {
        Scalar::Number(number) => number.parse().ok(),
        _ => None,
    }
}

fn count(value: Scalar<'_>) -> Option<i64> {
    let Scalar::String(text) = value else { return None };
    let text = text.unescape().ok()?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = text.trim_start_matches('0');
    if significant.is_empty() {
        return Some(0);
    }
    significant.parse().ok().filter(|n| *n <= COUNT_MAX)
}

fn check_intervals(measurements: &[Measurement]) -> Result<(), Refusal> {
    for (i, m) in measurements.iter().enumerate() {
        if m.end <= m.start {
            return Err((
                Reason::BadInterval,
                format!("measurements[{i}] ends at {}, not after its start {}", m.end, m.start),
            ));
        }
        if m.start < EARLIEST {
            return Err((
                Reason::BadInterval,
                format!("measurements[{i}] starts at {}, before the year 2000", m.start),
            ));
        }
    }
    Ok(())
}

pub(super) fn check_times(
    measurements: &[Measurement],
    received_at: EpochSeconds,
) -> Result<(), Refusal> {
    let latest = received_at.saturating_add(CLOCK_AHEAD_MAX);
    match measurements.iter().position(|m| m.end > latest) {
        Some(i) => Err((
            Reason::ClockFuture,
            format!(
                "measurements[{i}] ends at {}, more than 24 h after it was received at {received_at}",
                measurements[i].end
            ),
        )),
        None => Ok(()),
    }
}
