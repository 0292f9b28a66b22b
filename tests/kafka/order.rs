//! What reaches the journal is what was committed to the topic, and the ledger does not depend on the
//! way it came.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};

use crate::stand::Stand;
use crate::support::{Place, counts};

const FLEET: [&str; 6] = ["--reports", "6000", "--devices", "150", "--seed", "5"];

#[test]
fn the_same_data_by_files_and_by_kafka_gives_the_same_ledger() {
    let files = Place::with_fleet(&FLEET);
    files.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    let stand = Stand::new();
    let expected = stand.produce(&FLEET);
    let ran = stand.drain();
    let got = counts(&ran.stdout);
    for name in ["received", "accepted", "duplicate", "suspended"] {
        assert_eq!(got[name], expected[name], "{name}");
    }
    for place in [&files, &stand.place] {
        for period in ["2026-09", "2026-10"] {
            let ran = place.run(&["-q", "reconcile", "--period", period]);
            assert!(matches!(ran.status, 0 | 3), "{}", ran.stderr);
        }
    }
    let lines = |place: &Place| {
        let columns = "line_id, posted_period, segment_start, smart_account, virtual_account, pool, \
             subscription_id, entitlement, charge, kind, consumed, purchased, quantity, amount, \
             currency, verified_share";
        place.sql(&format!("SELECT {columns} FROM ledger ORDER BY line_id"))
    };
    assert!(lines(&files).len() > 20);
    assert_eq!(lines(&files), lines(&stand.place));
    // A second worker finds nothing, and says so.
    let again = stand.drain();
    assert_eq!((again.status, counts(&again.stdout)["received"]), (0, 0));
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}

#[test]
fn aborted_transactions_leave_nothing() {
    let stand = Stand::new();
    let expected = stand.produce(&["--reports", "8000", "--devices", "100", "--abort", "30"]);
    let got = counts(&stand.drain().stdout);
    assert_eq!(got["received"], 8000);
    assert_eq!(got["accepted"], expected["accepted"]);
    assert_eq!(got["duplicate"], expected["duplicate"]);
    let produced = stand.read_topic(&stand.topic);
    // The offsets of what was aborted are holes.
    let last: i64 =
        (0..4).filter_map(|p| produced.keys().filter(|k| k.0 == p).map(|k| k.1 + 1).max()).sum();
    assert!(last > 8000 + 2000, "{last} offsets for 8000 messages: nothing was aborted");
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}

#[test]
fn every_codec_is_read() {
    let stand = Stand::new();
    for (seed, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let (seed, set) = ((seed + 20).to_string(), format!("compression.type={codec}"));
        let mut all = vec!["--reports", "500", "--devices", "50", "--seed", &seed, "--set", &set];
        all.extend(["--duplicates", "0", "--broken", "0"]);
        stand.produce(&all);
    }
    let got = counts(&stand.drain().stdout);
    assert_eq!(got["received"], 2500);
    stand.journal_is(&stand.read_topic(&stand.topic));
}

pub fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

pub fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn messages_that_are_gone_halt_the_worker_with_the_reason() {
    let stand = Stand::new();
    stand.produce(&["--reports", "1000", "--devices", "50"]);
    stand.drain();
    stand.produce(&["--reports", "1000", "--devices", "50", "--seed", "2"]);
    // The broker drops what no worker has read yet, as retention would.
    let mut cut = TopicPartitionList::new();
    for p in 0..4 {
        cut.add_partition_offset(&stand.topic, p, Offset::End).unwrap();
    }
    block(admin(&stand.brokers).delete_records(&cut, &AdminOptions::new())).unwrap();
    stand.produce(&["--reports", "100", "--devices", "50", "--seed", "3"]);
    let mut worker = stand.spawn(&["--idle-exit", "20"], &[]);
    assert_eq!(worker.wait(Duration::from_secs(60)), Some(1), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("are gone: the journal holds it up to offset"), "{log}");
    assert_eq!(stand.dispositions().values().sum::<u64>(), 1000, "nothing was skipped");
}

#[test]
fn a_topic_made_anew_under_the_same_name_is_another_topic() {
    let stand = Stand::new();
    stand.produce(&["--reports", "600", "--devices", "50"]);
    stand.drain();
    block(admin(&stand.brokers).delete_topics(&[&stand.topic], &AdminOptions::new())).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    // More messages than before: by offsets alone the first 600 would count as taken.
    stand.produce(&["--reports", "1500", "--devices", "50", "--seed", "9"]);
    let got = counts(&stand.drain().stdout);
    assert_eq!(got["received"], 1500);
}
