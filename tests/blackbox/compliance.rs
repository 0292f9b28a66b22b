//! The rules of the programme: what was planted is found, and nothing else; what is forecast happens.

use std::collections::BTreeMap;

use crate::support::{Place, ran};

/// A fleet of planted faults, each folder taken in as `deliveries.csv` says.
fn planted(of_each: &str) -> Place {
    let place = Place::new();
    place.ok(0, &["-q", "fleet", "generate", "--out", "fleet", "--faults", of_each]);
    place.ok(0, &["book", "import", "fleet/book"]);
    let text = std::fs::read_to_string(place.path("fleet/deliveries.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(text.as_bytes());
    for row in rows.records() {
        let row = row.unwrap();
        let folder = format!("fleet/{}", &row[0]);
        let mut args = vec!["-q", "ingest", "files", &folder];
        for (option, value) in [
            ("--collector", &row[1]),
            ("--collector-version", &row[2]),
            ("--collection", &row[3]),
            ("--transport", &row[4]),
            ("--account", &row[5]),
        ] {
            if !value.is_empty() {
                args.extend([option, value]);
            }
        }
        let ran = ran(place.command(&args).env("RUMLEDGER_NOW", &row[6]).output().unwrap());
        let expected = if &row[1] == "billing-platform" { 3 } else { 0 };
        assert_eq!(ran.status, expected, "{args:?}\n{}{}", ran.stdout, ran.stderr);
    }
    place
}

/// Some columns of a CSV, each row joined, sorted.
fn columns(csv: &str, names: &[&str]) -> Vec<String> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let head = reader.headers().unwrap().clone();
    let places: Vec<usize> =
        names.iter().map(|name| head.iter().position(|h| h == *name).unwrap()).collect();
    let mut rows: Vec<String> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            places.iter().map(|&i| &row[i]).collect::<Vec<_>>().join(" ")
        })
        .collect();
    rows.sort();
    rows
}

const END: &str = "2026-11-01T00:00:00Z";

/// Precision and recall 1.0 for every finding and for silence. Planted are breaches of R2.3, R2.4, R2.6, R3,
/// R4.2, R4.3, R4.5, R6.1, R6.3, R6.4, R6.6, R6.7, R10.1, R10.2, R10.3, R10.4, R10.6, R10.8, R10.9, R11.1,
/// R11.3, R11.4 and R11.5.
#[test]
fn planted_faults_are_found_and_nothing_else() {
    let place = planted("2");
    let truth = std::fs::read_to_string(place.path("fleet/faults.csv")).unwrap();
    let truth = columns(&truth, &["found", "smart_account", "udi_pid", "udi_serial"]);
    let (states, expected): (Vec<String>, Vec<String>) =
        truth.into_iter().partition(|row| row.starts_with("coverage:"));
    let csv = place.ok(3, &["findings", "--as-of", END, "--format", "csv"]);
    let found = columns(&csv, &["rule", "smart_account", "udi_pid", "udi_serial"]);
    assert_eq!(found, expected);
    // Every rule of the table is planted.
    let mut rules: Vec<&str> = found.iter().filter_map(|row| row.split(' ').next()).collect();
    rules.dedup();
    let all: Vec<&str> = schemas::finding::Rule::WORDS.to_vec();
    assert_eq!(rules.len(), all.len(), "{rules:?} of {all:?}");

    let csv = place.ok(0, &["coverage", "--period", "2026-10", "--as-of", END, "--format", "csv"]);
    let found = columns(&csv, &["state", "smart_account", "udi_pid", "udi_serial"]);
    let mut found: Vec<String> = found.into_iter().map(|row| format!("coverage:{row}")).collect();
    // A PI whose reports are all refused, and the standby that only its active names, are of no
    // account's doing: the book or a report knows them, and they never consumed anything.
    found.sort();
    assert_eq!(found, states);
}

