//! Several workers in one group on one journal.

use std::time::{Duration, Instant};

use crate::stand::{Running, Stand, long, until};

const SMALL: [(&str, &str); 2] =
    [("RUMLEDGER_FLUSH_ROWS_MAX", "500"), ("RUMLEDGER_FLUSH_AGE_MS_MAX", "250")];

/// Waits until the journal has all reports; otherwise shows what the workers say.
fn wait_for(stand: &Stand, reports: u64, running: &[&Running]) {
    let started = Instant::now();
    let received = || stand.dispositions().values().sum::<u64>();
    while received() < reports {
        if started.elapsed() > Duration::from_secs(90) {
            let logs: Vec<String> = running.iter().map(|worker| worker.log()).collect();
            panic!(
                "{} of {reports} reports are in the journal:\n{}",
                received(),
                logs.join("\n--\n")
            );
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Workers come and go while a producer writes; copies reach other partitions.
fn rebalanced(workers: usize, rebalances: usize) {
    let reports: u64 = if long() { 100_000 } else { 8_000 };
    let stand = Stand::new();
    stand.produce(&["--reports", "200", "--devices", "200"]);
    let text = reports.to_string();
    let mut producer = stand
        .generator(&["--reports", &text, "--devices", "200", "--scatter", "--seed", "4"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut running: Vec<Running> = (0..workers).map(|_| stand.spawn(&[], &SMALL)).collect();
    for n in 0..rebalances {
        std::thread::sleep(Duration::from_millis(900 + (n as u64 * 377) % 900));
        // One leaves in good order or is killed, another comes: each is a rebalance.
        let mut gone = running.remove(n % workers);
        if n % 3 == 0 {
            gone.kill();
        } else {
            assert_eq!(gone.stop(), Some(0), "{}", gone.log());
        }
        running.push(stand.spawn(&[], &SMALL));
        if n == rebalances / 2 {
            // The journal is compacted while they write.
            stand.place.ok(0, &["-q", "lake", "optimize", "--target-mb", "8"]);
        }
    }
    assert!(producer.wait().unwrap().success());
    wait_for(&stand, reports + 200, &running.iter().collect::<Vec<_>>());
    for worker in &mut running {
        assert_eq!(worker.stop(), Some(0), "{}", worker.log());
    }
    let produced = stand.read_topic(&stand.topic);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
    stand.place.ok(0, &["-q", "lake", "vacuum"]);
    stand.journal_is(&produced);
}

#[test]
fn two_workers_share_a_topic_through_rebalances() {
    rebalanced(2, if long() { 50 } else { 6 });
}

#[test]
fn four_workers_share_a_topic_through_rebalances() {
    rebalanced(4, if long() { 50 } else { 4 });
}

/// A worker is frozen with rows in its hands; its partitions go to another; it wakes and may not
/// commit what the other has committed.
#[test]
fn a_worker_that_slept_past_its_session_cannot_commit_for_it() {
    let stand = Stand::new();
    stand.produce(&["--reports", "3000", "--devices", "100"]);
    // It gathers for a long time, so that it holds rows when it is frozen.
    let slow = [("RUMLEDGER_FLUSH_AGE_MS_MAX", "8000")];
    let mut sleeper = stand.spawn(&[], &slow);
    until("the sleeper has partitions", Duration::from_secs(30), || {
        sleeper.log().contains("partitions assigned")
    });
    std::thread::sleep(Duration::from_secs(3));
    sleeper.signal("STOP");
    let mut other = stand.spawn(&[], &SMALL);
    wait_for(&stand, 3000, &[&sleeper, &other]);
    // The same fleet: other keys would have its reports taken up later, with a second receipt.
    stand.produce(&["--reports", "2000", "--devices", "100"]);
    sleeper.signal("CONT");
    wait_for(&stand, 5000, &[&sleeper, &other]);
    until("the sleeper finds out", Duration::from_secs(60), || {
        let log = sleeper.log();
        log.contains("another worker went on") || log.contains("lost=true")
    });
    assert_eq!(sleeper.stop(), Some(0), "{}", sleeper.log());
    assert_eq!(other.stop(), Some(0), "{}", other.log());
    let produced = stand.read_topic(&stand.topic);
    assert_eq!(produced.len(), 5000);
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}
