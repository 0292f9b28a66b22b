//! A book that is corrected after lines were posted: what is due moves, and every line is found and explained.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use lake::{Import, Lake, save_book};
use schemas::book::{TABLES, parse_csv};
use serde_json::Value;

use crate::support::{self, Place};

const RECONCILE: [&str; 4] = ["-q", "reconcile", "--format", "csv"];

/// 2026-06-01T00:00:00Z.
const JUNE: i64 = 1_780_272_000;
const HOUR: i64 = 3_600;

/// A report of 8.
fn report(serial: &str, utility: bool, span: (i64, i64)) -> Value {
    support::report(serial, utility, span, 8)
}

/// Takes in a report for an account that the collector names: no device is in the book.
fn take(place: &Place, account: &str, report: &Value) {
    std::fs::write(place.path("report.json"), report.to_string()).unwrap();
    let account = ["--account", account, "--signature-policy", "accept"];
    place.ok(0, &[&["-q", "ingest", "files", "report.json"], &account[..]].concat());
}

/// Imports a book in which T costs 1 (p) or 2 (q) for a licence-hour, and a commitment 1.
fn import(place: &Place, rows: &[(&str, &str)]) {
    let book = place.path("book");
    std::fs::create_dir_all(&book).unwrap();
    let fixed = [
        ("catalog", "T,T,unenforced,perpetual,true,\n"),
        (
            "prices",
            "p,T,usage,2000-01-01,license-hours,flat,,1,,USD
p,T,commit,2000-01-01,license-hours,flat,,1,,USD
q,T,usage,2000-01-01,license-hours,flat,,2,,USD
",
        ),
    ];
    for (name, text) in fixed.iter().chain(rows) {
        let header = TABLES.iter().find(|table| table.name == *name).unwrap().columns.join(",");
        std::fs::write(book.join(format!("{name}.csv")), format!("{header}\n{text}")).unwrap();
    }
    place.ok(0, &["-q", "book", "import", "book"]);
}

/// Posts a month, and gives charge, kind, quantity and amount of each line.
fn post(place: &Place, period: &str) -> Vec<String> {
    place.ok(0, &[&RECONCILE[..], &["--period", period]].concat());
    let newest = "SELECT charge, kind, quantity, amount FROM ledger WHERE ledger_version = \
                  (SELECT max(ledger_version) FROM ledger) ORDER BY charge DESC, segment_start";
    place.sql(newest)
}

/// Every line has an id of its own, by which it is explained.
fn all_are_explained(place: &Place) {
    let lines = place.sql("SELECT line_id, service_period FROM ledger");
    let ids: BTreeSet<&str> = lines.iter().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(ids.len(), lines.len(), "{lines:?}");
    for line in &lines {
        let (id, period) = line.split_once(',').unwrap();
        let explained: Value =
            serde_json::from_str(&place.ok(0, &["explain", id, "--format", "json"])).unwrap();
        assert_eq!(explained["line"]["service_period"], period, "{explained}");
    }
    place.ok(0, &["-q", "verify"]);
}

/// June has 720 hours: 8 are used, 2 are committed to.
#[test]
fn a_commitment_that_was_none_is_explained_although_something_is_used() {
    let place = Place::new();
    let accounts = ("accounts", "sa,v,C,USD,UTC\n");
    import(&place, &[accounts, ("subscriptions", "S1,sa,v,T,COMMITTED,2,p,2000-01-01,\n")]);
    take(&place, "sa/v", &report("1", true, (JUNE, JUNE + 720 * HOUR)));
    assert_eq!(
        post(&place, "2026-06"),
        ["usage,charge,4320.000000,4320.0000", "commit,charge,1440.000000,1440.0000"]
    );
    import(&place, &[accounts, ("subscriptions", "S1,sa,v,T,UNCOMMITTED,,p,2000-01-01,\n")]);
    assert_eq!(
        post(&place, "2026-06"),
        ["usage,adjustment,1440.000000,1440.0000", "commit,adjustment,-1440.000000,-1440.0000"]
    );
    all_are_explained(&place);
}

