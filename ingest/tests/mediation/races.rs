//! Two writers of one journal: what was judged before the other's commit, and is committed after it.

use std::path::Path;
use std::sync::Arc;

use ingest::core::carrier::{CarrierLimits, Item};
use ingest::core::mediate::{Probe, Rules};
use ingest::core::report::{Arrival, Delivery};
use ingest::shell::index::{Index, ReportKey};
use ingest::shell::mediation::{Gathered, Judging, Summary, journal_layout};
use ingest::shell::writer::{Commit, JournalWriter, Settled};
use lake::Lake;
use schemas::disposition::Reason;
use schemas::journal;
use schemas::udi::Udi;
use tokio::runtime::Runtime;

use crate::desk::{Mediation, NOW, items, payload, with};

/// A writer with an index of its own.
struct Writer {
    writer: JournalWriter,
    gathered: Gathered,
    judging: Judging,
}

impl Writer {
    fn new(runtime: &Runtime, folder: &Path, name: &str, mediation: &Mediation) -> Writer {
        let lake = Lake::open(folder.join("lake").to_str().unwrap()).unwrap();
        let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout())).unwrap();
        let index = runtime.block_on(Index::open(&folder.join(name), &journal)).unwrap();
        let judging = Judging {
            limits: CarrierLimits::default(),
            rules: Rules::default(),
            keyring: Arc::new(mediation.keys.keyring()),
        };
        let writer = JournalWriter::new(runtime.handle(), journal, index);
        Writer { writer, gathered: Gathered::default(), judging }
    }

    /// Judges the reports of inputs.
    fn take(&mut self, inputs: &[&str]) {
        let items = inputs.iter().flat_map(|i| items(i.as_bytes(), &self.judging.limits));
        let arrivals: Vec<Arrival> = items
            .filter_map(|item| match item {
                Item::Report(raw) => Some(Arrival {
                    raw,
                    delivery: Arc::new(Delivery::default()),
                    partition: None,
                    received_at: NOW,
                }),
                Item::Ignored { .. } => None,
            })
            .collect();
        assert_eq!(arrivals.len(), inputs.len());
        let (index, in_commit) = (self.writer.index(), self.writer.in_commit());
        self.gathered.take(&arrivals, &self.judging, index, in_commit).unwrap();
    }

    fn start(&mut self) {
        let batch = self.gathered.finish().unwrap();
        let commit = Commit { batch, fences: Vec::new(), marks: Vec::new() };
        self.writer.start(commit, &self.judging).unwrap();
    }

    fn settle(&mut self) -> Summary {
        match self.writer.settle(&self.judging).unwrap() {
            Some(Settled::Committed(batch)) => batch.summary,
            _ => panic!("not committed"),
        }
    }
}

fn accepted(n: u64) -> Summary {
    Summary { received: n, accepted: n, verified: n, ..Summary::default() }
}

fn conflicts(n: u64) -> Summary {
    Summary { received: n, suspended: [(Reason::ContentConflict, n)].into(), ..Summary::default() }
}

fn duplicates(n: u64) -> Summary {
    Summary { received: n, duplicate: n, ..Summary::default() }
}

/// Rows that were judged by those of a commit under way stand and fall with them.
#[test]
fn what_a_commit_under_way_comes_to_decides_what_was_judged_by_it() {
    let mediation = Mediation::new();
    let one = mediation.envelope(&payload(1)).to_string();
    let other = mediation.envelope(&with("/measurements/0/value/value", "4")).to_string();
    let unrelated = mediation.envelope(&payload(2)).to_string();
    // What another writer accepts first; what becomes of a commit, and of a row judged by it.
    for (first, then, expected) in [
        (&other, [&one, &one], [conflicts(1), conflicts(1)]),
        (&other, [&one, &other], [conflicts(1), duplicates(1)]),
        (&one, [&one, &one], [duplicates(1), duplicates(1)]),
        (&one, [&one, &other], [duplicates(1), conflicts(1)]),
        (&unrelated, [&one, &one], [accepted(1), duplicates(1)]),
        (&unrelated, [&one, &other], [accepted(1), conflicts(1)]),
    ] {
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut faster = Writer::new(&runtime, folder.path(), "faster", &mediation);
        let mut slower = Writer::new(&runtime, folder.path(), "slower", &mediation);
        faster.take(&[first]);
        faster.start();
        assert_eq!(faster.settle(), accepted(1));
        slower.take(&[then[0]]);
        slower.start();
        slower.take(&[then[1]]);
        let was_first = slower.settle();
        assert_eq!(slower.writer.conflicts(), 1);
        slower.start();
        assert_eq!([was_first, slower.settle()], expected);
    }
}

