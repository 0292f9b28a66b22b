#![no_main]
//! Any bytes as a report, and any text as its payload: a report or a named reason, never a panic.

use ingest::core::decode::{ReportLimits, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = ReportLimits::default();
    let check = |text: &[u8]| match decode(text, &limits, 1_793_491_200) {
        Ok(report) => assert!(!report.readings.measurements.is_empty()),
        Err(refused) => assert!(!refused.detail.is_empty()),
    };
    check(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let escaped: String = text.chars().flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c if c.is_control() => format!("\\u{:04x}", u32::from(c)).chars().collect(),
            c => vec![c],
        }).collect();
        check(format!("{{\"payload\":\"{escaped}\",\"signature\":null}}").as_bytes());
        check(format!("{{\"payload\":{text},\"signature\":null}}").as_bytes());
    }
});