/// The plan changes on 30 June at 20:00Z, which is June in UTC and July in Tokyo. 8 are used until 15 July, 1 is
/// purchased: 4 hours of the new plan in June, 340 in July.
#[test]
fn a_segment_that_moves_to_another_month_gets_a_line_of_another_id() {
    let place = Place::new();
    let purchases =
        "P1,sa,v,T,1,2000-01-01,2026-06-30T20:00:00Z,p\nP2,sa,v,T,1,2026-06-30T20:00:00Z,,q\n";
    import(&place, &[("accounts", "sa,v,C,USD,UTC\n"), ("purchases", purchases)]);
    take(&place, "sa/v", &report("1", false, (JUNE, JUNE + 44 * 24 * HOUR)));
    // 716 × 7; 4 × 7 at 2.
    assert_eq!(
        post(&place, "2026-06"),
        ["usage,charge,5012.000000,5012.0000", "usage,charge,28.000000,56.0000"]
    );
    // 336 × 7 at 2.
    assert_eq!(post(&place, "2026-07"), ["usage,charge,2352.000000,4704.0000"]);
    import(&place, &[("accounts", "sa,v,C,USD,Asia/Tokyo\n"), ("purchases", purchases)]);
    // June ends, and starts, nine hours earlier: of its first nine nothing is known, and the last five are July's.
    assert_eq!(
        post(&place, "2026-06"),
        [
            "usage,charge,4977.000000,4977.0000",
            "usage,adjustment,-5012.000000,-5012.0000",
            "usage,adjustment,-28.000000,-56.0000"
        ]
    );
    assert_eq!(
        post(&place, "2026-07"),
        [
            "usage,charge,35.000000,35.0000",
            "usage,charge,2380.000000,4760.0000",
            "usage,adjustment,-2352.000000,-4704.0000"
        ]
    );
    all_are_explained(&place);
}

/// A device that only headers name uses 8 in the first four hours of July in UTC, which are June's in New York.
#[test]
fn hours_that_a_zone_adds_to_a_month_are_read() {
    let place = Place::new();
    let purchases = ("purchases", "P1,sa,v,T,0,2000-01-01,,p\nP2,sa,w,T,0,2000-01-01,,p\n");
    let others = "sa,w,C,USD,UTC\nsa,x,C,USD,UTC\nsa,y,C,USD,UTC\n";
    import(&place, &[("accounts", &format!("sa,v,C,USD,UTC\n{others}")), purchases]);
    let july = JUNE + 720 * HOUR;
    take(&place, "sa/v", &report("1", false, (july, july + 4 * HOUR)));
    take(&place, "sa/w", &report("2", false, (JUNE, JUNE + HOUR)));
    assert_eq!(post(&place, "2026-06"), ["usage,charge,8.000000,8.0000"]);
    import(&place, &[("accounts", &format!("sa,v,C,USD,America/New_York\n{others}")), purchases]);
    assert_eq!(post(&place, "2026-06"), ["usage,charge,32.000000,32.0000"]);
    all_are_explained(&place);
}

