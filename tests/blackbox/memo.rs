//! What a run found is remembered, and never believed for longer than it holds; and what does not fit
//! into memory at once is read in parts.

use std::collections::BTreeMap;
use std::process::Command;

use lake::Lake;
use reconcile::core::claims::Claims;
use reconcile::engine::Evidence;

use crate::support::{Place, names};

const RECONCILE: &[&str] = &["-q", "reconcile", "--period", "2026-10", "--format", "csv"];
const DRY: &[&str] = &["-q", "reconcile", "--period", "2026-10", "--format", "csv", "--dry-run"];

fn lines(csv: &str) -> usize {
    csv.lines().count() - 1
}

#[test]
fn a_run_with_nothing_new_finds_what_a_full_one_finds() {
    let place = Place::with_fleet(&["--reports", "1200", "--devices", "60"]);
    let memo = place.path("lake/_cache/reconcile/2026-10.json");
    // Half of the reports at first. There are exceptions: one device is in nobody's book.
    std::fs::create_dir(place.path("later")).unwrap();
    let later = place.path("fleet/reports/r0000001.json");
    let later = if later.exists() { later } else { place.path("fleet/reports/r0000001.xml") };
    std::fs::rename(&later, place.path("later/rest")).unwrap();
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);

    // A dry run that would post something remembers nothing.
    let planned = place.ok(3, DRY);
    assert!(lines(&planned) > 0 && !memo.exists());
    assert_eq!(place.ok(3, RECONCILE), planned);
    assert!(memo.exists());
    for args in [RECONCILE, DRY] {
        assert_eq!(lines(&place.ok(3, args)), 0);
    }
    // Damaged or gone, it is only a cache.
    for damage in ["", "{}", "no JSON"] {
        std::fs::write(&memo, damage).unwrap();
        assert_eq!(lines(&place.ok(3, RECONCILE)), 0);
        assert!(std::fs::read_to_string(&memo).unwrap().contains("standing"), "kept anew");
    }
    std::fs::remove_file(&memo).unwrap();
    assert_eq!(lines(&place.ok(3, DRY)), 0);

    // What it says is not asked where something changed: usage, the book, the ledger, the zones.
    place.ok(3, &["-q", "ingest", "files", "later"]);
    let more = place.ok(3, RECONCILE);
    assert!(lines(&more) > 0, "usage that came later is posted");
    assert_eq!(lines(&place.ok(3, RECONCILE)), 0);
    let prices = place.path("fleet/book/prices.csv");
    let dearer = std::fs::read_to_string(&prices).unwrap().replace("42.000000", "43.000000");
    std::fs::write(&prices, dearer).unwrap();
    place.ok(0, &["-q", "book", "import", "fleet/book", "--correct", "a typing error"]);
    assert!(lines(&place.ok(3, DRY)) > 0, "a price that changed is posted");
    assert!(lines(&place.ok(3, RECONCILE)) > 0);
    assert_eq!(lines(&place.ok(3, RECONCILE)), 0);
    place.ok(0, &["-q", "close", "--period", "2026-10"]);
    assert_eq!(lines(&place.ok(3, RECONCILE)), 0);
    let kept = std::fs::read_to_string(&memo).unwrap();
    // Any bit that is otherwise is seen; what was kept on a machine with other clocks too.
    let (digest, json) = kept.split_once('\n').unwrap();
    let other_clocks = json.replacen("\"America/New_York\":\"", "\"America/New_York\":\"1 ", 1);
    assert_ne!(json, other_clocks);
    for digest in [digest, &schemas::merkle::digest(other_clocks.as_bytes()).to_string()] {
        std::fs::write(&memo, format!("{digest}\n{other_clocks}")).unwrap();
        assert_eq!(lines(&place.ok(3, RECONCILE)), 0);
        assert_eq!(std::fs::read_to_string(&memo).unwrap(), kept, "a run in full kept it anew");
    }
    // One account at a time is computed as ever; this one has no exceptions.
    let account = [RECONCILE, &["--account", "northwind.example/Core"]].concat();
    assert_eq!(lines(&place.ok(0, &account)), 0);
}

