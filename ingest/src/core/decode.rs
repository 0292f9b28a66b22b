//! Bytes of one report to its fields, or to the reason why not (contract 1.2, 1.3).

use aws_lc_rs::digest::{SHA256, digest};
use schemas::disposition::Reason;
use schemas::journal::ENTITLEMENT_METRIC;
use schemas::period::EpochSeconds;
use schemas::udi::{IDENTIFIER_BYTES_MAX, Udi};

use super::json::{Fault, FaultKind, Kind, Reader, Scalar, Text};
use super::report::{DecodedReport, Measurement, OuterSignature, Readings, RefusedReport, Signer};

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

/// A count is exact in every JSON implementation up to here.
const COUNT_MAX: i64 = 1 << 53;
/// 2000-01-01T00:00:00Z: no measurement is older.
const EARLIEST: EpochSeconds = 946_684_800;
/// A device's clock may run ahead by a day.
const CLOCK_AHEAD_MAX: EpochSeconds = 24 * 3600;

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
    let within = match std::str::from_utf8(within) {
        Ok(text) => text,
        // The cut may fall inside a character; anything else is no UTF-8.
        Err(error) if too_large && error.error_len().is_none() => {
            std::str::from_utf8(&within[..error.valid_up_to()]).unwrap_or_default()
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

/// The outer object.
#[derive(Default)]
struct Envelope<'a> {
    payload: Option<Payload<'a>>,
    signature: Option<SignatureFields<'a>>,
}

enum Payload<'a> {
    Text(Text<'a>),
    /// Read in place; its own JSON text is what is digested.
    Object(Box<PayloadFields<'a>>, &'a str),
    OfAnotherType,
}

#[derive(Default)]
struct SignatureFields<'a> {
    sudi: Option<UdiFields<'a>>,
    signing_type: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
}

/// A `{udi_pid, udi_serial_number}` object, or something else in its place.
#[derive(Clone, Copy)]
enum UdiFields<'a> {
    Object { pid: Option<Scalar<'a>>, serial: Option<Scalar<'a>> },
    Other(Scalar<'a>),
}

struct MeasurementFields<'a> {
    metric: Option<Scalar<'a>>,
    start: Option<Scalar<'a>>,
    end: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
}

#[derive(Default)]
struct PayloadFields<'a> {
    version: Option<Scalar<'a>>,
    asset_report_id: Option<Scalar<'a>>,
    meta_report_id: Option<Scalar<'a>>,
    sudi: Option<UdiFields<'a>>,
    tag: Option<Scalar<'a>>,
    utility: Option<Scalar<'a>>,
    software_version: Option<Scalar<'a>>,
    subscription_id: Option<Scalar<'a>>,
    ha_udi: Vec<Option<UdiFields<'a>>>,
    ha_udi_misfit: bool,
    measurements: Option<Vec<MeasurementFields<'a>>>,
    measurements_misfit: bool,
}

type Read<T> = Result<T, Fault>;

/// Stands where a container was expected and something else came: a field of another type.
const MISFIT: Scalar<'static> = Scalar::Null;

fn read_envelope<'a>(reader: &mut Reader<'a>, limits: &ReportLimits) -> Read<Envelope<'a>> {
    let mut envelope = Envelope::default();
    if reader.kind()? != Kind::Object {
        reader.skip()?;
        return reader.fault(FaultKind::Syntax("a report is an object"));
    }
    reader.known(&["payload", "signature"], |r, key| {
        match key {
            0 => envelope.payload = Some(read_payload(r, limits)?),
            _ => envelope.signature = read_signature(r)?,
        }
        Ok(())
    })?;
    reader.end()?;
    Ok(envelope)
}

fn read_payload<'a>(reader: &mut Reader<'a>, limits: &ReportLimits) -> Read<Payload<'a>> {
    match reader.kind()? {
        Kind::String => match reader.scalar()? {
            Scalar::String(text) => Ok(Payload::Text(text)),
            _ => Ok(Payload::OfAnotherType),
        },
        Kind::Object => {
            reader.skip_whitespace();
            let whole = reader.rest();
            let start = reader.offset();
            let fields = reader.with_own_depth(|r| read_payload_fields(r, limits))?;
            Ok(Payload::Object(Box::new(fields), &whole[..reader.offset() - start]))
        }
        _ => {
            reader.with_own_depth(Reader::skip)?;
            Ok(Payload::OfAnotherType)
        }
    }
}

