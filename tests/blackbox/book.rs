//! A book is taken whole or not at all, and every error is named with its place.

use crate::support::Place;

/// One mistake: the file, the text that is replaced in it, by what, and what must be said.
struct Mistake(&'static str, &'static str, &'static str, &'static str);

const MISTAKES: &[Mistake] = &[
    Mistake(
        "accounts",
        ",JPY,",
        ",YEN,",
        "accounts.csv, line 4, column currency: 'YEN' is no currency code",
    ),
    Mistake("accounts", "Asia/Tokyo", "Asia/Kyoto", "accounts.csv, line 4, column time_zone"),
    Mistake("accounts", "sakura.example", "saku/ra", "accounts.csv, line 4, column smart_account"),
    Mistake(
        "accounts",
        "time_zone",
        "timezone",
        "accounts.csv, line 1, column timezone: unknown column",
    ),
    Mistake(
        "accounts",
        "currency,",
        "customer,",
        "accounts.csv, line 1, column currency: the column is missing",
    ),
    Mistake(
        "accounts",
        "Pearl Bank",
        "\"Pearl Bank",
        "accounts.csv, line 5: a quoted field is not closed",
    ),
    Mistake(
        "accounts",
        "Pearl Bank",
        "Pearl \"Bank",
        "accounts.csv, line 5: a quote inside an unquoted field",
    ),
    Mistake(
        "accounts",
        "Pearl Bank",
        "Pearl,Bank",
        "accounts.csv, line 5: 6 fields, but the header has 5",
    ),
    Mistake(
        "accounts",
        "northwind.example,Labs",
        "northwind.example,Core",
        "accounts.csv, line 7, column virtual_account: account northwind.example/Core is on line 2 already",
    ),
    Mistake(
        "devices",
        "northwind.example,Core,2026-09-01,,cslu",
        "northwind.example,Cellar,2026-09-01,,cslu",
        "devices.csv, line 2, column virtual_account: accounts.csv has no account northwind.example/Cellar",
    ),
    Mistake(
        "devices",
        "2026-09-01,,cslu",
        "2026-09-01,2026-09-01,cslu",
        "devices.csv, line 2, column valid_to: must be after valid_from",
    ),
    Mistake(
        "devices",
        "2026-09-01,,cslu",
        "2026-09-31,,cslu",
        "devices.csv, line 2, column valid_from: '2026-09-31' is no time",
    ),
    Mistake(
        "devices",
        ",cslu,slp",
        ",nobody,slp",
        "devices.csv, line 2, column managed_by: 'nobody' is none of cslu",
    ),
    Mistake(
        "catalog",
        "subscription,true",
        "subscription,yes",
        "catalog.csv, line 2, column postpaid_allowed: 'yes' is neither true nor false",
    ),
    Mistake(
        "subscriptions",
        "COMMITTED,6",
        "COMMITTED,1.5",
        "subscriptions.csv, line 2, column committed_quantity: '1.5' is no whole number",
    ),
    Mistake("purchases", ",4,2026", ",many,2026", "purchases.csv, line 2, column quantity"),
    Mistake(
        "prices",
        "42.000000",
        "42.0000000000001",
        "prices.csv, line 2, column unit_price: '42.0000000000001' has more than 12 decimal places",
    ),
    Mistake(
        "prices",
        "42.000000",
        "4e1",
        "prices.csv, line 2, column unit_price: '4e1' is no decimal number",
    ),
    Mistake("prices", "42.000000", "-1", "prices.csv, line 2, column unit_price"),
    Mistake(
        "prices",
        "graduated,5,42.000000,,USD",
        "graduated,5,42.000000,,EUR",
        "prices.csv, line 3, column currency: differs from line 2",
    ),
    Mistake(
        "prices",
        "peak,graduated,,",
        "peak,graduated,30,",
        "column tier_up_to: the last tier of a price must be open",
    ),
    Mistake(
        "trust_codes",
        ",ack,EdDSA",
        ",ack,HS256",
        "column algorithm: 'HS256' is none of RS256, ES256, EdDSA",
    ),
    Mistake(
        "trust_codes",
        ",ack,EdDSA",
        ",ack,RS256",
        "column public_key: the key is no RS256 public key",
    ),
];

