//! A run after small changes computes few accounts anew, and comes to what a run in full comes to.

use serde_json::json;

use crate::support::Place;

const RUN: [&str; 5] = ["reconcile", "--period", "2026-10", "--format", "csv"];

/// One more report of a device, as an exported file has it: usage of one item on the 15th of October.
fn late(
    place: &Place,
    number: u64,
    (pid, serial): (&str, &str),
    mates: &[(&str, &str)],
    more: &[&str],
) {
    let sudi = |(pid, serial): (&str, &str)| json!({"udi_pid": pid, "udi_serial_number": serial});
    let ha: Vec<_> = mates.iter().map(|m| json!({"role": "Member", "sudi": sudi(*m)})).collect();
    let report = json!({
        "payload": {
            "version": "2.0",
            "asset_identification": {
                "report_id": number,
                "asset": {"name": "regid.late"},
                "instance": {"sudi": sudi((pid, serial))},
            },
            "meta": {
                "entitlement_tag": "regid.2017-03.com.cisco.NETWORK_PLUS,1.0_5d0e8b36-7a2c-4e59-b6f4-1c8a9d3e7f03",
                "ha_udi": ha,
            },
            "measurements": [{
                "log_time": 1_792_065_600, "metric_name": "ENTITLEMENT", "sample_interval": 3600,
                "num_samples": 1, "start_time": 1_792_022_400, "end_time": 1_792_065_600,
                "value": {"type": "COUNT", "value": (70 + number % 100).to_string()},
            }],
        },
        "signature": {"signing_type": "builtin", "key": "", "value": "AAAA"},
    });
    std::fs::write(place.path("late.json"), report.to_string()).unwrap();
    place.ok(0, &[&["-q", "ingest", "files", "late.json"], more].concat());
}

/// Runs in part and in full; gives the lines, which are posted, and how many accounts were computed.
fn both(place: &Place) -> (usize, Option<usize>) {
    let dry = [&RUN[..], &["--dry-run"]].concat();
    let memo = place.path("lake/_cache/reconcile");
    let part = place.run(&[&["-v"], &dry[..]].concat());
    std::fs::rename(&memo, place.path("memo")).unwrap();
    let full = place.run(&dry);
    assert_eq!(part.stdout, full.stdout);
    assert_eq!(part.status, full.status);
    // Beside the log, both say how many lines and exceptions there are.
    assert!(part.stderr.ends_with(&full.stderr), "{} {}", part.stderr, full.stderr);
    // A run that finds nothing to post leaves a memo, and be it a dry one.
    let _ = std::fs::remove_dir_all(&memo);
    std::fs::rename(place.path("memo"), &memo).unwrap();
    assert_eq!(place.run(&RUN).stdout, full.stdout);
    // What the next run will go by, exceptions among it, is what a run in full leaves.
    let left = std::fs::read_to_string(memo.join("2026-10.json")).unwrap();
    std::fs::rename(&memo, place.path("memo")).unwrap();
    assert_eq!(place.run(&RUN).stdout.lines().count(), 1);
    assert_eq!(std::fs::read_to_string(memo.join("2026-10.json")).unwrap(), left);
    std::fs::remove_dir_all(&memo).unwrap();
    std::fs::rename(place.path("memo"), &memo).unwrap();
    let computed = part.stderr.split("changed=").nth(1).map(|rest| {
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    });
    (full.stdout.lines().count() - 1, computed)
}

/// Cells of a file of the book, changed where a row has a word.
fn edit(place: &Place, file: &str, word: &str, from: &str, to: &str) {
    let path = place.path(&format!("fleet/book/{file}.csv"));
    let text = std::fs::read_to_string(&path).unwrap();
    let edited: Vec<String> = text
        .lines()
        .map(|line| if line.contains(word) { line.replacen(from, to, 1) } else { line.to_owned() })
        .collect();
    let edited = edited.join("\n") + "\n";
    assert_ne!(edited, text, "{file}: {word} {from}");
    std::fs::write(path, edited).unwrap();
    place.ok(0, &["-q", "book", "import", "fleet/book", "--correct", "a test"]);
}

#[test]
fn what_changed_is_computed_anew_and_nothing_else() {
    let place = Place::with_fleet(&["--reports", "1200", "--devices", "60"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place.ok(3, &RUN);
    let devices = place.sql(
        "SELECT smart_account, virtual_account, udi_pid, udi_serial FROM book_devices ORDER BY 1, 2, 4",
    );
    let rows: Vec<Vec<&str>> = devices.iter().map(|row| row.split(',').collect()).collect();
    let of = |account: &str| {
        let row = rows.iter().find(|row| row[0] == account).unwrap();
        (row[2], row[3])
    };
    let (hafen, kea, sakura) = (of("hafen.example"), of("kea.example"), of("sakura.example"));

    late(&place, 1_000_001, hafen, &[], &[]);
    assert_eq!(both(&place), (1, Some(1)), "one account used more");
    // Of somebody unknown: an exception, and nobody's line.
    late(&place, 1_000_002, ("C9300", "NOBODY"), &[], &[]);
    assert_eq!(both(&place), (0, Some(0)));
    // A collector names its account in headers: what it used from then on is that account's.
    let named = ["--account", "kea.example/South"];
    late(&place, 1_000_007, ("C9300", "NOBODY"), &[], &named);
    assert_eq!(both(&place), (1, Some(1)));
    // Two devices of two accounts become one group: what one claims is not added to what the other does.
    late(&place, 1_000_103, kea, &[kea, sakura], &[]);
    let (lines, computed) = both(&place);
    assert!(lines > 0 && computed == Some(2), "{lines} {computed:?}");

    edit(&place, "purchases", "PO-1-1", ",2026", "0,2026");
    let (lines, computed) = both(&place);
    assert!(lines > 0 && computed == Some(1), "{lines} {computed:?}");
    // A device moves in mid-month.
    let row = format!("{},{},{}", hafen.0, hafen.1, "hafen.example,Edge");
    edit(&place, "devices", &row, "hafen.example,Edge", "sakura.example,Tokyo");
    let (lines, computed) = both(&place);
    assert!(lines > 0 && computed == Some(2), "{lines} {computed:?}");
    edit(&place, "accounts", "kea.example", "Pacific/Auckland", "Asia/Tokyo");
    let (lines, _) = both(&place);
    assert!(lines > 0);
    // A catalogue concerns everybody: the run is made in full, and does not say of how many accounts.
    edit(&place, "catalog", "NETWORK_PLUS", ",false,", ",true,");
    assert_eq!(both(&place).1, None);

    // Another run posts for one account.
    late(&place, 1_000_004, of("northwind.example"), &[], &[]);
    let dry = place.run(&[&RUN[..], &["--dry-run"]].concat());
    let account = [&RUN[..], &["--account", "northwind.example/Core"]].concat();
    assert_eq!(place.run(&account).stdout, dry.stdout);
    assert_eq!(both(&place).0, 0);
    // Files are merged; nothing is new.
    place.ok(0, &["-q", "lake", "optimize"]);
    assert_eq!(both(&place), (0, Some(0)));
    place.ok(0, &["-q", "close", "--period", "2026-10"]);
    late(&place, 1_000_005, hafen, &[], &[]);
    assert_eq!(both(&place), (1, Some(1)));
}