fn read_signature<'a>(reader: &mut Reader<'a>) -> Read<Option<SignatureFields<'a>>> {
    if reader.kind()? != Kind::Object {
        reader.skip()?;
        return Ok(None);
    }
    let mut fields = SignatureFields::default();
    reader.known(&["sudi", "signing_type", "value"], |r, key| {
        match key {
            0 => fields.sudi = Some(read_udi(r)?),
            1 => fields.signing_type = Some(r.scalar()?),
            _ => fields.value = Some(r.scalar()?),
        }
        Ok(())
    })?;
    Ok(Some(fields))
}

fn read_udi<'a>(reader: &mut Reader<'a>) -> Read<UdiFields<'a>> {
    if reader.kind()? != Kind::Object {
        return reader.scalar().map(UdiFields::Other);
    }
    let (mut pid, mut serial) = (None, None);
    reader.known(&["udi_pid", "udi_serial_number"], |r, key| {
        *(if key == 0 { &mut pid } else { &mut serial }) = Some(r.scalar()?);
        Ok(())
    })?;
    Ok(UdiFields::Object { pid, serial })
}

fn read_payload_fields<'a>(
    reader: &mut Reader<'a>,
    limits: &ReportLimits,
) -> Read<PayloadFields<'a>> {
    let mut f = PayloadFields::default();
    reader.known(
        &["version", "asset_identification", "meta", "measurements"],
        |r, key| match key {
            0 => {
                f.version = Some(r.scalar()?);
                Ok(())
            }
            1 => read_asset(r, &mut f),
            2 => read_meta(r, &mut f),
            _ => read_measurements(r, &mut f, limits),
        },
    )?;
    Ok(f)
}

fn read_asset<'a>(reader: &mut Reader<'a>, f: &mut PayloadFields<'a>) -> Read<()> {
    if reader.kind()? != Kind::Object {
        f.asset_report_id = Some(MISFIT);
        f.sudi = Some(UdiFields::Other(MISFIT));
        return reader.skip();
    }
    reader.known(&["report_id", "instance"], |r, key| {
        if key == 0 {
            f.asset_report_id = Some(r.scalar()?);
            return Ok(());
        }
        if r.kind()? != Kind::Object {
            f.sudi = Some(UdiFields::Other(MISFIT));
            return r.skip();
        }
        r.known(&["sudi"], |r, _| {
            f.sudi = Some(read_udi(r)?);
            Ok(())
        })
    })
}

fn read_meta<'a>(reader: &mut Reader<'a>, f: &mut PayloadFields<'a>) -> Read<()> {
    if reader.kind()? != Kind::Object {
        f.meta_report_id = Some(MISFIT);
        f.tag = Some(MISFIT);
        return reader.skip();
    }
    let keys = [
        "report_id",
        "entitlement_tag",
        "utility_enabled",
        "software_version",
        "ha_udi",
        "subscription_id",
    ];
    reader.known(&keys, |r, key| {
        let slot = match key {
            0 => &mut f.meta_report_id,
            1 => &mut f.tag,
            2 => &mut f.utility,
            3 => &mut f.software_version,
            4 => return read_ha_udi(r, f),
            _ => &mut f.subscription_id,
        };
        *slot = Some(r.scalar()?);
        Ok(())
    })
}

fn read_ha_udi<'a>(reader: &mut Reader<'a>, f: &mut PayloadFields<'a>) -> Read<()> {
    match reader.kind()? {
        Kind::Array => {}
        Kind::Null => return reader.skip(),
        _ => {
            f.ha_udi_misfit = true;
            return reader.skip();
        }
    }
    reader.array(|r| {
        if r.kind()? != Kind::Object {
            f.ha_udi_misfit = true;
            return r.skip();
        }
        let mut udi = None;
        r.known(&["sudi"], |r, _| {
            udi = Some(read_udi(r)?);
            Ok(())
        })?;
        f.ha_udi.push(udi);
        Ok(())
    })
}

fn read_measurements<'a>(
    reader: &mut Reader<'a>,
    f: &mut PayloadFields<'a>,
    limits: &ReportLimits,
) -> Read<()> {
    if reader.kind()? != Kind::Array {
        f.measurements_misfit = true;
        return reader.skip();
    }
    let mut all = Vec::new();
    reader.array(|r| {
        if all.len() >= limits.measurements_max {
            return r.fault(FaultKind::TooMany);
        }
        if r.kind()? != Kind::Object {
            f.measurements_misfit = true;
            return r.skip();
        }
        let mut m = MeasurementFields { metric: None, start: None, end: None, value: None };
        r.known(&["metric_name", "start_time", "end_time", "value"], |r, key| {
            let slot = match key {
                0 => &mut m.metric,
                1 => &mut m.start,
                2 => &mut m.end,
                _ => return read_value(r, &mut m.value),
            };
            *slot = Some(r.scalar()?);
            Ok(())
        })?;
        all.push(m);
        Ok(())
    })?;
    f.measurements = Some(all);
    Ok(())
}

