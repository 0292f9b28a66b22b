//! What happens to a bill after it was made: late reports, corrected prices, the vendor's invoice, the
//! general ledger.

use crate::support::Place;

const STATEMENT: [&str; 5] = ["statement", "--period", "2026-10", "--format", "csv"];

fn reconcile(place: &Place, period: &str) {
    let ran = place.run(&["-q", "reconcile", "--period", period]);
    assert!(matches!(ran.status, 0 | 3), "{}", ran.stderr);
}

/// October reconciled and closed before the last file of its reports came.
fn closed_too_early() -> Place {
    let place = Place::with_fleet(&[
        "--reports",
        "900",
        "--devices",
        "40",
        "--months",
        "1",
        "--per-file",
        "300",
    ]);
    std::fs::create_dir(place.path("late")).unwrap();
    let last = crate::support::files(&place.path("fleet/reports")).into_keys().next_back().unwrap();
    std::fs::rename(place.path("fleet/reports").join(&last), place.path("late").join(&last))
        .unwrap();
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    reconcile(&place, "2026-10");
    place.ok(0, &["close", "--period", "2026-10"]);
    place
}

#[test]
fn late_usage_becomes_adjustments_that_name_what_they_correct() {
    let place = closed_too_early();
    let closed = place.ok(0, &STATEMENT);
    place.ok(3, &["-q", "ingest", "files", "late"]);
    reconcile(&place, "2026-10");
    assert_eq!(place.ok(0, &STATEMENT), closed, "a closed period's lines never change");
    let adjustments = place.sql(
        "SELECT DISTINCT kind, service_period, posted_period, cause FROM ledger \
         WHERE posted_period = '2026-11'",
    );
    assert_eq!(adjustments, ["adjustment,2026-10,2026-11,usage"]);
    let json = place.ok(0, &["statement", "--period", "2026-11", "--format", "json"]);
    assert!(
        json.contains("\"cause\":\"usage\"") || json.contains("\"cause\": \"usage\""),
        "{json}"
    );

    // A price that lines stand on is not changed in silence.
    let prices = place.path("fleet/book/prices.csv");
    let before = std::fs::read_to_string(&prices).unwrap();
    let used = place.sql(
        "SELECT price_plan FROM ledger WHERE price_plan <> '' AND charge = 'usage' AND amount > 0 LIMIT 1",
    );
    let row =
        before.lines().find(|l| l.starts_with(&format!("{},", used[0])) && l.contains(",usage,"));
    let row = row.unwrap();
    let column = |name: &str| {
        before.lines().next().unwrap().split(',').position(|column| column == name).unwrap()
    };
    // An entitlement tag has a comma of its own, and is quoted: count from the end.
    let columns = before.lines().next().unwrap().split(',').count();
    let changed = |name: &str, to: &dyn Fn(&str) -> String| {
        let mut cells: Vec<String> = row.rsplit(',').map(str::to_owned).collect();
        let at = columns - 1 - column(name);
        cells[at] = to(&cells[at]);
        cells.reverse();
        cells.join(",")
    };
    let dearer = before.replace(row, &changed("unit_price", &|price| format!("9{price}")));
    std::fs::write(&prices, &dearer).unwrap();
    let refused = place.run(&["book", "import", "fleet/book"]);
    assert_eq!(refused.status, 1);
    assert!(
        refused.stderr.contains("posted lines") && refused.stderr.contains("--correct"),
        "{}",
        refused.stderr
    );
    let gone = before.lines().filter(|l| *l != row).collect::<Vec<_>>().join("\n");
    std::fs::write(&prices, gone).unwrap();
    let refused = place.run(&["book", "import", "fleet/book"]);
    assert!(refused.status == 1 && refused.stderr.contains("is missing"), "{}", refused.stderr);
    // A later price beside it is no change of what was charged.
    let later = changed("valid_from", &|_| "2026-12-01".to_owned());
    std::fs::write(&prices, format!("{}\n{later}\n", before.trim_end())).unwrap();
    place.ok(0, &["-q", "book", "import", "fleet/book"]);
    // With a reason it is, and the lines say so.
    std::fs::write(&prices, dearer).unwrap();
    assert_eq!(place.run(&["book", "import", "fleet/book", "--correct", " "]).status, 2);
    place.ok(0, &["-q", "book", "import", "fleet/book", "--correct", "contract 7 says so"]);
    reconcile(&place, "2026-10");
    let causes =
        place.sql("SELECT DISTINCT cause FROM ledger WHERE posted_period = '2026-11' ORDER BY 1");
    assert_eq!(causes, ["terms: contract 7 says so", "usage"]);
    place.ok(0, &["-q", "verify"]);

    // Every run comes out as it did, from what it read then.
    let runs = place.sql("SELECT DISTINCT ledger_version FROM ledger ORDER BY 1");
    assert_eq!(runs.len(), 3);
    let first = place.ok(0, &["-q", "reconcile", "--as-of", &runs[0], "--format", "csv"]);
    assert_eq!(first, closed, "byte for byte");
    for run in &runs {
        place.ok(0, &["-q", "reconcile", "--as-of", run]);
    }
    // Version 2 is the close.
    assert_eq!(place.run(&["reconcile", "--as-of", "2"]).status, 1);
}