#[test]
fn every_error_is_named_and_nothing_is_changed() {
    let place = Place::with_fleet(&["--reports", "10", "--devices", "60"]);
    let before = place.ok(0, &["book", "show", "--format", "csv"]);
    for Mistake(file, from, to, said) in MISTAKES {
        let path = place.path(&format!("fleet/book/{file}.csv"));
        let good = std::fs::read_to_string(&path).unwrap();
        assert!(good.contains(from), "{file}.csv holds {from}:\n{}", &good[..good.len().min(2000)]);
        std::fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let ran = place.run(&["book", "import", "fleet/book"]);
        assert_eq!(ran.status, 1, "{from} -> {to}");
        assert!(ran.stderr.contains(said), "{from} -> {to}: {}", ran.stderr);
        std::fs::write(&path, good).unwrap();
        assert_eq!(place.ok(0, &["book", "show", "--format", "csv"]), before);
    }
    place.ok(0, &["book", "import", "fleet/book"]);
    assert_ne!(
        place.ok(0, &["book", "show", "--format", "csv"]),
        before,
        "each import is a version"
    );
}

#[test]
fn rows_that_contradict_each_other_are_errors() {
    let place = Place::with_fleet(&["--reports", "10", "--devices", "60"]);
    let append = |file: &str, row: &str, said: &str| {
        let path = place.path(&format!("fleet/book/{file}.csv"));
        let good = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{good}{row}\n")).unwrap();
        let ran = place.run(&["book", "import", "fleet/book"]);
        assert!(ran.status == 1 && ran.stderr.contains(said), "{row}: {}", ran.stderr);
        std::fs::write(&path, good).unwrap();
    };
    let devices = std::fs::read_to_string(place.path("fleet/book/devices.csv")).unwrap();
    let first = devices.lines().nth(1).unwrap();
    append(
        "devices",
        &first.replace("2026-09-01", "2026-10-01"),
        "overlaps line 2 of the same device",
    );
    let subscriptions =
        std::fs::read_to_string(place.path("fleet/book/subscriptions.csv")).unwrap();
    let first = subscriptions.lines().nth(1).unwrap();
    append(
        "subscriptions",
        &first.replace("Sub00001", "Sub99999"),
        "in force together with line 2 of the same account and tag",
    );
    let catalog = std::fs::read_to_string(place.path("fleet/book/catalog.csv")).unwrap();
    append("catalog", catalog.lines().nth(1).unwrap(), "the tag is on line 2 already");
    // A plan in dollars, bought by an account in yen.
    append(
        "purchases",
        "PO-X,sakura.example,Tokyo,\"regid.2017-03.com.cisco.NETWORK_PLUS,1.0_5d0e8b36-7a2c-4e59-b6f4-1c8a9d3e7f03\",1,2026-09-01,,overage-0",
        "the plan is charged to account sakura.example/Tokyo, whose currency is JPY",
    );
    std::fs::write(place.path("fleet/book/price.csv"), "x\n").unwrap();
    let ran = place.run(&["book", "import", "fleet/book"]);
    assert!(
        ran.status == 1 && ran.stderr.contains("price.csv: no file of a book"),
        "{}",
        ran.stderr
    );
}

/// A device moves from New York to Tokyo at a bare date: the new row's zone holds for both rows, so
/// that the move leaves neither a gap nor an overlap.
#[test]
fn rows_that_meet_at_a_bare_date_meet_at_one_instant() {
    let place = Place::with_fleet(&["--reports", "10", "--devices", "10"]);
    let path = place.path("fleet/book/devices.csv");
    let good = std::fs::read_to_string(&path).unwrap();
    let first = good.lines().nth(1).unwrap();
    let old = first.replace("2026-09-01,,", "2026-09-01,2026-10-01,");
    let new = first.replace("northwind.example,Core,2026-09-01", "sakura.example,Tokyo,2026-10-01");
    std::fs::write(&path, good.replacen(first, &format!("{old}\n{new}"), 1)).unwrap();
    place.ok(0, &["book", "import", "fleet/book"]);
    let serial = first.split(',').nth(1).unwrap();
    let rows = place.sql(&format!("SELECT valid_to, valid_from FROM book_devices WHERE udi_serial = '{serial}' ORDER BY valid_from"));
    assert_eq!(rows, ["2026-09-30T15:00:00Z,2026-09-01T04:00:00Z", ",2026-09-30T15:00:00Z"]);
}
