//! Which fields are read of a report, as they stand in its text (contract 1.2). Nothing is judged here
//! but what is JSON at all, and how deep and how long.

use super::ReportLimits;
use crate::core::json::{Fault, FaultKind, Kind, Reader, Scalar, Unescaped};

/// The outer object.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub(super) payload: Option<Payload<'a>>,
    pub(super) signature: Option<SignatureFields<'a>>,
}

pub(super) enum Payload<'a> {
    Text(Unescaped),
    /// Read in place; its own JSON text is what is digested.
    Object(Box<PayloadFields<'a>>, &'a str),
    OfAnotherType,
}

#[derive(Default)]
pub(super) struct SignatureFields<'a> {
    pub(super) sudi: Option<UdiFields<'a>>,
    pub(super) signing_type: Option<Scalar<'a>>,
    pub(super) value: Option<Scalar<'a>>,
}

/// A `{udi_pid, udi_serial_number}` object, or something else in its place.
#[derive(Clone, Copy)]
pub(super) enum UdiFields<'a> {
    Object { pid: Option<Scalar<'a>>, serial: Option<Scalar<'a>> },
    Other(Scalar<'a>),
}

/// An element of `ha_udi`.
#[derive(Clone, Copy)]
pub(super) struct Member<'a> {
    pub(super) sudi: Option<UdiFields<'a>>,
    pub(super) role: Option<Scalar<'a>>,
}

pub(super) struct MeasurementFields<'a> {
    pub(super) metric: Option<Scalar<'a>>,
    pub(super) start: Option<Scalar<'a>>,
    pub(super) end: Option<Scalar<'a>>,
    pub(super) value: Option<Scalar<'a>>,
}

#[derive(Default)]
pub(super) struct PayloadFields<'a> {
    pub(super) version: Option<Scalar<'a>>,
    pub(super) asset_report_id: Option<Scalar<'a>>,
    pub(super) meta_report_id: Option<Scalar<'a>>,
    pub(super) sudi: Option<UdiFields<'a>>,
    pub(super) tag: Option<Scalar<'a>>,
    pub(super) utility: Option<Scalar<'a>>,
    pub(super) software_version: Option<Scalar<'a>>,
    pub(super) subscription_id: Option<Scalar<'a>>,
    pub(super) ha_udi: Vec<Member<'a>>,
    pub(super) ha_udi_misfit: bool,
    pub(super) measurements: Option<Vec<MeasurementFields<'a>>>,
    pub(super) measurements_misfit: bool,
}

type Read<T> = Result<T, Fault>;

/// Stands where a container was expected and something else came: a field of another type.
pub(super) const MISFIT: Scalar<'static> = Scalar::Null;

pub(super) fn read_envelope<'a>(
    reader: &mut Reader<'a>,
    limits: &ReportLimits,
) -> Read<Envelope<'a>> {
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
        Kind::String => reader.long_string().map(Payload::Text),
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

pub(super) fn read_payload_fields<'a>(
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
        let mut member = Member { sudi: None, role: None };
        let mut again = false;
        r.object(|r, key| {
            if key.is("role") {
                // Nothing hangs on it: of several the last counts.
                member.role = Some(r.scalar()?);
                return Ok(());
            }
            if !key.is("sudi") {
                return r.skip();
            }
            if std::mem::replace(&mut again, true) {
                return r.duplicate(key);
            }
            member.sudi = Some(read_udi(r)?);
            Ok(())
        })?;
        f.ha_udi.push(member);
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
    let mut count = 0;
    reader.array(|r| {
        // Also those that are none: what is too large is so before it is anything else.
        count += 1;
        if count > limits.measurements_max {
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
