//! What the benches share: made-up fleets on disk, and their reports and keys in memory.
//!
//! Fleets are made by the release binary (`fleet generate`), once for each shape, and kept under the
//! target folder: the same seed gives the same reports.

#![allow(clippy::disallowed_methods, reason = "benches read their environment")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingest::core::carrier::{CarrierLimits, Item, read_source};
use ingest::core::decode::{ReportLimits, decode};
use ingest::core::eight;
use ingest::core::report::{DecodedReport, RawReport, Signer};
use ingest::shell::files::{FileSource, list};
use schemas::book::{Book, TABLES, parse_csv};
use schemas::key::{Algorithm, parse_spki};

/// 2026-11-01T00:00:00Z: after all usage of a made-up fleet.
pub const RECEIVED_AT: i64 = 1_793_491_200;

/// The release binary: `RUMLEDGER_BIN`, or the one beside this program.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(named) = std::env::var_os("RUMLEDGER_BIN") {
        return named.into();
    }
    let mut folder = std::env::current_exe().unwrap();
    while !folder.join("rumledger").is_file() {
        assert!(folder.pop(), "no rumledger beside this bench: run `cargo build --release` first");
    }
    folder.join("rumledger")
}

/// A fleet on disk: `book/` and `reports/`.
#[must_use]
pub fn fleet(name: &str, args: &[&str]) -> PathBuf {
    let binary = binary();
    let folder = binary.parent().unwrap().join("fleets").join(name);
    if !folder.join("done").is_file() {
        let _ = std::fs::remove_dir_all(&folder);
        let made = Command::new(&binary)
            .args(["-q", "fleet", "generate", "--out"])
            .arg(&folder)
            .args(args)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(folder.join("done"), b"").unwrap();
    }
    folder
}

/// All reports under a folder.
#[must_use]
pub fn reports(folder: &Path) -> Vec<RawReport> {
    let mut all = Vec::new();
    for path in list(&[folder.to_path_buf()]).unwrap() {
        let mut take = |item| {
            if let Item::Report(report) = item {
                all.push(report);
            }
            true
        };
        read_source(&FileSource::new(path), &CarrierLimits::default(), &mut take).unwrap();
    }
    all
}

/// The book in a folder of CSV files.
#[must_use]
pub fn book(folder: &Path) -> Book {
    let mut errors = Vec::new();
    let cells = TABLES
        .iter()
        .filter_map(|spec| {
            let bytes = std::fs::read(folder.join(format!("{}.csv", spec.name))).ok()?;
            Some((spec.name.to_owned(), parse_csv(spec, &bytes, &mut errors)))
        })
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    Book::read(&cells).unwrap()
}

/// Everything that the check of one signature takes; the key is parsed.
pub struct Signed {
    pub message: Vec<u8>,
    pub sha256: [u8; 32],
    pub signature: Vec<u8>,
    pub key: usize,
}

/// A public key, for aws-lc and for eight signatures at a time, where this processor can.
pub struct PublicKey {
    pub parsed: ParsedPublicKey,
    algorithm: Algorithm,
    spki: Vec<u8>,
    arranged: eight::Kept,
}

impl PublicKey {
    fn new(algorithm: Algorithm, spki_base64: &str) -> PublicKey {
        let spki = STANDARD.decode(spki_base64).unwrap();
        PublicKey {
            parsed: parse_spki(algorithm, &spki).unwrap(),
            algorithm,
            spki,
            arranged: eight::Kept::default(),
        }
    }

    fn in_lanes(&self) -> Option<eight::Key<'_>> {
        eight::Key::of(self.algorithm, &self.spki, &self.arranged)
    }
}

/// How many of some signatures are found to verify eight at a time, in the parts that an ingest takes.
#[must_use]
pub fn verified_eight_at_a_time(signed: &[Signed], keys: &[PublicKey]) -> usize {
    fn check<'a>(s: &'a Signed, keys: &'a [PublicKey]) -> Option<eight::Check<'a>> {
        let Signed { message, sha256, signature, key } = s;
        let key = keys[*key].in_lanes()?;
        Some(eight::Check { key, message, sha256, signature })
    }
    let found = |part: &[Signed]| {
        let checks: Vec<eight::Check<'_>> = part.iter().filter_map(|s| check(s, keys)).collect();
        eight::verify(&checks).into_iter().filter(|verified| *verified).count()
    };
    signed.chunks(64).map(found).sum()
}

/// The signatures of reports that a trust code can check, and the parsed keys.
#[must_use]
pub fn signatures(reports: &[RawReport], book: &Book) -> (Vec<Signed>, Vec<PublicKey>) {
    let mut keys = Vec::new();
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    let mut by_device = HashMap::new();
    for code in &book.trust_codes {
        let number = *numbers.entry(&code.public_key).or_insert_with(|| {
            keys.push(PublicKey::new(code.algorithm, &code.public_key));
            keys.len() - 1
        });
        by_device.insert(&code.udi, number);
    }
    let signed = |report: DecodedReport| {
        let outer = report.signature.as_ref()?;
        Algorithm::parse(&outer.signing_type)?;
        let signer = match &report.signer {
            Signer::Named(udi) => udi,
            Signer::Reporter | Signer::Unreadable => report.udi(),
        };
        let key = *by_device.get(signer)?;
        let signature = STANDARD.decode(&outer.value).ok()?;
        let sha256 = report.payload_sha256;
        Some(Signed { message: report.signed_payload?, sha256, signature, key })
    };
    let all = reports
        .iter()
        .filter_map(|raw| decode(&raw.text, &ReportLimits::default(), RECEIVED_AT).ok())
        .filter_map(signed)
        .collect();
    (all, keys)
}