#[test]
fn the_vendors_invoice_is_tied_out() {
    let place = closed_too_early();
    let lines = place.sql(
        "SELECT smart_account, virtual_account, subscription_id, entitlement, sum(quantity), sum(amount), currency \
         FROM ledger WHERE posted_period = '2026-10' GROUP BY 1, 2, 3, 4, 7 ORDER BY 1, 2, 3, 4, 7",
    );
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["Account", "Domain", "Sub", "SKU", "Qty", "Net", "Cur"]).unwrap();
    let parse = |line: &str| -> Vec<String> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
        reader.records().next().unwrap().unwrap().iter().map(str::to_owned).collect()
    };
    let rows: Vec<Vec<String>> = lines.iter().map(|l| parse(l)).collect();
    for row in &rows {
        csv.write_record(row).unwrap();
    }
    let invoice = String::from_utf8(csv.into_inner().unwrap()).unwrap();
    std::fs::write(place.path("invoice.csv"), &invoice).unwrap();
    let mapping = "[columns]\nsmart_account = \"Account\"\nvirtual_account = \"Domain\"\n\
        subscription_id = \"Sub\"\nentitlement = \"SKU\"\nquantity = \"Qty\"\namount = \"Net\"\ncurrency = \"Cur\"\n";
    std::fs::write(place.path("mapping.toml"), mapping).unwrap();
    let all = [
        "-q",
        "match",
        "--period",
        "2026-10",
        "--vendor",
        "invoice.csv",
        "--mapping",
        "mapping.toml",
        "--format",
        "csv",
    ];
    let equal = place.ok(0, &all);
    assert_eq!(equal.matches("\nequal,").count(), rows.len());
    for total in equal.lines().filter(|l| l.starts_with("total,")) {
        assert!(total.ends_with(",0.0000"), "{total}");
    }
    // One missing, one more, one with another quantity, one with another price.
    let mut changed: Vec<Vec<String>> = rows.clone();
    changed.retain(|row| row[5] != "0.0000");
    assert!(changed.len() > 4);
    changed[0][3] = "regid.nobody-has-this".to_owned();
    changed[1][5] = format!("9{}", changed[1][5]);
    changed[2][4] = format!("9{}", changed[2][4]);
    let mut text = "Account,Domain,Sub,SKU,Qty,Net,Cur\n".to_owned();
    for row in &changed {
        let cells: Vec<String> = row.iter().map(|cell| format!("\"{cell}\"")).collect();
        text += &(cells.join(",") + "\n");
    }
    std::fs::write(place.path("invoice.csv"), text).unwrap();
    let found = place.ok(3, &all);
    for (result, n) in [("theirs-only", 1), ("price-differs", 1), ("both-differ", 1)] {
        assert_eq!(found.lines().filter(|l| l.starts_with(result)).count(), n, "{result}\n{found}");
    }
    assert!(found.contains("ours-only"));
    // Hostile or mistaken files are refused by name, line and column.
    std::fs::write(
        place.path("invoice.csv"),
        "Account,Domain,Sub,SKU,Qty,Net,Cur\na,b,c,d,1e3,1,USD\n",
    )
    .unwrap();
    let refused = place.run(&all);
    assert!(
        refused.status == 1 && refused.stderr.contains("line 2, column Qty"),
        "{}",
        refused.stderr
    );
    std::fs::write(place.path("invoice.csv"), "A,B\n1,2\n").unwrap();
    assert!(place.run(&all).stderr.contains("no column 'Account'"));
    std::fs::write(place.path("mapping.toml"), "[columns]\nnonsense = 1\n").unwrap();
    assert_eq!(place.run(&all).status, 2);
}

