//! Each stage of a record's path on its own, on one thread where the stage itself has one.
//!
//!     cargo build --release --locked --workspace
//!     target/release/stages --bench
//!
//! Reports are those of a made-up fleet, so every figure is a report's, not a synthetic line's.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "benches read their environment")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use benches::{RECEIVED_AT, book, fleet, reports, signatures};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ingest::core::carrier::{CarrierLimits, Item, read_bytes};
use ingest::core::decode::{ReportLimits, decode};
use ingest::core::keyring::Keyring;
use ingest::core::mediate::Rules;
use ingest::core::report::{Arrival, Delivery, RawReport};
use ingest::shell::index::{Index, ReportKey};
use ingest::shell::mediation::{Batch, Gathered, Judging, journal_layout};
use lake::Lake;
use reconcile::core::claims::Names;
use reconcile::core::rate::amount;
use reconcile::core::timeline::{Claim, ReportFacts, max_join};
use schemas::journal;
use schemas::ledger::TierMode;
use schemas::udi::Udi;
use tokio::runtime::Runtime;

const REPORTS: usize = 20_000;

fn fleet_of(algorithm: &str) -> PathBuf {
    let reports = REPORTS.to_string();
    let args = ["--reports", &reports, "--devices", "400", "--duplicates", "0", "--broken", "0"];
    fleet(&format!("stages-{algorithm}"), &[&args[..], &["--algorithm", algorithm]].concat())
}

fn arrivals(reports: Vec<RawReport>) -> Vec<Arrival> {
    let delivery = Arc::new(Delivery { collector: Some("file".to_owned()), ..Delivery::default() });
    reports
        .into_iter()
        .map(|raw| Arrival {
            raw,
            delivery: Arc::clone(&delivery),
            partition: None,
            received_at: RECEIVED_AT,
        })
        .collect()
}

/// A document's bytes to the texts of its reports.
fn carriers(c: &mut Criterion) {
    let folder = fleet_of("EdDSA").join("reports");
    let mut group = c.benchmark_group("carrier");
    for (name, extension) in [("xml", "xml"), ("json list", "json"), ("bundle", "gz")] {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == extension));
        files.sort();
        let bytes = std::fs::read(&files[0]).unwrap();
        let read = |bytes: &[u8]| {
            let mut n = 0u64;
            let mut count = |item: Item| {
                n += u64::from(matches!(black_box(item), Item::Report(_)));
                true
            };
            read_bytes("bench", bytes, &CarrierLimits::default(), &mut count).unwrap();
            n
        };
        group.throughput(Throughput::Elements(read(&bytes)));
        group.bench_function(name, |b| b.iter(|| read(black_box(&bytes))));
    }
    group.finish();
}

/// A report's text to its fields.
fn decoding(c: &mut Criterion) {
    let all = reports(&fleet_of("EdDSA").join("reports"));
    let mut group = c.benchmark_group("decode");
    let limits = ReportLimits::default();
    for layout in [1, 2] {
        let of_layout: Vec<&RawReport> = all
            .iter()
            .filter(|raw| {
                decode(&raw.text, &limits, RECEIVED_AT).unwrap().readings.layout == Some(layout)
            })
            .take(1000)
            .collect();
        group.throughput(Throughput::Elements(of_layout.len() as u64));
        group.bench_function(format!("layout {layout}"), |b| {
            b.iter(|| {
                for raw in &of_layout {
                    black_box(decode(black_box(&raw.text), &limits, RECEIVED_AT).unwrap());
                }
            });
        });
    }
    group.finish();
}

fn verifying(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let folder = fleet_of(algorithm);
        let mut all = reports(&folder.join("reports"));
        all.truncate(1200);
        let (signed, keys) = signatures(&all, &book(&folder.join("book")));
        group.throughput(Throughput::Elements(signed.len() as u64));
        group.bench_function(algorithm, |b| {
            b.iter(|| {
                for s in &signed {
                    keys[s.key].parsed.verify_sig(&s.message, &s.signature).unwrap();
                }
            });
        });
        if ingest::core::eight::is_here() {
            group.bench_function(format!("{algorithm}, eight at a time"), |b| {
                b.iter(|| {
                    let verified = benches::verified_eight_at_a_time(black_box(&signed), &keys);
                    assert_eq!(verified, signed.len());
                });
            });
        }
    }
    group.finish();
}

/// A lake with an empty journal, and what is needed to fill it.
struct Desk {
    runtime: Runtime,
    folder: tempfile::TempDir,
    journal: lake::Table,
    judging: Judging,
    arrivals: Vec<Arrival>,
}

