//! What a report says beside its usage (contract 1.2: `ha_udi` roles, `added_sudi_list`,
//! `removed_sudi_list`, `clock_change_delta`). Few reports have any, so it is looked for before it is read,
//! and read leniently: no report is refused for it.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use schemas::udi::{IDENTIFIER_BYTES_MAX, Udi};
use serde_json::Value;

use crate::core::report::{Asides, ClockChange, SubDevice};

static SUDI_LIST: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("_sudi_list"));
static CLOCK: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new("clock_change_delta"));

/// Reads it of a payload's JSON text, which is known to be well-formed and not too deep. (The roles are
/// read with the members that have them.)
pub(super) fn read(payload: &str, asides: &mut Asides) {
    let bytes = payload.as_bytes();
    if SUDI_LIST.find(bytes).is_none() && CLOCK.find(bytes).is_none() {
        return;
    }
    // Nested ten thousand times less deep than what serde_json follows.
    let Ok(payload) = serde_json::from_str::<Value>(payload) else { return };
    for (number, measurement) in list(&payload["measurements"]).iter().enumerate() {
        let Ok(number) = i32::try_from(number) else { break };
        let meta = &measurement["meta"];
        for (name, is_added) in [("added_sudi_list", true), ("removed_sudi_list", false)] {
            asides.sub_devices.extend(
                list(&meta[name]).iter().filter_map(udi).map(|udi| SubDevice {
                    measurement: number,
                    is_added,
                    udi,
                }),
            );
        }
        let seconds = match &meta["clock_change_delta"] {
            Value::String(text) => text.trim().parse().ok(),
            other => other.as_i64(),
        };
        if let Some(seconds) = seconds.filter(|seconds| *seconds != 0) {
            asides.clock_changes.push(ClockChange { measurement: number, seconds });
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A UDI, bare or as the `sudi` of an object.
fn udi(value: &Value) -> Option<Udi> {
    let value = value.get("sudi").unwrap_or(value);
    let part = |name: &str| {
        let text = value[name].as_str()?;
        (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()).then_some(text)
    };
    Some(Udi::new(part("udi_pid")?, part("udi_serial_number")?))
}
