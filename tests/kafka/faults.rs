//! Brokers that fail: a real one that is stopped, and a mock that refuses.

use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::stand::{Stand, brokers, long, script, until};
use crate::support::counts;

fn broker(action: &str, port: u16) {
    let status = Command::new(script())
        .arg(action)
        .env("RUMLEDGER_TEST_KAFKA_PORT", port.to_string())
        .status()
        .unwrap();
    assert!(status.success(), "broker.sh {action}");
}

/// A broker of its own is stopped for a while and started again.
#[test]
fn a_broker_that_goes_and_comes_back_costs_nothing() {
    drop(brokers());
    let port = 19192;
    broker("up", port);
    let (reports, down) = if long() { ("50000", 60) } else { ("5000", 20) };
    let stand = Stand::at(format!("127.0.0.1:{port}"));
    let half: u64 = reports.parse().unwrap();
    let received = || stand.dispositions().values().sum::<u64>();
    stand.produce(&["--reports", reports, "--devices", "200"]);
    let mut worker = stand.spawn(&[], &[("RUMLEDGER_FLUSH_ROWS_MAX", "2000")]);
    until("the first half is in", Duration::from_secs(120), || received() >= half);
    let before = worker.peak_mib();
    broker("kill", port);
    std::thread::sleep(Duration::from_secs(down));
    assert!(!worker.has_ended(), "{}", worker.log());
    let down_peak = worker.peak_mib();
    broker("start", port);
    // The same fleet and keys, twice as many reports: the ids of the first half come again with other
    // bytes.
    let twice = (2 * half).to_string();
    stand.produce(&["--reports", &twice, "--devices", "200"]);
    let started = Instant::now();
    until("all are in", Duration::from_secs(180), || received() >= 3 * half);
    let after = worker.peak_mib();
    eprintln!(
        "peak memory {before} MiB before, {down_peak} MiB while it was down, {after} MiB at the end; \
         {} reports in {} s after it came back",
        2 * half,
        started.elapsed().as_secs()
    );
    assert!(down_peak < before + 16, "memory grew from {before} to {down_peak} MiB with no broker");
    assert!(after < before + 128, "memory grew from {before} to {after} MiB");
    assert_eq!(worker.stop(), Some(0), "{}", worker.log());
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
    broker("down", port);
}

/// While nothing can be committed, no more is held than a commit takes, and nothing is lost.
#[test]
fn a_lake_that_goes_and_comes_back_costs_nothing() {
    let stand = Stand::new();
    stand.produce(&["--reports", "40000", "--devices", "400", "--algorithm", "EdDSA"]);
    let mut worker = stand.spawn(&[], &[("RUMLEDGER_FLUSH_ROWS_MAX", "1000")]);
    let received = || stand.dispositions().values().sum::<u64>();
    until("the first are in", Duration::from_secs(60), || received() >= 40_000);
    let before = worker.peak_mib();
    let (journal, away) = (stand.place.path("lake/journal"), stand.place.path("journal"));
    std::fs::rename(&journal, &away).unwrap();
    std::fs::write(&journal, "in the way").unwrap();
    // Another fleet's reports are suspended: its book is not imported.
    let others = ["--reports", "100000", "--devices", "400", "--seed", "2", "--algorithm", "EdDSA"];
    assert!(stand.generator(&others).status().unwrap().success());
    until("it pauses", Duration::from_secs(60), || worker.log().contains("reading pauses"));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!worker.has_ended(), "{}", worker.log());
    let down_peak = worker.peak_mib();
    std::fs::remove_file(&journal).unwrap();
    std::fs::rename(&away, &journal).unwrap();
    until("all are in", Duration::from_secs(120), || received() >= 140_000);
    eprintln!("peak memory {before} MiB before, {down_peak} MiB with no lake");
    // What the client fetches until it is paused counts too; all of the reports would be far more.
    assert!(down_peak < before + 192, "memory grew from {before} to {down_peak} MiB with no lake");
    let log = worker.log();
    assert!(log.contains("a commit failed and is tried again"), "{log}");
    assert!(log.contains("reading goes on"), "{log}");
    assert_eq!(worker.stop(), Some(0), "{}", worker.log());
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}

/// What a person has to look at ends the worker, with its reason, instead of being tried for ever.
#[test]
fn a_commit_that_fails_for_good_ends_the_worker() {
    let stand = Stand::new();
    stand.produce(&["--reports", "500", "--devices", "20"]);
    let mut worker = stand.spawn(&[], &[("RUMLEDGER_FAILPOINT", "disk-does-not-sync")]);
    let status = worker.wait(Duration::from_secs(60));
    let log = worker.log();
    assert_eq!(status, Some(1), "{log}");
    assert!(log.contains("the disk did not sync what was written; look at the disk"), "{log}");
    assert_eq!(stand.dispositions().values().sum::<u64>(), 0, "nothing is in the journal");
    stand.drain();
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}

/// Requests that fail now and then, with errors that a client has to live with.
#[test]
fn requests_that_fail_are_made_again() {
    use RDKafkaRespErr as E;
    let cluster = MockCluster::new(2).unwrap();
    let stand = Stand::at(cluster.bootstrap_servers());
    for topic in [&stand.topic, &stand.receipts, &stand.trust] {
        cluster.create_topic(topic, 4, 1).unwrap();
    }
    let expected = stand.produce(&["--reports", "3000", "--devices", "60"]);
    cluster.request_errors(
        RDKafkaApiKey::Fetch,
        &[
            E::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            E::RD_KAFKA_RESP_ERR__TRANSPORT,
            E::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        ],
    );
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, E::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT],
    );
    cluster.request_errors(
        RDKafkaApiKey::OffsetCommit,
        &[E::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, E::RD_KAFKA_RESP_ERR_NOT_COORDINATOR],
    );
    let got = counts(&stand.drain().stdout);
    for name in ["received", "accepted", "duplicate", "suspended"] {
        assert_eq!(got[name], expected[name], "{name}");
    }
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}
