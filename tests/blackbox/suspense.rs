//! Suspended reports as a work list: counted, shown, retried, written off; never lost.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{self, Place, counts};

fn balance(place: &Place) -> Vec<String> {
    place.sql("SELECT disposition, count(*) FROM journal GROUP BY 1 ORDER BY 1")
}

fn place() -> Place {
    let place = Place::with_fleet(&[
        "--reports",
        "1500",
        "--devices",
        "60",
        "--months",
        "1",
        "--broken",
        "10",
    ]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place
}

fn ids(place: &Place, more: &[&str]) -> Vec<String> {
    let mut args = vec!["suspense", "list", "--format", "csv"];
    args.extend(more);
    let csv = place.ok(0, &args);
    csv.lines().skip(1).map(|l| l.split(',').next().unwrap().to_owned()).collect()
}

#[test]
fn suspended_reports_are_counted_with_what_they_would_bill() {
    let place = place();
    let all = ids(&place, &[]).len();
    for by in ["reason", "collector", "account"] {
        let csv = place.ok(0, &["suspense", "list", "--by", by, "--format", "csv"]);
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        let numbers = rows.records().map(|row| row.unwrap()[1].parse::<usize>().unwrap());
        assert_eq!(numbers.sum::<usize>(), all, "{by}\n{csv}");
    }
    // What it says comes true: every report with a missing signature is taken where policy asks for none,
    // so the bill of these alone is what the statement grows by once they are accepted.
    let reason = "signature-unverifiable";
    let would = |place: &Place| {
        let csv = place
            .ok(0, &["suspense", "list", "--by", "reason", "--reason", reason, "--format", "csv"]);
        let mut rows = csv::Reader::from_reader(csv.as_bytes());
        rows.records().next().map(|row| row.unwrap()[4].to_owned())
    };
    let due = |place: &Place| {
        place.sql("SELECT currency, sum(amount) FROM ledger WHERE service_period = '2026-10' GROUP BY 1 ORDER BY 1")
    };
    place.run(&["-q", "reconcile", "--period", "2026-10"]);
    let (before, expected) = (due(&place), would(&place).unwrap());
    let retry = place
        .command(&["suspense", "retry", "--reason", reason, "--format", "csv"])
        .env("RUMLEDGER_SIGNATURE_POLICY", "accept")
        .output()
        .unwrap();
    let retried = counts(&String::from_utf8(retry.stdout).unwrap());
    assert!(retried["accepted"] > 0, "{retried:?}");
    place.run(&["-q", "reconcile", "--period", "2026-10"]);
    let amount = |line: &String| -> (String, i128) {
        let (currency, amount) = line.split_once(',').unwrap();
        (currency.to_owned(), amount.replace('.', "").parse().unwrap())
    };
    let before: std::collections::BTreeMap<String, i128> = before.iter().map(amount).collect();
    let grown: Vec<String> = due(&place)
        .iter()
        .map(amount)
        .map(|(currency, now)| (now - before.get(&currency).unwrap_or(&0), currency))
        .filter(|(grown, _)| *grown != 0)
        .map(|(grown, currency)| {
            let digits = schemas::quantity::minor_digits(&currency).unwrap();
            format!("{currency} {}", schemas::quantity::amount_text(grown, digits))
        })
        .collect();
    assert_eq!(grown.join(", "), expected);
    assert_eq!(would(&place), None, "none is left");
    // The act stands beside each of them.
    let acts = place.sql(
        "SELECT count(*) FROM journal WHERE acts[1]['act'] = 'retry' AND acts[1]['before'] = 'signature-unverifiable' AND acts[1]['by'] IS NOT NULL",
    );
    assert_eq!(acts, [retried["accepted"].to_string()]);
    place.ok(0, &["-q", "verify"]);
}

#[test]
fn what_is_written_off_stays_and_says_by_whom_and_why() {
    let place = place();
    let before = balance(&place);
    let all = ids(&place, &[]);
    let chosen = [all[0].clone(), all[3].clone()];
    assert_eq!(place.run(&["suspense", "write-off", &all[0]]).status, 2, "without a reason");
    assert_eq!(place.run(&["suspense", "write-off", &all[0], "--reason", " "]).status, 2);
    let unknown = place.run(&["suspense", "write-off", &all[0], "000000000000", "--reason", "x"]);
    assert!(
        unknown.status == 1 && unknown.stderr.contains("nothing was done"),
        "{}",
        unknown.stderr
    );
    let off = |why: &str| {
        place
            .command(&[
                "suspense",
                "write-off",
                &chosen[0],
                &chosen[1],
                "--reason",
                why,
                "--format",
                "csv",
            ])
            .env("RUMLEDGER_OPERATOR", "ada")
            .output()
            .unwrap()
    };
    assert_eq!(
        String::from_utf8(off("lab device, ticket 4711").stdout).unwrap(),
        "written_off\n2\n"
    );
    assert_eq!(String::from_utf8(off("again").stdout).unwrap(), "written_off\n0\n");
    assert_eq!(balance(&place), before, "nothing is deleted, and the balance holds");
    let mut listed = ids(&place, &["--written-off"]);
    listed.sort();
    let mut expected = chosen.to_vec();
    expected.sort();
    assert_eq!(listed, expected);
    assert_eq!(ids(&place, &[]).len(), all.len() - 2);
    let shown = place.ok(0, &["suspense", "show", &chosen[0]]);
    assert!(shown.contains("write-off by ada: lab device, ticket 4711"), "{shown}");
    // Not judged again with the others; by its id it is, and waits again.
    let retried = counts(&place.ok(3, &["suspense", "retry", "--format", "csv"]));
    assert_eq!(retried["judged again"], all.len() as u64 - 2);
    let retried =
        counts(&place.ok(3, &["suspense", "retry", "--id", &chosen[0], "--format", "csv"]));
    assert_eq!(retried["judged again"], 1);
    assert_eq!(ids(&place, &["--written-off"]), [chosen[1].clone()]);
    let shown = place.ok(0, &["suspense", "show", &chosen[0]]);
    assert!(shown.contains("write-off by ada") && shown.contains("retry by"), "{shown}");
    assert_eq!(balance(&place), before);
    // A close counts it.
    place.run(&["-q", "reconcile", "--period", "2026-10"]);
    let manifest = place.ok(0, &["close", "--period", "2026-10"]);
    assert!(manifest.contains("\"written off\":1"), "{manifest}");
    place.ok(0, &["-q", "verify"]);
}

fn report(value: u64) -> String {
    support::report("1", false, (1_782_856_800, 1_782_860_400), value).to_string()
}

/// Reports of one id wait. The one that came first is the one that counts, and all are counted as judged,
/// whatever they wait for then. Several may come in one second.
#[test]
fn what_came_first_is_judged_first() {
    for hours in [[1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1]] {
        let place = Place::new();
        let at = |args: &[&str], hour: u32, policy: &str| {
            let mut command = place.command(args);
            command.env("RUMLEDGER_NOW", format!("2026-11-10T{hour:02}:00:00Z"));
            support::ran(command.env("RUMLEDGER_SIGNATURE_POLICY", policy).output().unwrap())
        };
        for (value, hour) in (0..).zip(hours) {
            std::fs::write(place.path("r.json"), report(value)).unwrap();
            assert_eq!(at(&["ingest", "files", "r.json"], hour, "suspend").status, 3);
        }
        let retry = ["suspense", "retry", "--reason", "signature-unverifiable", "--format", "csv"];
        let retried = at(&retry, 12, "accept");
        assert_eq!(retried.status, 3, "{}", retried.stderr);
        assert_eq!(
            retried.stdout,
            "retried,reports\njudged again,6\naccepted,1\nduplicate,0\nstill suspended,5\n"
        );
        assert_eq!(
            place.sql(
                "SELECT disposition, reason, measurements[1]['value'] FROM journal ORDER BY 1, 2, 3"
            ),
            [
                "accepted,,0",
                "suspended,content-conflict,1",
                "suspended,content-conflict,2",
                "suspended,content-conflict,3",
                "suspended,content-conflict,4",
                "suspended,content-conflict,5"
            ]
        );
    }
}

/// An archive has an order of its own, and members of one name; through a pipe it can be read once.
#[test]
fn what_stood_first_in_a_bundle_is_judged_first() {
    let place = Place::new();
    for (folder, value) in [("z", 0), ("a", 1), ("m", 2)] {
        std::fs::create_dir(place.path(folder)).unwrap();
        std::fs::write(place.path(folder).join("dev.txt"), report(value)).unwrap();
    }
    let mut tar = Command::new("tar");
    let packed =
        tar.current_dir(place.path(".")).args(["czf", "-", "z/dev.txt", "a/dev.txt", "m/dev.txt"]);
    let packed = packed.output().unwrap().stdout;
    let mut taking = place.command(&["ingest", "files", "/dev/stdin", "--format", "json"]);
    taking.env("RUMLEDGER_SIGNATURE_POLICY", "suspend");
    let mut taking = taking.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    taking.stdin.take().unwrap().write_all(&packed).unwrap();
    let taken = support::ran(taking.wait_with_output().unwrap());
    assert_eq!(taken.status, 3, "{}", taken.stderr);
    assert!(taken.stdout.contains("\"signature-unverifiable\":3"), "{}", taken.stdout);

    let each: BTreeSet<String> = ids(&place, &[]).into_iter().collect();
    assert_eq!(each.len(), 3, "{each:?}");
    // One of them judged again in vain, they keep their order.
    let retry = |more: &[&str], policy: &str| {
        let mut command = place.command(&[&["suspense", "retry"], more].concat());
        support::ran(command.env("RUMLEDGER_SIGNATURE_POLICY", policy).output().unwrap())
    };
    assert_eq!(retry(&["--id", each.first().unwrap()], "suspend").status, 3);
    assert_eq!(retry(&[], "accept").status, 3);
    assert_eq!(
        place.sql("SELECT disposition, source, measurements[1]['value'] FROM journal ORDER BY 3"),
        [
            "accepted,/dev/stdin!dev.txt,0",
            "suspended,/dev/stdin!dev.txt#2,1",
            "suspended,/dev/stdin!dev.txt#3,2"
        ]
    );
}

/// A limit that is raised lets in what was over it.
#[test]
fn what_was_too_large_is_taken_up_under_a_larger_limit() {
    let place = Place::new();
    let under = |args: &[&str], limited: bool| {
        let mut command = place.command(args);
        if limited {
            command.env("RUMLEDGER_REPORT_BYTES_MAX", "300");
        }
        support::ran(command.output().unwrap())
    };
    std::fs::write(place.path("r.json"), report(1)).unwrap();
    // What is no report at all stays what it is.
    std::fs::write(place.path("s.json"), format!("[{}", "1,".repeat(300))).unwrap();
    assert_eq!(under(&["ingest", "files", "r.json", "s.json"], true).status, 3);
    let accepted = |limited: bool| {
        let ran = under(&["suspense", "retry", "--format", "csv"], limited);
        assert!([0, 3].contains(&ran.status), "{}", ran.stderr);
        counts(&ran.stdout)["accepted"]
    };
    let reasons = || place.sql("SELECT disposition, reason FROM journal ORDER BY source");
    let before = reasons();
    assert_eq!(before[0], "suspended,too-large");
    assert_eq!((accepted(true), reasons()), (0, before.clone()));
    assert_eq!(accepted(false), 1);
    assert_eq!(reasons(), ["accepted,", &*before[1]]);
}