#[test]
fn the_ledger_is_exported_in_double_entry() {
    let place = closed_too_early();
    place.ok(3, &["-q", "ingest", "files", "late"]);
    reconcile(&place, "2026-10");
    let export = ["-q", "export", "ledger", "--period", "2026-10", "--format", "csv"];
    let refused = place.run(&export);
    assert!(
        refused.status == 1 && refused.stderr.contains("gl_accounts.csv"),
        "{}",
        refused.stderr
    );
    let accounts = "pool,charge,debit_account,credit_account\n,,1200,4000\npostpaid,,1200,4100\npostpaid,commit,1200,4110\n";
    std::fs::write(place.path("fleet/book/gl_accounts.csv"), accounts).unwrap();
    place.ok(0, &["-q", "book", "import", "fleet/book"]);
    let rows = place.ok(0, &export);
    let lines = place.sql(
        "SELECT line_id, pool, charge, amount FROM ledger WHERE posted_period = '2026-10' ORDER BY 1",
    );
    assert_eq!(rows.lines().count() - 1, lines.len());
    for line in &lines {
        let cells: Vec<&str> = line.split(',').collect();
        let expected = match (cells[1], cells[2]) {
            ("postpaid", "commit") => "4110",
            ("postpaid", _) => "4100",
            _ => "4000",
        };
        let row = rows.lines().find(|row| row.starts_with(cells[0])).unwrap();
        assert!(row.contains(&format!(",1200,{expected},")), "{row}");
    }
    // What is taken back is booked the other way round, never as a negative amount.
    let back = place.ok(0, &["-q", "export", "ledger", "--period", "2026-11", "--format", "csv"]);
    let negative =
        place.sql("SELECT line_id FROM ledger WHERE posted_period = '2026-11' AND amount < 0");
    for id in negative {
        let row = back.lines().find(|row| row.starts_with(&id)).unwrap();
        assert!(row.contains(",1200,") && !row.contains(",-"), "{row}");
        assert!(
            row.contains("4000,1200") || row.contains("4100,1200") || row.contains("4110,1200"),
            "{row}"
        );
    }
    let twice = "pool,charge,debit_account,credit_account\n,,1,2\n,,3,4\n";
    std::fs::write(place.path("fleet/book/gl_accounts.csv"), twice).unwrap();
    assert!(
        place.run(&["book", "import", "fleet/book"]).stderr.contains("gl_accounts.csv, line 3")
    );
}

/// The page of the worked example says what happens.
#[test]
fn the_worked_example_is_true() {
    let place = Place::new();
    let page = include_str!("../../docs/disputes.md");
    let mut script = String::new();
    let mut expected: Vec<Vec<&str>> = Vec::new();
    for block in page.split("```console\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    script += &format!("{command}\necho '== end'\n");
                    expected.push(Vec::new());
                }
                None => expected.last_mut().unwrap().push(line),
            }
        }
    }
    assert!(expected.len() > 10);
    std::fs::create_dir(place.path("bin")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rumledger"), place.path("bin/rumledger"))
        .unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", place.path("bin").display());
    let output = std::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(place.path("."))
        .env("PATH", path)
        .env("RUMLEDGER_NOW", "2026-11-10T00:00:00Z")
        .output()
        .unwrap();
    let ran = crate::support::ran(output);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    let shown: Vec<&str> = ran.stdout.split("== end\n").collect();
    for (shown, expected) in shown.iter().zip(&expected) {
        for line in expected {
            assert!(shown.contains(line.trim_end()), "'{line}' is not in\n{shown}");
        }
    }
}