/// Saves the book in `book/`, and does nothing more.
fn save_as_an_import_that_broke_off(place: &Place) {
    let mut errors = Vec::new();
    let cells = TABLES
        .iter()
        .filter_map(|table| {
            let csv = std::fs::read(place.path(&format!("book/{}.csv", table.name))).ok()?;
            Some((table.name.to_owned(), parse_csv(table, &csv, &mut errors)))
        })
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let lake = Lake::open(place.path("lake").to_str().unwrap()).unwrap();
    let import = Import { at: "2026-11-10T00:00:00Z".to_owned(), ..Import::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(save_book(&lake, &cells, &import)).unwrap();
}

/// An import found no line at the price that it changes; one was posted then, and it broke off when its book was saved.
/// The next run takes it back. By that book nothing would be due in June, by the one before it a second device's 8 × 720.
#[test]
fn a_dry_run_after_an_import_that_broke_off_shows_what_a_run_posts() {
    let place = Place::new();
    let book = |may: u32, purchased: u32| {
        let prices = format!(
            "p,T,usage,2000-01-01,license-hours,flat,,{may},,USD\np,T,usage,2026-06-01,license-hours,flat,,1,,USD\n"
        );
        (prices, format!("P1,sa,v,T,{purchased},2000-01-01,,p\n"))
    };
    let (prices, purchases) = book(1, 0);
    let accounts = ("accounts", "sa,v,C,USD,UTC\n");
    import(&place, &[accounts, ("prices", &prices), ("purchases", &purchases)]);
    let may = JUNE - 744 * HOUR;
    take(&place, "sa/v", &report("1", false, (may, JUNE + 720 * HOUR)));
    assert_eq!(post(&place, "2026-05"), ["usage,charge,5952.000000,5952.0000"]);
    assert_eq!(post(&place, "2026-06"), ["usage,charge,5760.000000,5760.0000"]);
    take(&place, "sa/v", &report("2", false, (JUNE, JUNE + 720 * HOUR)));

    let (prices, purchases) = book(3, 8);
    for (name, rows) in [("prices", prices), ("purchases", purchases)] {
        let path = place.path(&format!("book/{name}.csv"));
        let header = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
        std::fs::write(path, format!("{header}\n{rows}")).unwrap();
    }
    save_as_an_import_that_broke_off(&place);
    assert_eq!(place.sql("SELECT quantity FROM book_purchases"), ["8"], "saved");

    let june = [&RECONCILE[..], &["--period", "2026-06"]].concat();
    let planned = place.ok(0, &[&june[..], &["--dry-run"]].concat());
    assert_eq!(planned.lines().count(), 2, "{planned}");
    assert_eq!(place.ok(0, &june), planned);
    assert_eq!(place.sql("SELECT quantity FROM book_purchases"), ["0"], "taken back");
    let posted = "SELECT kind, quantity, amount FROM ledger WHERE kind = 'adjustment'";
    assert_eq!(place.sql(posted), ["adjustment,5760.000000,5760.0000"]);
    all_are_explained(&place);
}

/// June has 720 hours, in which 8 are used: by whichever price is in force, and never by the other.
#[test]
fn a_price_changes_before_a_run_or_not_at_all() {
    for round in 0..8 {
        let place = Place::new();
        let rows = [
            ("accounts", "sa,v,C,USD,UTC\n"),
            ("subscriptions", "S1,sa,v,T,UNCOMMITTED,,p,2000-01-01,\n"),
        ];
        import(&place, &rows);
        take(&place, "sa/v", &report("1", true, (JUNE, JUNE + 720 * HOUR)));
        if round % 2 == 1 {
            // So that there is a ledger.
            place.ok(0, &["-q", "reconcile", "--period", "2026-05"]);
            place.ok(0, &["-q", "close", "--period", "2026-05"]);
        }
        let prices = place.path("book/prices.csv");
        let dearer = std::fs::read_to_string(&prices).unwrap().replace(",1,,USD", ",3,,USD");
        std::fs::write(&prices, dearer).unwrap();
        let start = |args: &[&str]| {
            let mut command = place.command(args);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let posting = start(&["-q", "reconcile", "--period", "2026-06"]);
        std::thread::sleep(Duration::from_millis(12 * round));
        let importing = start(&["-q", "book", "import", "book"]);
        let posted = support::ran(posting.wait_with_output().unwrap());
        let imported = support::ran(importing.wait_with_output().unwrap());
        assert_eq!(posted.status, 0, "{}", posted.stderr);
        let price = match imported.status {
            0 => 3,
            _ => {
                assert!(
                    imported.stderr.contains("stands under 1 posted line"),
                    "{}",
                    imported.stderr
                );
                1
            }
        };
        let amount = format!("charge,5760.000000,{}.0000", 5760 * price);
        assert_eq!(place.sql("SELECT kind, quantity, amount FROM ledger"), [amount]);
        let price_in_force =
            "SELECT unit_price FROM book_prices WHERE price_plan = 'p' AND charge = 'usage'";
        let in_force = place.sql(price_in_force);
        assert!(in_force[0].starts_with(&format!("{price}.")), "{in_force:?}");
        let again = place.ok(0, &[&RECONCILE[..], &["--period", "2026-06"]].concat());
        assert_eq!(again.lines().count(), 1, "{again}");
        place.ok(0, &["-q", "verify"]);
    }
}