fn read_value<'a>(reader: &mut Reader<'a>, value: &mut Option<Scalar<'a>>) -> Read<()> {
    if reader.kind()? != Kind::Object {
        *value = Some(MISFIT);
        return reader.skip();
    }
    reader.known(&["value"], |r, _| {
        *value = Some(r.scalar()?);
        Ok(())
    })
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
            check(&fields, envelope.signature, text.as_bytes(), None, readings)
        }
        Some(Payload::Text(text)) => {
            let payload = text.unescape().map_err(|f| refusal(f, "the payload string", limits))?;
            readings.payload_sha256 = Some(sha256(payload.as_bytes()));
            let mut reader = Reader::new(&payload, limits.depth_max);
            let in_payload = |fault| refusal(fault, "the payload", limits);
            if reader.kind().map_err(in_payload)? != Kind::Object {
                reader.skip().and_then(|()| reader.end()).map_err(in_payload)?;
                return Err(misfit("the payload's content"));
            }
            let fields = read_payload_fields(&mut reader, limits).map_err(in_payload)?;
            reader.end().map_err(in_payload)?;
            let signed = Some(payload.as_bytes());
            check(&fields, envelope.signature, payload.as_bytes(), signed, readings)
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Checks every field: first that what is required is there, then that each value is good, then
/// the intervals. Whatever can be read is left in `readings`, for suspended reports too.
fn check(
    fields: &PayloadFields<'_>,
    signature: Option<SignatureFields<'_>>,
    payload: &[u8],
    signed: Option<&[u8]>,
    readings: &mut Readings,
) -> Result<DecodedReport, Refusal> {
    let mut faults = Faults::default();
    readings.payload_sha256.get_or_insert_with(|| sha256(payload));
    let payload_sha256 = readings.payload_sha256.unwrap_or_default();

    let layout = check_layout(fields, &mut faults);
    readings.layout = layout;
    let report_id = check_report_id(fields, layout, &mut faults);
    readings.report_id = report_id;
    let reporter = "asset_identification.instance.sudi";
    if fields.sudi.is_none() {
        faults.missing(reporter);
    }
    let udi = fields.sudi.and_then(|udi| check_udi(udi, reporter, true, &mut faults));
    readings.udi.clone_from(&udi);
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
    for udi in fields.ha_udi.iter().copied().flatten() {
        if !matches!(udi, UdiFields::Other(Scalar::Null)) {
            readings.ha_udi.extend(check_udi(udi, "meta.ha_udi[].sudi", false, &mut faults));
        }
    }
    let (signer, signature) = check_signature(signature, &mut faults);
    faults.first()?;
    check_intervals(&readings.measurements)?;
    let (Some(udi), Some(report_id)) = (udi, report_id) else {
        return Err((Reason::MissingField, "the report does not say whose it is".to_owned()));
    };
    Ok(DecodedReport {
        readings: Readings::default(),
        udi,
        report_id,
        payload_sha256,
        signed_payload: signed.map(<[u8]>::to_vec),
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
            let known = optional_text(Some(version)).is_some_and(|v| v.starts_with("2."));
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
        Scalar::Number(number) => Some(number.to_owned()),
        Scalar::String(text) => text.unescape().ok().map(|t| t.into_owned()),
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
            let metric =
                need(faults, i, "metric_name", m.metric, |v| optional_text(Some(v)), "is no text");
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
        optional_text(m.metric).is_some_and(|metric| metric == ENTITLEMENT_METRIC)
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
    faults: &mut Faults,
) -> (Signer, Option<OuterSignature>) {
    let Some(fields) = fields else {
        return (Signer::Reporter, None);
    };
    let signer = match fields.sudi {
        None | Some(UdiFields::Other(Scalar::Null)) => Signer::Reporter,
        Some(UdiFields::Object {
            pid: Some(Scalar::String(_)),
            serial: Some(Scalar::String(_)),
        }) => {
            let udi = fields.sudi.and_then(|udi| check_udi(udi, "signature.sudi", false, faults));
            udi.map_or(Signer::Unreadable, Signer::Named)
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
    match value {
        Some(Scalar::String(text)) => text.unescape().ok().map(|t| t.into_owned()),
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

fn check_times(measurements: &[Measurement], received_at: EpochSeconds) -> Result<(), Refusal> {
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