/// Of two copies, one unsigned, each is what it would be without the other writer: the order of arrival counts.
#[test]
fn what_is_judged_again_is_judged_in_the_order_in_which_it_came() {
    let mediation = Mediation::new();
    let signed = |id: u64| mediation.envelope(&payload(id)).to_string();
    let mut unsigned = mediation.envelope(&payload(1));
    unsigned["signature"] = serde_json::Value::Null;
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut faster = Writer::new(&runtime, folder.path(), "faster", &mediation);
    let mut slower = Writer::new(&runtime, folder.path(), "slower", &mediation);
    faster.take(&[&signed(5_000)]);
    faster.start();
    assert_eq!(faster.settle(), accepted(1));
    // Enough for several batches, and for several goes.
    let many: Vec<String> = (2..=9_000).map(signed).collect();
    let (unsigned, first) = (unsigned.to_string(), signed(1));
    let mut inputs: Vec<&str> = vec![&unsigned, &first];
    inputs.extend(many.iter().map(String::as_str));
    inputs.push(&unsigned);
    for inputs in inputs.chunks(700) {
        slower.take(inputs);
    }
    slower.start();
    let expected = Summary {
        received: 9_002,
        accepted: 8_999,
        verified: 8_999,
        duplicate: 2,
        suspended: [(Reason::SignatureMissing, 1)].into(),
        ..Summary::default()
    };
    assert_eq!(slower.settle(), expected);
    assert_eq!(slower.writer.conflicts(), 1);
}

/// An index that was written in the middle of a commit's reports holds a part of them. Where the journal is restored
/// to the commit before, they must not be known.
#[test]
fn an_index_with_a_part_of_a_commit_is_not_believed_without_that_commit() {
    // More than become a run.
    const ENTRIES: u64 = 113_000;
    let mediation = Mediation::new();
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(&runtime, folder.path(), "unused", &mediation);
    let mut journal = writer.writer.journal().clone();
    let live = folder.path().join("live");
    let mut index = runtime.block_on(Index::open(&live, &journal)).unwrap();
    let entry = |n: u64| (ReportKey::new(&Udi::new("P", "S"), n), [7; 32]);
    let mut commit = |entries: std::ops::Range<u64>| {
        writer.take(&[&mediation.envelope(&payload(entries.start)).to_string()]);
        let rows = writer.gathered.finish().unwrap().rows;
        runtime.block_on(journal.append_once(&rows)).unwrap();
        index.record(entries.map(entry), &journal).unwrap();
    };
    commit(0..1_000);
    commit(1_000..ENTRIES);
    // The run is written beside.
    let state = live.join("index/state");
    let mut next = ENTRIES;
    while !std::fs::read_to_string(&state).is_ok_and(|state| state.contains("entries")) {
        commit(next..next + 1);
        next += 1;
        assert!(next < ENTRIES + 1_000);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // What a crash leaves.
    let crashed = |name: &str| {
        let copy = folder.path().join(name);
        std::fs::create_dir_all(copy.join("index")).unwrap();
        for file in std::fs::read_dir(live.join("index")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), copy.join("index").join(file.file_name())).unwrap();
        }
        copy
    };
    let known = |name: &str| {
        let lake = Lake::open(folder.path().join("lake").to_str().unwrap()).unwrap();
        let journal = runtime.block_on(lake.table(journal::TABLE)).unwrap().unwrap();
        let index = runtime.block_on(Index::open(&crashed(name), &journal)).unwrap();
        let entries: Vec<_> = (0..ENTRIES).map(entry).collect();
        let probes = index.probe(&entries).unwrap();
        probes.iter().filter(|probe| **probe == Probe::Duplicate).count()
    };
    // It is believed where the commit is: else it would know the reports that the journal has, which are others.
    assert!(known("as it was") >= 112_000);
    for version in 2.. {
        let log = folder.path().join(format!("lake/journal/_delta_log/{version:020}.json"));
        if std::fs::remove_file(log).is_err() {
            break;
        }
    }
    assert_eq!(known("restored"), 0);
}
