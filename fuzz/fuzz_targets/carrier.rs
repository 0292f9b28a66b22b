#![no_main]
//! Any bytes as an input: no panic, at least one item, and what is kept is bounded.

use ingest::core::carrier::{CarrierLimits, Item, read_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut limits = CarrierLimits::default();
    limits.report.report_bytes_max = 4096;
    let mut items = 0;
    read_bytes("input", bytes, &limits, &mut |item| {
        if let Item::Report(report) = item {
            assert!(report.text.len() <= 8 * 4096 + (256 << 10));
        }
        items += 1;
        true
    })
    .expect("bytes in memory can be read");
    // Only an archive without members has nothing to say.
    assert!(items > 0 || bytes.starts_with(b"\x1f\x8b") || bytes.len() > 262);
});
