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
        "accounts.csv, line 5, column customer: a quote inside an unquoted field",
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
    Mistake(
        "accounts",
        ",JPY,",
        ",XAU,",
        "accounts.csv, line 4, column currency: 'XAU' has no minor unit",
    ),
    Mistake(
        "accounts",
        "Asia/Tokyo",
        "localtime",
        "accounts.csv, line 4, column time_zone: 'localtime'",
    ),
    Mistake(
        "devices",
        "cslu,direct",
        "cslu,Direct",
        "devices.csv, line 2, column channel: 'Direct' is none of direct, partner",
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

/// A book with an error in nearly every cell: each is named once, with its place, and none that only follows from
/// another.
#[test]
fn all_errors_of_a_book_are_named() {
    let place = Place::new();
    let book = place.path("book");
    std::fs::create_dir(&book).unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(book.join(name), text).unwrap();
    // The account is wrong, and those that refer to it are not.
    write(
        "accounts.csv",
        b"smart_account,virtual_account,customer,currency,time_zone\nsa,va,C,UDS,UTC\nsb,vb,D,USD,America/New_York\n",
    );
    write(
        "devices.csv",
        b"udi_pid,udi_serial,smart_account,virtual_account,valid_from,valid_to,managed_by,license_model,transport,channel\n\
          C,S,sa,va,2026-01-01,2026-12-01,cslu,slp,cslu,direct\n\
          C,T,sb,vb,2026-01-01,2026-12-01,cslu,slp,cslu,direct\n\
          C,T,sb,vb,2026-02-01,2026-02-02,cslu,slp,cslu,\n\
          C,T,sb,vb,2026-03-01,2026-03-02,cslu,slp,cslu,partner\n",
    );
    write(
        "subscriptions.csv",
        b"subscription_id,smart_account,virtual_account,entitlement_tag,billing_model,committed_quantity,price_plan,start,end\n\
          ,sb,vb,,committed,x,p,never,never\n",
    );
    write(
        "purchases.csv",
        b"purchase_id,smart_account,virtual_account,entitlement_tag,quantity,start,end,price_plan\n\
          P\"1,sb,vb,T,1,2026-01-01,,\nP2,sb,vb,T,x,2026-01-01,,\nP\"3,sb,vb,T,1,2026-01-01,,\"q\"r\n",
    );
    write(
        "prices.csv",
        b"price_plan,entitlement_tag,charge,valid_from,measure,tier_mode,tier_up_to,unit_price,package_size,currency\n\
          q,T,usage,2026-01-01,peak,graduated,5,1,,USD\nq,T,usage,2026-01-01,peak,graduated,,free,,USD\n\
          r,T,usage,2026-01-01,peak,flat,,170000000000000000000000000,,USD\n\
          p,T,usage,2026-01-01,peak,flat,,1,,USD\np,T,usage,2026-01-01T05:00:00Z,peak,flat,,2,,USD\n",
    );
    write(
        "catalog.csv",
        b"entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence\nT\xff,n\xff,none,never,maybe,\n",
    );
    write(
        "authorizations.csv",
        b"udi_pid,udi_serial,kind,entitlement_tag,code_version,installed_at,returned_at\nC,S,slac,T,1,never,never\n",
    );
    let ran = place.run(&["book", "import", "book"]);
    assert_eq!(ran.status, 1);
    let named: Vec<String> = ran
        .stderr
        .lines()
        .filter_map(|line| {
            let (place, _) = line.trim().split_once(": ").filter(|(p, _)| p.contains(".csv,"))?;
            Some(place.replace(".csv, line ", " ").replace(", column", ""))
        })
        .collect();
    let expected = [
        "accounts 2 currency",
        "authorizations 2 installed_at",
        "authorizations 2 kind",
        "authorizations 2 returned_at",
        "catalog 2 duration",
        "catalog 2 enforcement",
        "catalog 2 entitlement_tag",
        "catalog 2 name",
        "catalog 2 postpaid_allowed",
        "devices 4 valid_from",
        "devices 5 valid_from",
        "prices 3 unit_price",
        "prices 4 unit_price",
        "purchases 2 purchase_id",
        "purchases 3 quantity",
        "purchases 4 price_plan",
        "purchases 4 purchase_id",
        "subscriptions 2 billing_model",
        "subscriptions 2 end",
        "subscriptions 2 entitlement_tag",
        "subscriptions 2 start",
        "subscriptions 2 subscription_id",
    ];
    assert_eq!(named, expected, "{}", ran.stderr);
    // What refers to accounts that cannot be read is not told of either.
    write("accounts.csv", b"smart_account,virtual_account\nsa,va\n");
    let ran = place.run(&["book", "import", "book"]);
    assert!(!ran.stderr.contains("has no account"), "{}", ran.stderr);
    assert!(!place.path("lake").exists());
}

/// What is shown is a book, and the same one.
#[test]
fn a_book_that_is_shown_is_the_same_when_it_is_imported() {
    let place = Place::with_fleet(&["--reports", "500", "--devices", "60"]);
    place.ok(3, &["ingest", "files", "fleet/reports"]);
    place.run(&["reconcile", "--period", "2026-10"]);
    std::fs::create_dir(place.path("again")).unwrap();
    let tables = place.ok(0, &["book", "show", "--format", "csv"]);
    let names: Vec<&str> = tables
        .lines()
        .skip(1)
        .filter_map(|row| row.split(',').next()?.strip_prefix("book_"))
        .collect();
    assert!(names.contains(&"prices"), "{tables}");
    let show = |name: &str| place.ok(0, &["book", "show", name, "--format", "csv"]);
    let before: Vec<String> = names.iter().map(|name| show(name)).collect();
    for (name, text) in names.iter().zip(&before) {
        std::fs::write(place.path(&format!("again/{name}.csv")), text).unwrap();
    }
    // Prices are those that lines stand on, and a change of them would be refused.
    place.ok(0, &["book", "import", "again"]);
    assert_eq!(names.iter().map(|name| show(name)).collect::<Vec<_>>(), before);
    let dry = place.run(&["reconcile", "--period", "2026-10", "--dry-run", "--format", "csv"]);
    assert_eq!(dry.stdout.lines().count(), 1, "nothing to post: {}", dry.stdout);
}