/// A price may change without a reason while no line stands on it: a run that is under way must not post by it then.
#[test]
fn a_book_that_is_imported_under_a_run_counts_for_it() {
    let place = Place::with_fleet(&["--reports", "300", "--devices", "20"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    let prices = place.path("fleet/book/prices.csv");
    let dearer = std::fs::read_to_string(&prices).unwrap().replace("42.000000", "43.000000");
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let clock = || {
        if asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            std::fs::write(&prices, &dearer).unwrap();
            place.ok(0, &["-q", "book", "import", "fleet/book"]);
        }
        1_793_491_200
    };
    let lake = Lake::open(place.path("lake").to_str().unwrap()).unwrap();
    let cache = place.path("lake/_cache");
    let period = "2026-10".parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = reconcile::shell::run::reconcile(&lake, &cache, period, None, false, &clock);
    let posted = runtime.block_on(run).unwrap().lines;
    assert!(!posted.is_empty() && asked.into_inner() == 2);
    assert_eq!(lines(&place.ok(0, RECONCILE)), 0, "posted by the new prices");
    assert_eq!(place.sql("SELECT DISTINCT book_version FROM ledger"), ["2"]);
}

/// A digit of a serial number that is another one in a cache must not move a device out of its group.
#[test]
fn a_changed_digit_of_a_cache_is_not_believed() {
    let place = Place::with_fleet(&["--reports", "1200", "--devices", "60"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    place.ok(3, RECONCILE);
    shell(&place, "cp -r lake other; rm -r other/_cache");
    for name in ["groups.json", "reconcile/2026-10.bearing.json"] {
        let path = place.path("lake/_cache").join(name);
        let kept = std::fs::read_to_string(&path).unwrap();
        // Of the first device that is named.
        let first = kept.find("[[\"").unwrap();
        let at = first + kept[first..].find("\",\"").unwrap() + 6;
        let mut bytes = kept.into_bytes();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let purchases = place.path("fleet/book/purchases.csv");
    let text = std::fs::read_to_string(&purchases).unwrap();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    // Plan, end, start, quantity, and what is before them.
    let mut cells: Vec<&str> = rows[1].rsplitn(5, ',').collect();
    let more = (cells[3].parse::<u64>().unwrap() + 3).to_string();
    cells[3] = &more;
    cells.reverse();
    rows[1] = cells.join(",");
    std::fs::write(&purchases, rows.join("\n") + "\n").unwrap();
    let posted = |lake: &str| {
        place.ok(0, &["-q", "--lake", lake, "book", "import", "fleet/book"]);
        place.ok(3, &[&["--lake", lake], RECONCILE].concat())
    };
    let expected = posted("other");
    assert!(lines(&expected) > 0);
    assert_eq!(posted("lake"), expected);
}

/// The exceptions that are remembered are those of a full run: they decide the exit status.
#[test]
fn a_remembered_run_without_exceptions_exits_0() {
    let place = Place::with_fleet(&["--reports", "60", "--devices", "10", "--broken", "0"]);
    place.ok(0, &["-q", "ingest", "files", "fleet/reports"]);
    let full = place.run(RECONCILE).status;
    for _ in 0..2 {
        assert_eq!(place.run(RECONCILE).status, full);
    }
}

fn shell(place: &Place, script: &str) {
    let dir = place.path(".");
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Where tables were restored from a copy, other commits come to have the versions that caches name.
#[test]
fn caches_of_a_lake_before_it_was_restored_are_not_believed() {
    let place = Place::with_fleet(&[
        "--reports",
        "60",
        "--devices",
        "6",
        "--per-file",
        "20",
        "--broken",
        "0",
        "--duplicates",
        "0",
    ]);
    let mut files = names(&place.path("fleet/reports"));
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    let accepted = |file: &str| -> u64 {
        let path = format!("fleet/reports/{file}");
        let said = place.ok(0, &["-q", "ingest", "files", &path, "--format", "json"]);
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["accepted"].as_u64().unwrap()
    };
    assert_eq!(accepted(&files[0]), 20);
    shell(&place, "cp -r lake copy; rm -r copy/_cache");
    assert_eq!(accepted(&files[1]), 20);
    // The second file is lost, and the third has its version of the journal, taken in by another machine.
    shell(&place, "mv lake/_cache cache; rm -r lake; mv copy lake");
    assert_eq!(accepted(&files[2]), 20);
    shell(&place, "rm -r lake/_cache; mv cache lake/_cache");
    assert_eq!(accepted(&files[1]), 20, "what the journal does not hold is new");
    assert_eq!(accepted(&files[2]), 0, "and what it holds is known");
    assert_eq!(place.sql("SELECT count(*) FROM journal WHERE disposition = 'accepted'"), ["60"]);
}

/// Everything that claims say, by item, PI and time; and how many groups there are.
type Said = BTreeMap<(String, String, u64), Vec<(i64, i64, i64)>>;

fn take(said: &mut (Said, usize), claims: &Claims) {
    for (item, of_group) in claims.groups().into_iter().filter(|(_, c)| !c.is_empty()) {
        said.1 += 1;
        for claim in of_group {
            let facts = &claims.facts[claim.report];
            let pi = claims.names.pi_of(facts.pi).to_string();
            let key = (item.to_owned(), pi, facts.report_id);
            let all = said.0.entry(key).or_default();
            all.push((claim.start, claim.end, claim.value));
            all.sort_unstable();
        }
    }
}

#[test]
fn claims_that_are_too_many_come_in_parts_and_groups_stay_whole() {
    let place = Place::with_fleet(&["--reports", "2000", "--devices", "100"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = |claims_max: usize| {
        let lake = Lake::open(place.path("lake").to_str().unwrap()).unwrap();
        runtime.block_on(async {
            let journal = lake.table("journal").await.unwrap();
            let book = lake::load_book(&lake, None).await.unwrap().book;
            let evidence = Evidence::prepare(journal.as_ref(), &book).await.unwrap();
            let parts = std::cell::Cell::new(0);
            let evidence = evidence.with_claims_max(claims_max);
            let said = evidence
                .claims(0, i64::from(u32::MAX), Default::default, |said, claims| {
                    parts.set(parts.get() + 1);
                    take(said, &claims);
                })
                .await
                .unwrap();
            (said, parts.get())
        })
    };
    let (whole, parts) = read(usize::MAX);
    assert_eq!(parts, 1);
    assert!(whole.0.len() > 1500 && whole.1 > 50, "{} of {} groups", whole.0.len(), whole.1);
    let (pieced, parts) = read(400);
    assert!(parts > 8, "{parts} parts");
    assert!(pieced == whole);
}
