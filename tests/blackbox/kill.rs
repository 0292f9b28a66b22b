//! Kill -9 at any moment of an ingest, run it again: no report is lost, none is accepted twice.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Place, ran};

const KILLS: u32 = 50;
const ACCEPTED: &str = "SELECT udi_pid, udi_serial, report_id, payload_sha256, signature, entitlement_tag \
    FROM journal WHERE disposition = 'accepted' ORDER BY 1, 2, 3, 4";
/// Everything that was received, however often: what it was, and what became of it.
const RECEIVED: &str = "SELECT DISTINCT source, \"offset\", payload_sha256, coalesce(reason, 'good') \
    FROM journal ORDER BY 1, 2, 3, 4";

#[test]
fn killed_at_any_moment_an_ingest_loses_and_doubles_nothing() {
    let fleet = [
        "--reports",
        "20000",
        "--devices",
        "400",
        "--algorithm",
        "EdDSA",
        "--per-file",
        "500",
        "--broken",
        "3",
    ];
    let place = Place::with_fleet(&fleet);
    let ingest = ["-q", "ingest", "files", "fleet/reports"];
    // Small commits, so that kills fall between, before and within many of them.
    let command = |lake: &str| {
        let mut command = place.command(&ingest);
        command.env("RUMLEDGER_LAKE", lake).env("RUMLEDGER_FLUSH_ROWS_MAX", "700");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    for lake in ["whole", "killed"] {
        place.ok(0, &["--lake", lake, "book", "import", "fleet/book"]);
    }
    let started = Instant::now();
    assert_eq!(command("whole").status().unwrap().code(), Some(3));
    let whole = started.elapsed();

    // Moments spread over the whole run, in no order: a multiple of the golden ratio, modulo 1.
    let mut in_time = 0;
    for kill in 0..KILLS {
        let share = (kill * 618 + 31) % 1000;
        let mut child = command("killed").spawn().unwrap();
        std::thread::sleep(whole * share / 1000 + Duration::from_millis(5));
        if child.try_wait().unwrap().is_none() {
            in_time += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(in_time > KILLS / 2, "only {in_time} kills met a running ingest");
    assert_eq!(command("killed").status().unwrap().code(), Some(3));

    let rows =
        |lake: &str, query: &str| place.ok(0, &["--lake", lake, "sql", query, "--format", "csv"]);
    assert!(
        rows("killed", ACCEPTED) == rows("whole", ACCEPTED),
        "the accepted reports are the same multiset"
    );
    assert!(rows("whole", ACCEPTED).lines().count() > 15_000);
    let good = |lake: &str| {
        // A copy that was met first in another run is the accepted one, so only what was received and
        // why it was suspended can be compared.
        rows(lake, RECEIVED)
    };
    assert!(good("killed") == good("whole"), "every report received has its row");
}

/// Whatever a write meets, it ends with a status and a message of ours.
#[test]
fn a_write_that_the_system_refuses_is_said_and_nothing_else() {
    let place = Place::with_fleet(&["--reports", "300", "--devices", "20"]);
    let run = |limit: &str, args: &str| {
        let binary = env!("CARGO_BIN_EXE_rumledger");
        let script = format!("ulimit {limit}; exec {binary} -q {args}");
        let mut shell = std::process::Command::new("sh");
        shell.current_dir(place.path("")).args(["-c", &script]);
        ran(shell.env("RUMLEDGER_NOW", "2026-11-10T00:00:00Z").output().unwrap())
    };
    // Blocks of 512 bytes.
    let refused = run("-f 8", "ingest files fleet/reports");
    assert_eq!(refused.status, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("File too large"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    let done = run("-f unlimited", "ingest files fleet/reports --format json");
    let said: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(said["accepted"].as_u64().unwrap() > 200, "{said}");
    let journal = place.sql("SELECT count(*) FROM journal");
    assert_eq!(journal, [said["received"].to_string()], "what was refused is in no table");
}
