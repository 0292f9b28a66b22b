#![no_main]
//! Any bytes as an archive, and as a member of one: bounded, no panic, one verdict when damaged.

use ingest::core::carrier::{CarrierLimits, read_bytes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = CarrierLimits {
        archive_members_max: 100,
        archive_bytes_max: 1 << 20,
        ..CarrierLimits::default()
    };
    // A tar header whose content is the input: the archive reader is met on every run.
    let mut tar = vec![0u8; 512];
    tar[..5].copy_from_slice(b"x.txt");
    tar[100..107].copy_from_slice(b"0000644");
    let size = format!("{:011o}", bytes.len());
    tar[124..135].copy_from_slice(size.as_bytes());
    tar[156] = b'0';
    tar[257..262].copy_from_slice(b"ustar");
    tar[148..156].fill(b' ');
    let sum: u32 = tar.iter().map(|b| u32::from(*b)).sum();
    tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(bytes);
    for input in [bytes, &tar] {
        read_bytes("input", input, &limits, &mut |_| true).expect("bytes in memory can be read");
    }
});
