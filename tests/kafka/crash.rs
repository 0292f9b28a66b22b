//! Killed at any moment and at every named point, the worker loses and doubles nothing.

use std::time::Duration;

use crate::stand::{Stand, long};

/// A small, fixed generator: the same moments in every run.
struct Moments(u64);

impl Moments {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

#[test]
fn killed_at_any_moment_and_at_every_point_a_worker_loses_and_doubles_nothing() {
    let (reports, kills) = if long() { ("200000", 200) } else { ("12000", 8) };
    let stand = Stand::new();
    // Copies without a key reach other partitions than what they copy.
    let fleet = ["--devices", "300", "--algorithm", "EdDSA", "--duplicates", "5", "--broken", "2"];
    let mut args = vec!["--reports", "400", "--seed", "1"];
    args.extend(fleet);
    // The topic and the book have to be there before a worker starts.
    stand.produce(&args);
    let mut args = vec!["--reports", reports, "--seed", "1", "--scatter"];
    args.extend(fleet);
    let mut producer = stand.generator(&args);
    let mut producer = producer.stdout(std::process::Stdio::null()).spawn().unwrap();

    // Small commits, so that kills fall between, before and within many of them.
    let small = [("RUMLEDGER_FLUSH_ROWS_MAX", "600"), ("RUMLEDGER_FLUSH_AGE_MS_MAX", "200")];
    // A static member: the group gives a worker that comes back its partitions at once.
    let member = ["--set", "group.instance.id=crash"];
    let points = lake::failpoint::NAMES;
    for point in points {
        let mut all = small.to_vec();
        all.push(("RUMLEDGER_FAILPOINT", point));
        let mut worker = stand.spawn(&member, &all);
        let status = worker.wait(Duration::from_secs(90));
        assert_eq!(status, None, "{point} was not met:\n{}", worker.log());
    }
    let mut moments = Moments(7);
    let mut in_time = 0;
    for _ in 0..kills {
        let mut worker = stand.spawn(&member, &small);
        std::thread::sleep(Duration::from_millis(300 + moments.below(4000)));
        in_time += u32::from(!worker.has_ended());
        worker.kill();
    }
    assert!(in_time * 10 > kills * 9, "only {in_time} of {kills} kills met a running worker");
    assert!(producer.wait().unwrap().success());
    let last = stand.drain_as(&member);
    let produced = stand.read_topic(&stand.topic);
    eprintln!(
        "{} messages, {} kills, {} points; the last worker took {:?}",
        produced.len(),
        in_time,
        points.len(),
        last.stdout.lines().nth(1)
    );
    stand.journal_is(&produced);
    stand.receipts_are(&produced);
}