/// What is at stake, worked out by hand: two licences of Network Plus at 20, of HSECK9 at 30, of Advantage
/// at 10 a month.
#[test]
fn findings_say_what_is_at_stake() {
    let place = planted("1");
    let csv = place.ok(3, &["findings", "--as-of", END, "--format", "csv"]);
    let amounts = columns(&csv, &["rule", "licenses", "amount", "currency", "severity"]);
    for row in [
        "no-slac 2 60.00 EUR critical",
        "release-too-old 2 40.00 EUR warning",
        "shortage 1 20.00 EUR warning",
        "utility-release 2 20.00 EUR critical",
        "hseck9-convertible 5 150.00 EUR notice",
        "collector-not-allowed 0   critical",
    ] {
        assert!(amounts.iter().any(|found| found == row), "{row} in {amounts:#?}");
    }
    let gap = columns(&csv, &["rule", "reports", "report_ids"]);
    assert!(gap.iter().any(|row| row == "report-id-gap 2 2 3"), "{gap:#?}");
    let only = place.ok(3, &["findings", "--as-of", END, "--rule", "throttle", "--format", "csv"]);
    assert_eq!(only.lines().count(), 2, "{only}");
    place.ok(0, &["findings", "--as-of", "2026-01-01", "--format", "csv"]);
    let query = "SELECT count(*) FROM findings WHERE severity = 'critical' AND rule = 'no-slac'";
    assert_eq!(place.sql(query), ["1"]);
}