impl Desk {
    fn new(algorithm: &str) -> Desk {
        let fleet = fleet_of(algorithm);
        let runtime = Runtime::new().unwrap();
        // Beside the target folder: a temporary folder may be no disk at all.
        let folder = tempfile::tempdir_in(fleet.parent().unwrap()).unwrap();
        let lake = Lake::open(folder.path().to_str().unwrap()).unwrap();
        let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout())).unwrap();
        let keyring = Keyring::new(&book(&fleet.join("book")).trust_codes);
        let judging = Judging {
            limits: CarrierLimits::default(),
            rules: Rules::default(),
            keyring: Arc::new(keyring),
        };
        let arrivals = arrivals(reports(&fleet.join("reports")));
        Desk { runtime, folder, journal, judging, arrivals }
    }

    fn index(&self) -> Index {
        self.runtime.block_on(Index::open(self.folder.path(), &self.journal)).unwrap()
    }

    fn batch(&self, index: &Index) -> Batch {
        let mut gathered = Gathered::default();
        for chunk in self.arrivals.chunks(512) {
            gathered.take(chunk, &self.judging, index, None).unwrap();
        }
        gathered.finish().unwrap()
    }
}

/// Reports to judged rows, on all cores: decoding, probe, signature, disposition, columns.
fn mediation(c: &mut Criterion) {
    let mut group = c.benchmark_group("mediate");
    group.sample_size(10).throughput(Throughput::Elements(REPORTS as u64));
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let desk = Desk::new(algorithm);
        let index = desk.index();
        assert_eq!(desk.batch(&index).summary.accepted, REPORTS as u64);
        group.bench_function(algorithm, |b| b.iter(|| black_box(desk.batch(&index))));
    }
    group.finish();
}

fn probing(c: &mut Criterion) {
    const KNOWN: u64 = 1_000_000;
    let desk = Desk::new("EdDSA");
    let mut index = desk.index();
    let key = |n: u64| ReportKey::new(&Udi::new("C8000V", format!("9{:08}", n % 20_000)), n);
    let digest = [7; 32];
    index.record((0..KNOWN).map(|n| (key(n), digest)), &desk.journal).unwrap();
    let mut group = c.benchmark_group("probe");
    group.throughput(Throughput::Elements(64));
    for (name, from) in [("known", 0), ("new", KNOWN)] {
        let mut n = from;
        group.bench_function(name, |b| {
            b.iter(|| {
                // As many as an ingest asks for at once.
                let asked: Vec<_> = (0..64)
                    .map(|_| {
                        n = from + (n + 7919) % KNOWN;
                        (key(n), digest)
                    })
                    .collect();
                black_box(index.probe(&asked).unwrap());
            });
        });
    }
    group.finish();
}

/// Rows to files and one commit of them, synced.
fn committing(c: &mut Criterion) {
    let desk = Desk::new("EdDSA");
    let rows = desk.batch(&desk.index()).rows;
    let mut group = c.benchmark_group("commit");
    group.sample_size(10).throughput(Throughput::Elements(REPORTS as u64));
    let mut journal = desk.journal.clone();
    group.bench_function("write and commit", |b| {
        b.iter_batched(
            || rows.clone(),
            |rows| desk.runtime.block_on(journal.append_once(&rows)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The max-join of one device's month: a report an hour, each twice.
fn timeline(c: &mut Criterion) {
    let mut names = Names::default();
    let (pi, _) = names.pi("C8000V", "9A00000001");
    let (tag, subscription) = (names.text("tag"), names.text(""));
    let facts: Vec<ReportFacts> = (0..1488)
        .map(|report_id| ReportFacts {
            payload_sha256: schemas::merkle::Hash::default(),
            report_id,
            pi,
            tag,
            subscription,
            header_account: None,
            utility: true,
            verified: true,
        })
        .collect();
    let claims: Vec<Claim> = (0..1488)
        .map(|n| Claim {
            start: n / 2 * 3600,
            end: n / 2 * 3600 + 3600,
            value: 1 + n % 5,
            report: usize::try_from(n).unwrap(),
        })
        .collect();
    let mut group = c.benchmark_group("timeline");
    group.throughput(Throughput::Elements(claims.len() as u64));
    group.bench_function("max-join", |b| b.iter(|| black_box(max_join(&claims, &facts, &names))));
    group.finish();
}

fn rating(c: &mut Criterion) {
    let book = book(&fleet_of("EdDSA").join("book"));
    let mut group = c.benchmark_group("rate");
    group.throughput(Throughput::Elements(1));
    for mode in [TierMode::Flat, TierMode::Graduated, TierMode::Volume, TierMode::Package] {
        let Some(price) = book.prices.iter().find(|p| p.tier_mode == mode) else { continue };
        group.bench_function(mode.as_str(), |b| {
            b.iter(|| black_box(amount(price, black_box(123_456_789_012)).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(
    stages, carriers, decoding, verifying, probing, mediation, committing, timeline, rating
);
criterion_main!(stages);
