//! From a line to the reports under it, and back: explained parts sum to the line, and nothing that is
//! stored changes unseen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lake::Lake;
use serde_json::Value;

use crate::support::{Place, ran};

const PERIODS: [&str; 2] = ["2026-09", "2026-10"];

/// A decimal of JSON text as an integer of so many places.
fn fixed(text: &Value, places: usize) -> i128 {
    let text = text.as_str().unwrap();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let sign = if whole.starts_with('-') { -1 } else { 1 };
    let digits = format!("{}{fraction:0<places$}", whole.trim_start_matches('-'));
    sign * digits.parse::<i128>().unwrap()
}

fn ids(place: &Place, lake: &str, period: &str) -> Vec<String> {
    let csv = place.ok(0, &["--lake", lake, "statement", "--period", period, "--format", "csv"]);
    csv.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

#[test]
fn the_parts_of_every_line_of_the_demo_come_to_it() {
    let place = Place::new();
    place.ok(0, &["demo"]);
    let lake = "rumledger-demo/lake";
    let (mut lines, mut reports) = (0, 0);
    for period in PERIODS {
        for id in ids(&place, lake, period) {
            let shown = place.ok(0, &["--lake", lake, "explain", &id, "--format", "json"]);
            let explained: Value = serde_json::from_str(&shown).unwrap();
            holds(&explained);
            lines += 1;
            reports += explained["reports"].as_array().unwrap().len();
        }
    }
    assert!(lines > 40 && reports > 1000, "{lines} lines, {reports} reports");
    let id = &ids(&place, lake, PERIODS[0])[2];
    let table = place.ok(0, &["--lake", lake, "explain", id]);
    for part in ["target", "tier", "measured", "consumed, purchased", "trust code", "sha256"] {
        assert!(table.contains(part), "{part} is not in\n{table}");
    }
    assert_eq!(place.run(&["--lake", lake, "explain", "nothing"]).status, 1);
}

/// Sums what is shown, by another way than the program's own.
fn holds(explained: &Value) {
    let (line, target) = (&explained["line"], &explained["target"]);
    let measured = &target["measured"];
    let parts = measured["parts"].as_array().unwrap();
    let sum: i128 = parts.iter().map(|p| fixed(&p["licenses"], 0) * fixed(&p["times"], 0)).sum();
    let divisor = fixed(&measured["divided_by"], 0);
    // The quantity is the rounded quotient: no further from it than half of the last place.
    let quantity = fixed(&target["quantity"], 6);
    assert!((2 * (sum * 1_000_000 - quantity * divisor)).abs() <= divisor, "{line}");
    let tiers = target["tiers"].as_array().unwrap();
    let exact: i128 = tiers.iter().map(|t| fixed(&t["amount_exact"], 18)).sum();
    let products: i128 =
        tiers.iter().map(|t| fixed(&t["units"], 6) * fixed(&t["unit_price"], 12)).sum();
    assert_eq!(exact, products, "{line}");
    let amount = fixed(&target["amount"], 18);
    let unit = 10_i128.pow(
        18 - u32::try_from(
            line["amount"].as_str().unwrap().split_once('.').map_or(0, |(_, f)| f.len()),
        )
        .unwrap(),
    );
    assert!((2 * (exact - amount)).abs() <= unit, "{line}");
    let before = &explained["posted_before"];
    assert_eq!(fixed(&line["amount"], 18), amount - fixed(&before["amount"], 18));
    assert_eq!(fixed(&line["quantity"], 6), quantity - fixed(&before["quantity"], 6));
    // What the reports say is what was consumed, at the start of each stretch.
    let reports = explained["reports"].as_array().unwrap();
    for piece in target["pieces"].as_array().unwrap() {
        let start = piece["start"].as_str().unwrap();
        let counts = reports.iter().flat_map(|r| r["counts"].as_array().unwrap());
        let consumed: i128 = counts
            // RFC 3339 in UTC: the order of the texts is the order of time.
            .filter(|c| c["start"].as_str().unwrap() <= start && start < c["end"].as_str().unwrap())
            .map(|c| fixed(&c["licenses"], 0))
            .sum();
        assert_eq!(consumed, fixed(&piece["consumed"], 0), "{line} at {start}");
    }
    for report in reports {
        assert_eq!(report["signature"] == "verified", report["trust_code"].is_object(), "{report}");
        assert!(report["raw"].as_str().unwrap().contains("payload"));
    }
}

/// A lake of a few reports with a closed period.
fn closed() -> Place {
    let place = Place::with_fleet(&["--reports", "60", "--devices", "6", "--months", "1"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place.run(&["-q", "reconcile", "--period", "2026-10"]);
    place.ok(0, &["close", "--period", "2026-10"]);
    place.ok(0, &["-q", "verify"]);
    place
}

fn data_files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(data_files(&path));
        } else if path.extension().is_some_and(|e| e == "parquet") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Numbers that look like chance and are the same in every run (Knuth, MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }
}

#[test]
fn every_changed_bit_of_ledger_journal_and_manifest_is_found() {
    const FLIPS: usize = 10_000;
    let place = closed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let lake = Lake::open(place.path("lake").to_str().unwrap()).unwrap();
    // The manifest is a row of the ledger, in the file of the close.
    let mut places: Vec<(&str, PathBuf, Vec<u8>)> = Vec::new();
    for table in ["ledger", "journal"] {
        for file in data_files(&place.path("lake").join(table)) {
            let bytes = std::fs::read(&file).unwrap();
            places.push((table, file, bytes));
        }
    }
    assert!(places.len() >= 4, "lines, close, and two or more dispositions");
    let mut numbers = Numbers(20_261_125);
    for flip in 0..FLIPS {
        let (name, file, bytes) = &places[numbers.below(places.len())];
        let (at, bit) = (numbers.below(bytes.len()), numbers.below(8));
        let mut changed = bytes.clone();
        changed[at] ^= 1 << bit;
        std::fs::write(file, &changed).unwrap();
        let checked = runtime.block_on(async {
            lake.table(name).await.unwrap().unwrap().check_files(&BTreeSet::new()).await.unwrap()
        });
        let damaged = checked.damaged.unwrap_or_else(|| {
            panic!("bit {bit} of byte {at} of {} changed unseen", file.display())
        });
        assert!(file.ends_with(&damaged.0), "{} for {}", damaged.0, file.display());
        // Now and then by the command itself, from outside.
        if flip % 1000 == 0 {
            let ran = place.run(&["-q", "verify", "--format", "csv"]);
            assert_eq!(ran.status, 3, "{}{}", ran.stdout, ran.stderr);
            assert!(ran.stdout.contains(&damaged.0), "{}", ran.stdout);
        }
        std::fs::write(file, bytes).unwrap();
    }
    place.ok(0, &["-q", "verify"]);
}

/// Statistics decide which files are passed over: wrong ones hide rows.
#[test]
fn changed_statistics_are_found() {
    let place = closed();
    let log = place.path("lake/ledger/_delta_log/00000000000000000001.json");
    let text = std::fs::read_to_string(&log).unwrap();
    for (was, is, says) in [
        (r#"\"posted_period\":\"2026-10\""#, r#"\"posted_period\":\"2026-07\""#, "posted_period"),
        (r#"\"numRecords\":"#, r#"\"numRecords\":9"#, "rows"),
        (r#"\"service_period\":0"#, r#"\"service_period\":1"#, "nulls"),
    ] {
        assert!(text.contains(was), "{text}");
        std::fs::write(&log, text.replace(was, is)).unwrap();
        let ran = place.run(&["-q", "verify", "--format", "csv"]);
        assert_eq!(ran.status, 3, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(says) && ran.stdout.contains("ledger/"), "{}", ran.stdout);
    }
    std::fs::write(&log, text).unwrap();
    place.ok(0, &["-q", "verify"]);
    let absent = place.run(&["-q", "--lake", "nowhere", "verify"]);
    assert!(absent.status == 1 && absent.stderr.contains("no lake"), "{}", absent.stderr);
}

/// Somebody who can write to the lake, and who keeps the digests right, is found all the same.
#[test]
fn a_forged_line_is_found_by_what_it_stands_on() {
    let place = closed();
    let before = place.ok(0, &["statement", "--period", "2026-10", "--format", "csv"]);
    // The commit that posted lines: its file is written anew with another amount, and its digest mended.
    let log = place.path("lake/ledger/_delta_log/00000000000000000001.json");
    let text = std::fs::read_to_string(&log).unwrap();
    let add: Value = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|action| action.get("add").is_some())
        .unwrap();
    let path = add["add"]["path"].as_str().unwrap();
    let file = place.path("lake/ledger").join(path.replace("%3D", "="));
    let (old_size, old_digest) = {
        let bytes = std::fs::read(&file).unwrap();
        (bytes.len(), schemas::merkle::digest(&bytes).to_string())
    };
    forge_amount(&file);
    let bytes = std::fs::read(&file).unwrap();
    let digest = schemas::merkle::digest(&bytes).to_string();
    let mended = text
        .replace(&old_digest, &digest)
        .replace(&format!("\"size\":{old_size}"), &format!("\"size\":{}", bytes.len()));
    assert_ne!(mended, text);
    std::fs::write(&log, mended).unwrap();
    assert_ne!(place.ok(0, &["statement", "--period", "2026-10", "--format", "csv"]), before);
    let ran = place.run(&["-q", "verify", "--format", "csv"]);
    assert_eq!(ran.status, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("chain"), "{}", ran.stdout);
}

/// Adds one cent to the first line of a file of the ledger.
fn forge_amount(file: &Path) {
    use arrow::array::{Array as _, AsArray as _, Decimal128Array, RecordBatch};
    use arrow::datatypes::Decimal128Type;
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap());
    let batch: RecordBatch = reader.unwrap().build().unwrap().next().unwrap().unwrap();
    let at = batch.schema().index_of("amount").unwrap();
    let amounts = batch.column(at).as_primitive::<Decimal128Type>();
    let changed: Decimal128Array = amounts
        .iter()
        .enumerate()
        .map(|(i, amount)| amount.map(|a| if i == 0 { a + 100 } else { a }))
        .collect();
    let mut columns = batch.columns().to_vec();
    columns[at] = std::sync::Arc::new(changed.with_data_type(amounts.data_type().clone()));
    let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let out = std::fs::File::create(file).unwrap();
    let mut writer = ArrowWriter::try_new(out, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn killed_anywhere_a_run_or_a_close_leaves_all_or_nothing() {
    for point in ["before-data-files", "after-data-files", "after-commit"] {
        let place = Place::with_fleet(&["--reports", "200", "--devices", "10", "--months", "1"]);
        place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
        let planned = ["-q", "reconcile", "--period", "2026-10", "--dry-run", "--format", "csv"];
        let planned = place.run(&planned).stdout;
        let statement = ["statement", "--period", "2026-10", "--format", "csv"];
        for command in ["reconcile", "close"] {
            let killed = place
                .command(&["-q", command, "--period", "2026-10"])
                .env("RUMLEDGER_FAILPOINT", point)
                .output()
                .unwrap();
            assert!(
                !killed.status.success() && killed.status.code().is_none(),
                "{point} {command}"
            );
            let durable = point == "after-commit";
            if command == "reconcile" {
                let held = place.ok(0, &statement);
                assert_eq!(held.lines().count() > 1, durable, "{point}");
                assert!(!durable || held == planned, "{point}");
                // Run again, it is whole.
                place.run(&["-q", "reconcile", "--period", "2026-10"]);
            } else {
                let closes = place.sql("SELECT period FROM closes");
                assert_eq!(closes.len(), usize::from(durable), "{point}");
                place.ok(0, &["close", "--period", "2026-10"]);
            }
            assert_eq!(place.ok(0, &statement), planned, "{point} {command}");
            place.ok(0, &["-q", "verify"]);
        }
    }
}

#[test]
fn sixteen_runs_at_once_post_one_set_of_lines() {
    let place = Place::with_fleet(&["--reports", "400", "--devices", "20", "--months", "1"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    let planned = ["-q", "reconcile", "--period", "2026-10", "--dry-run", "--format", "csv"];
    let planned = place.run(&planned).stdout;
    let running: Vec<_> = (0..16)
        .map(|_| {
            place
                .command(&["-q", "reconcile", "--period", "2026-10", "--format", "csv"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut posted = 0;
    for child in running {
        let ran = crate::support::ran(child.wait_with_output().unwrap());
        assert!(matches!(ran.status, 0 | 3), "{}", ran.stderr);
        match ran.stdout.lines().count() {
            1 => {}
            _ => {
                assert_eq!(ran.stdout, planned);
                posted += 1;
            }
        }
    }
    assert_eq!(posted, 1, "one run posts, fifteen find nothing to post");
    assert_eq!(place.ok(0, &["statement", "--period", "2026-10", "--format", "csv"]), planned);
    place.ok(0, &["-q", "verify"]);
}

#[test]
fn in_whatever_order_reports_come_the_statement_is_the_same_to_the_byte() {
    let args = [
        "--reports",
        "600",
        "--devices",
        "30",
        "--broken",
        "0",
        "--duplicates",
        "25",
        "--per-file",
        "40",
    ];
    let place = Place::with_fleet(&args);
    let names: Vec<String> =
        crate::support::files(&place.path("fleet/reports")).into_keys().collect();
    let mut statements = Vec::new();
    for (lake, step) in [("a", 1), ("b", 7), ("c", names.len() - 1)] {
        place.ok(0, &["--lake", lake, "book", "import", "fleet/book"]);
        // One delivery a file, in an order of its own.
        for i in 0..names.len() {
            let file = format!("fleet/reports/{}", names[(i * step) % names.len()]);
            assert!(matches!(
                place.run(&["-q", "--lake", lake, "ingest", "files", &file]).status,
                0 | 3
            ));
        }
        let mut statement = String::new();
        for period in PERIODS {
            place.run(&["-q", "--lake", lake, "reconcile", "--period", period]);
            statement +=
                &place.ok(0, &["--lake", lake, "statement", "--period", period, "--format", "csv"]);
        }
        statements.push(statement);
    }
    assert!(statements[0].lines().count() > 20);
    assert_eq!(statements[0], statements[1]);
    assert_eq!(statements[0], statements[2]);
}

/// Signatures that are checked eight at a time, by arithmetic of our own, come to what aws-lc says.
#[test]
fn signatures_checked_together_are_those_checked_one_by_one() {
    let place = Place::with_fleet(&[
        "--reports",
        "1200",
        "--devices",
        "60",
        "--months",
        "1",
        "--broken",
        "15",
        "--algorithm",
        "mixed",
    ]);
    let journal = |lake: &str, together: &str| {
        let run = |status: i32, args: &[&str]| {
            let mut all = vec!["-q", "--lake", lake];
            all.extend(args);
            let mut command = place.command(&all);
            let ran = ran(command.env("RUMLEDGER_VECTOR_SIGNATURES", together).output().unwrap());
            assert_eq!(ran.status, status, "{args:?}\n{}{}", ran.stdout, ran.stderr);
            ran.stdout
        };
        run(0, &["book", "import", "fleet/book"]);
        run(3, &["ingest", "files", "fleet/reports"]);
        run(
            0,
            &[
                "--format",
                "csv",
                "sql",
                "SELECT disposition, reason, signature, udi_pid, udi_serial, report_id, source, \"offset\" \
                 FROM journal ORDER BY source, \"offset\"",
            ],
        )
    };
    let (together, one_by_one) = (journal("together", "true"), journal("one-by-one", "false"));
    assert!(
        together.contains(",verified,") && together.contains("signature-invalid"),
        "{together}"
    );
    assert_eq!(together, one_by_one);
}

/// What was accepted by a trust code that the book has no more is as good as it was.
#[test]
fn reports_are_checked_by_trust_codes_of_earlier_books() {
    let place = Place::with_fleet(&["--reports", "400", "--devices", "40"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place.ok(0, &["-q", "verify"]);
    let path = place.path("fleet/book/trust_codes.csv");
    let codes = std::fs::read_to_string(&path).unwrap();
    let (head, rows) = codes.split_once('\n').unwrap();
    let half: Vec<&str> = rows.lines().step_by(2).collect();
    for kept in [half.join("\n"), String::new()] {
        std::fs::write(&path, format!("{head}\n{kept}")).unwrap();
        place.ok(0, &["-q", "book", "import", "fleet/book"]);
        let verified = place.ok(0, &["-q", "verify"]);
        assert!(!verified.contains(" 0 signatures verified"), "{verified}");
    }
}

/// Rows that came into the journal twice, by whatever way, are found, though each of them is as it was written.
#[test]
fn a_report_that_is_accepted_twice_is_found() {
    let place = Place::with_fleet(&["--reports", "200", "--devices", "20"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place.ok(0, &["-q", "verify"]);
    let log = place.path("lake/journal/_delta_log");
    let mut commits: Vec<_> = std::fs::read_dir(&log)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    commits.sort();
    let (commit, add) = commits
        .iter()
        .find_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let add = text.lines().find(|l| l.contains("\"add\"") && l.contains("=accepted/"))?;
            Some((path.clone(), add.to_owned()))
        })
        .unwrap();
    assert_eq!(Some(&commit), commits.last(), "one commit of rows");
    let action: serde_json::Value = serde_json::from_str(&add).unwrap();
    let path = action["add"]["path"].as_str().unwrap();
    let copy = path.replace("/part-", "/part-copy-");
    let table = place.path("lake/journal");
    std::fs::copy(table.join(path), table.join(&copy)).unwrap();
    let next = format!("{:020}.json", commits.len());
    std::fs::write(log.join(next), add.replace(path, &copy)).unwrap();
    let ran = place.run(&["-q", "verify", "--format", "csv"]);
    assert_eq!(ran.status, 3, "{}{}", ran.stdout, ran.stderr);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("accepted 2 times"), "{}", ran.stdout);
}