/// A post-paid device went silent after four tenths of September; its two licences of Advantage at 10 are
/// 20 for October, had it gone on (peak).
#[test]
fn a_silent_device_would_bill_what_it_did() {
    let place = planted("1");
    let csv = place.ok(
        0,
        &["coverage", "--period", "2026-10", "--as-of", END, "--by", "account", "--format", "csv"],
    );
    let rows =
        columns(&csv, &["smart_account", "silent", "lost", "share", "would_bill", "currency"]);
    for row in [
        "silent-0.example 1 0 0.000000 20.00 EUR",
        "clean-0.example 0 0 1.000000  ",
        "report-id-gap-0.example 0 1 0.800000  ",
        "pending-0.example 0 0 0.600000  ",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {rows:#?}");
    }
    let query = "SELECT state, count(*) FROM coverage WHERE period = '2026-10' AND state IN ('silent', 'lost') GROUP BY 1 ORDER BY 1";
    assert_eq!(place.sql(query), ["lost,1", "silent,1"]);
}

/// Issue: the 30-day forecast equals what then happens when nothing more comes (R10.5).
#[test]
fn what_is_forecast_happens() {
    let place = planted("1");
    let forecast = place
        .ok(0, &["deadlines", "--forecast", "--within", "31", "--as-of", END, "--format", "csv"]);
    let mut by_day: BTreeMap<String, u64> = BTreeMap::new();
    for row in columns(&forecast, &["day", "product_instances"]) {
        let (day, pis) = row.split_once(' ').unwrap();
        by_day.insert(day.to_owned(), pis.parse().unwrap());
    }
    assert!(!by_day.is_empty(), "{forecast}");
    let overdue = |at: &str| {
        let ran = place.run(&["deadlines", "--as-of", at, "--format", "csv"]);
        let states = columns(&ran.stdout, &["state", "udi_pid", "udi_serial"]);
        assert_eq!(ran.status, if states.iter().any(|s| s.starts_with("overdue")) { 3 } else { 0 });
        states.iter().filter(|state| state.starts_with("overdue")).count() as u64
    };
    let mut before = overdue(END);
    assert_eq!(before, 1, "the silent one");
    for day in 1..=30 {
        let (today, end) = (format!("2026-11-{day:02}"), format!("2026-11-{day:02}T23:59:59Z"));
        let now = overdue(&end);
        assert_eq!(now - before, by_day.remove(&today).unwrap_or(0), "{today}");
        before = now;
    }
}

/// R5.4, R5.6, R10.5, R11.2: what is owed, and why not.
#[test]
fn deadlines_name_the_policy_and_the_exemption() {
    let place = planted("1");
    let csv = place.run(&["deadlines", "--as-of", END, "--format", "csv"]).stdout;
    let rows = columns(
        &csv,
        &["smart_account", "state", "days_left", "exemption", "policy", "why", "report_due"],
    );
    for row in [
        "clean-0.example until-change  until-change Cisco default no further report until usage changes ",
        "clean-postpaid-0.example on-time 30  Cisco default post-paid: every 30 days 2026-12-01T00:00:00Z",
        "csl-0.example no-reporting  no-reporting  csl never reports ",
        "never-consumed-0.example never-consumed  never-consumed  it never consumed a licence ",
        "silent-0.example overdue -11  Cisco default post-paid: every 30 days 2026-10-21T00:00:00Z",
        "ha-under-vmanage-0.example within-7-days 1  Cisco default every 1 days 2026-11-02T00:00:00Z",
        "use-after-end-0.example on-time 90  Cisco default every 90 days 2027-01-30T00:00:00Z",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {rows:#?}");
    }
    let within = place.ok(3, &["deadlines", "--as-of", END, "--within", "7", "--format", "csv"]);
    let states = columns(&within, &["state"]);
    assert!(states.iter().all(|s| s == "overdue" || s == "within-7-days"), "{states:?}");
}

/// R6.5: requests beside reports are listed, and matched with what the book holds later; ACKs and policies
/// are kept as evidence, once.
#[test]
fn requests_and_acks_are_kept_and_matched() {
    let place = Place::with_fleet(&[
        "--reports",
        "20",
        "--devices",
        "10",
        "--months",
        "1",
        "--broken",
        "0",
        "--duplicates",
        "0",
        "--per-file",
        "1",
    ]);
    let reports = place.path("fleet/reports");
    let mut names: Vec<_> =
        std::fs::read_dir(&reports).unwrap().map(|e| e.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|e| e == "xml"));
    names.sort();
    for (path, beside) in names.iter().zip([
        "<smartLicenseTrustRequest><n>1</n></smartLicenseTrustRequest>",
        "<smartLicenseAuthRequest/><smartLicenseSystemInfo/>",
    ]) {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, text.replace("</smartLicense>", &format!("{beside}</smartLicense>")))
            .unwrap();
    }
    let ack = "<smartLicense><smartLicenseRumAck><id>1</id></smartLicenseRumAck></smartLicense>";
    std::fs::write(reports.join("z1.xml"), ack).unwrap();
    std::fs::write(reports.join("z2.xml"), ack).unwrap();
    let ran = place.run(&["ingest", "files", "fleet/reports", "--format", "json"]);
    assert!(ran.stdout.contains("\"received\":20"), "{}{}", ran.stdout, ran.stderr);
    place.run(&["-q", "ingest", "files", "fleet/reports/z1.xml"]);
    let rows = |place: &Place, more: &[&str]| {
        let mut args = vec!["requests", "--format", "csv"];
        args.extend(more);
        columns(&place.ok(0, &args), &["kind", "element", "state"])
    };
    assert_eq!(
        rows(&place, &[]),
        [
            "ack smartLicenseRumAck kept",
            "slac smartLicenseAuthRequest open",
            "trust-code smartLicenseTrustRequest open",
        ]
    );
    let held = place.sql("SELECT count(*), count(DISTINCT sha256) FROM documents WHERE element = 'smartLicenseRumAck'");
    assert_eq!(held, ["1,1"]);
    // The book learns of the trust code that was asked for, and of the SLAC.
    let of = |element: &str| {
        let csv = place.ok(0, &["requests", "--format", "csv"]);
        let row = columns(&csv, &["element", "udi_pid", "udi_serial"])
            .into_iter()
            .find(|row| row.starts_with(element))
            .unwrap();
        let mut parts = row.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>();
        (parts.remove(0), parts.remove(0))
    };
    let (trust, slac) = (of("smartLicenseTrustRequest"), of("smartLicenseAuthRequest"));
    let codes = place.path("fleet/book/trust_codes.csv");
    let text = std::fs::read_to_string(&codes).unwrap();
    let line = text.lines().find(|line| line.contains(&trust.1)).unwrap();
    let later = line.replace("2020-01-01", "2026-11-12");
    std::fs::write(&codes, format!("{text}{later}\n")).unwrap();
    std::fs::write(
        place.path("fleet/book/authorizations.csv"),
        format!(
            "udi_pid,udi_serial,kind,entitlement_tag,code_version,installed_at,returned_at\n{},{},SLAC,DNA_HSEC,,2026-11-11,\n",
            slac.0, slac.1
        ),
    )
    .unwrap();
    place.ok(0, &["book", "import", "fleet/book"]);
    assert_eq!(rows(&place, &["--open"]), Vec::<String>::new());
}
