//! Money, worked out by hand: from claims and a book to lines, without a lake.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod changed;
mod orders;
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use reconcile::core::adjust::{Ledger, adjust};
use reconcile::core::attribute::Usage;
use reconcile::core::charge::{Charges, charges};
use reconcile::core::claims::{Claims, Group};
use reconcile::core::reference::{Month, Reference};
use reconcile::core::timeline::{Claim, ReportFacts, max_join};
use schemas::book::{Book, TABLES, parse_csv};
use schemas::ledger::Line;
use schemas::period::{Moment, Period};
use schemas::quantity::{amount_text, decimal_text, minor_digits};

const CATALOG: &str = "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence
ADV,Advantage,unenforced,subscription,true,
PLUS,Plus,unenforced,perpetual,false,
HSEC,DNA HSEC,export-controlled,perpetual,false,HSECK9
HSEC4,ISR HSEC,export-controlled,perpetual,false,HSECK9
";

/// A book from the text of its files; the catalogue is always the same where none is given.
fn book(files: &[(&str, &str)]) -> Book {
    let mut errors = Vec::new();
    let mut cells = BTreeMap::new();
    for (name, text) in [("catalog", CATALOG)].iter().chain(files) {
        let spec = TABLES.iter().find(|t| t.name == *name).unwrap();
        cells.insert((*name).to_owned(), parse_csv(spec, text.as_bytes(), &mut errors));
    }
    assert_eq!(errors, []);
    Book::read(&cells).unwrap()
}

fn accounts(currency: &str, zone: &str) -> String {
    format!(
        "smart_account,virtual_account,customer,currency,time_zone\nsa,va,Customer,{currency},{zone}\n"
    )
}

const DEVICES: &str = "udi_pid,udi_serial,smart_account,virtual_account,valid_from,valid_to,managed_by,license_model,transport,channel
P,A,sa,va,2026-01-01,,cslu,slp,cslu,direct
P,B,sa,va,2026-01-01,,cslu,slp,cslu,direct
";
const SUBSCRIPTIONS: &str = "subscription_id,smart_account,virtual_account,entitlement_tag,billing_model,committed_quantity,price_plan,start,end\n";
const PURCHASES: &str =
    "purchase_id,smart_account,virtual_account,entitlement_tag,quantity,start,end,price_plan\n";
const PRICES: &str = "price_plan,entitlement_tag,charge,valid_from,measure,tier_mode,tier_up_to,unit_price,package_size,currency\n";

/// What a report says beside its measurement.
#[derive(Clone, Debug)]
struct Facts {
    serial: String,
    report_id: u64,
    tag: String,
    utility: bool,
    verified: bool,
    subscription_id: String,
}

/// One report's claim: serial, tag, start, end, value. The tag ADV is reported in utility mode.
#[derive(Clone, Debug)]
struct Claimed {
    group: String,
    facts: Facts,
    start: i64,
    end: i64,
    value: i64,
}

fn claim(serial: &str, tag: &str, start: &str, end: &str, value: i64) -> Claimed {
    let at = |text: &str| match text.parse::<Moment>().unwrap() {
        Moment::At(t) => t,
        date => date.resolve(&jiff::tz::TimeZone::UTC),
    };
    Claimed {
        group: serial.to_owned(),
        facts: Facts {
            serial: serial.to_owned(),
            report_id: 1,
            tag: tag.to_owned(),
            utility: tag == "ADV",
            verified: true,
            subscription_id: String::new(),
        },
        start: at(start),
        end: at(end),
        value,
    }
}

/// What the lake would do: claims of one group and item together.
fn compute(book: &Book, period: Period, claims: &[Claimed]) -> Charges {
    let reference = Reference::new(book);
    let months = reference.months(period);
    let utc = Month::new(period, &jiff::tz::TimeZone::UTC).span;
    let mut usage = Usage::new(&reference, &months, utc);
    let mut all = Claims::default();
    for c in claims {
        let item = all.names.text(reference.item(&c.facts.tag));
        // Groups have numbers of their own; their names here are texts like any other.
        let group = Group::Several(u64::from(all.names.text(&c.group)));
        let facts = ReportFacts {
            payload_sha256: schemas::merkle::Hash::default(),
            report_id: c.facts.report_id,
            pi: all.names.pi("P", &c.facts.serial).0,
            tag: all.names.text(&c.facts.tag),
            subscription: all.names.text(&c.facts.subscription_id),
            header_account: None,
            utility: c.facts.utility,
            verified: c.facts.verified,
        };
        let claim = Claim { start: c.start, end: c.end, value: c.value, report: 0 };
        all.add(group, item, facts, std::iter::once(claim));
    }
    for (item, claims) in all.groups() {
        usage.add(item, &max_join(claims, &all.facts, &all.names), &all.facts, &all.names);
    }
    let used = usage.finish();
    let (steps, exceptions) = (used.keys, used.exceptions);
    charges(&reference, &months, steps, exceptions).unwrap()
}

fn lines(book: &Book, period: &str, claims: &[Claimed], ledger: &Ledger) -> Vec<Line> {
    let period = period.parse().unwrap();
    adjust(compute(book, period, claims).targets, ledger, period, "", |_| true)
}

/// `charge kind posted-in consumed purchased quantity amount` of each line, zeros left out.
fn shown(lines: &[Line]) -> Vec<String> {
    let trim = |q| {
        let text = decimal_text(q, 6);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    lines
        .iter()
        .map(|l| {
            let amount = amount_text(l.amount, minor_digits(&l.currency).unwrap());
            [
                l.key.charge.as_str(),
                l.kind.as_str(),
                &l.posted_period.to_string(),
                &trim(l.consumed),
                &trim(l.purchased),
                &trim(l.quantity),
                &amount,
            ]
            .join(" ")
        })
        .collect()
}

fn check(book: &Book, period: &str, claims: &[Claimed], expected: &[&str]) {
    assert_eq!(shown(&lines(book, period, claims, &Ledger::default())), expected);
}

/// A post-paid subscription for ADV with the given rows of prices under the plan `p`.
fn postpaid(currency: &str, zone: &str, terms: &str, prices: &str) -> Book {
    book(&[
        ("accounts", &accounts(currency, zone)),
        ("devices", DEVICES),
        ("subscriptions", &format!("{SUBSCRIPTIONS}S1,sa,va,ADV,{terms},p,2026-01-01,\n")),
        ("prices", &format!("{PRICES}{prices}")),
    ])
}

/// September has 30 days. D is 10 for 9 days, 4 for 15 days, 0 for 6:
/// peak 10 · average (90 + 60) / 30 = 5 · days 150 · hours 150 × 24 = 3600.
#[test]
fn every_measure_by_every_tier_mode() {
    let claims = [
        claim("A", "ADV", "2026-09-01", "2026-09-10", 10),
        claim("A", "ADV", "2026-09-10", "2026-09-25", 4),
    ];
    let table = [
        // 10, 5, 150, 3600 at 0.50
        ("flat", &[",0.50,"][..], ["5.00", "2.50", "75.00", "1800.00"]),
        // 4 × 2 + 4 × 1.50 + 2 × 1 · 4 × 2 + 1 × 1.50 · 8 + 6 + 142 · 8 + 6 + 3592
        ("graduated", &["4,2,", "8,1.50,", ",1,"], ["16.00", "9.50", "156.00", "3606.00"]),
        // A bound belongs to its tier: 10 × 2 · 5 × 3 · 150 × 2 · 3600 × 1
        ("volume", &["5,3,", "150,2,", ",1,"], ["20.00", "15.00", "300.00", "3600.00"]),
        // Fours at 7: 3 · 2 · 38 (37.5) · 900
        ("package", &[",7,4"], ["21.00", "14.00", "266.00", "6300.00"]),
    ];
    let measures =
        [("peak", "10"), ("average", "5"), ("license-days", "150"), ("license-hours", "3600")];
    for (mode, tiers, amounts) in table {
        for ((measure, quantity), amount) in measures.iter().zip(amounts) {
            let prices: String = tiers
                .iter()
                .map(|tier| format!("p,ADV,usage,2026-01-01,{measure},{mode},{tier},USD\n"))
                .collect();
            let book = postpaid("USD", "UTC", "UNCOMMITTED,", &prices);
            let line = format!("usage charge 2026-09 {quantity} 0 {quantity} {amount}");
            check(&book, "2026-09", &claims, &[&line]);
        }
    }
}

/// November in New York has 721 hours (the 1st has 25), October in Berlin 745, March there 743 (the
/// 29th has 23).
#[test]
fn months_in_which_the_clocks_change() {
    for (zone, period, start, end, expected) in [
        // Two licences for the whole month and beyond.
        ("America/New_York", "2026-11", "2026-10-01", "2027-01-01", ["2", "2", "60", "1442"]),
        ("Europe/Berlin", "2026-10", "2026-09-01", "2026-12-01", ["2", "2", "62", "1490"]),
        ("Europe/Berlin", "2026-03", "2026-02-01", "2026-05-01", ["2", "2", "62", "1486"]),
        // The one day of 25 hours: 50 licence-hours, 50/721 and 50/745 on average.
        (
            "America/New_York",
            "2026-11",
            "2026-11-01T00:00:00-04:00",
            "2026-11-02T00:00:00-05:00",
            ["2", "0.069348", "2", "50"],
        ),
        (
            "Europe/Berlin",
            "2026-10",
            "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00",
            ["2", "0.067114", "2", "50"],
        ),
        // The one day of 23 hours: 46/743 on average.
        (
            "Europe/Berlin",
            "2026-03",
            "2026-03-29T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00",
            ["2", "0.061911", "2", "46"],
        ),
        // Half an hour on both sides of a local midnight touches two days.
        (
            "Europe/Berlin",
            "2026-10",
            "2026-10-25T23:30:00+01:00",
            "2026-10-26T00:30:00+01:00",
            ["2", "0.002685", "4", "2"],
        ),
    ] {
        for (measure, quantity) in
            ["peak", "average", "license-days", "license-hours"].iter().zip(expected)
        {
            let book = postpaid(
                "EUR",
                zone,
                "UNCOMMITTED,",
                &format!("p,ADV,usage,2026-01-01,{measure},flat,,0,,EUR\n"),
            );
            let line = format!("usage charge {period} {quantity} 0 {quantity} 0.00");
            check(&book, period, &[claim("A", "ADV", start, end, 2)], &[&line]);
        }
    }
}

/// The price triples on the 16th: two segments of 15 days each.
#[test]
fn a_price_changes_in_mid_month() {
    for (measure, quantity, amounts) in [
        ("average", "5", ["5.00", "15.00"]),
        ("peak", "5", ["5.00", "15.00"]),
        ("license-days", "150", ["150.00", "450.00"]),
        ("license-hours", "3600", ["3600.00", "10800.00"]),
    ] {
        let prices = format!(
            "p,ADV,usage,2026-01-01,{measure},flat,,1,,USD\np,ADV,usage,2026-09-16,{measure},flat,,3,,USD\n"
        );
        let book = postpaid("USD", "America/New_York", "UNCOMMITTED,", &prices);
        let expected =
            amounts.map(|amount| format!("usage charge 2026-09 {quantity} 0 {quantity} {amount}"));
        let claims = [claim("A", "ADV", "2026-08-01", "2026-10-15", 10)];
        check(&book, "2026-09", &claims, &[&expected[0], &expected[1]]);
        // The bare date is midnight in the account's own zone.
        let segments: Vec<i64> = lines(&book, "2026-09", &claims, &Ledger::default())
            .iter()
            .map(|l| l.key.segment_start)
            .collect();
        assert_eq!(segments, [1_788_235_200, 1_789_531_200]);
    }
}

/// Five are used all September. Two are purchased until the 20th (plan p), three more from the 11th
/// to the 25th (plan q). To the 10th: 3 over, 10 days, at 1. From the 11th, under the newer plan:
/// nothing over to the 20th, then 2 over for 5 days, at 2. From the 26th: no purchase, no plan.
#[test]
fn purchases_start_and_end_in_mid_month() {
    let purchases = format!(
        "{PURCHASES}1,sa,va,PLUS,2,2026-01-01,2026-09-21,p\n2,sa,va,PLUS,3,2026-09-11,2026-09-26,q\n"
    );
    let prices = format!(
        "{PRICES}p,PLUS,usage,2026-01-01,license-days,flat,,1,,USD\nq,PLUS,usage,2026-01-01,license-days,flat,,2,,USD\n"
    );
    let book = book(&[
        ("accounts", &accounts("USD", "UTC")),
        ("devices", DEVICES),
        ("purchases", &purchases),
        ("prices", &prices),
    ]);
    let claims = [claim("A", "PLUS", "2026-09-01", "2026-10-01", 5)];
    check(
        &book,
        "2026-09",
        &claims,
        &[
            "usage charge 2026-09 50 20 30 30.00",
            // P: 5 for 10 days, 3 for 5 days.
            "usage charge 2026-09 75 65 10 20.00",
        ],
    );
    let charges = compute(&book, "2026-09".parse().unwrap(), &claims);
    let excepted: Vec<_> =
        charges.exceptions.iter().map(|(k, s)| (k.reason.as_str(), *s)).collect();
    assert_eq!(excepted, [("price-unknown", 5 * 5 * 86_400)]);
}

/// A blank plan of the newest purchase is no plan, whatever older purchases say.
#[test]
fn a_blank_plan_is_no_plan() {
    let purchases =
        format!("{PURCHASES}1,sa,va,PLUS,2,2026-01-01,,p\n2,sa,va,PLUS,1,2026-02-01,,\n");
    let prices = format!("{PRICES}p,PLUS,usage,2026-01-01,peak,flat,,1,,USD\n");
    let book = book(&[
        ("accounts", &accounts("USD", "UTC")),
        ("devices", DEVICES),
        ("purchases", &purchases),
        ("prices", &prices),
    ]);
    check(&book, "2026-09", &[claim("A", "PLUS", "2026-09-01", "2026-10-01", 5)], &[]);
}

/// A switchover on the 16th: the old and the new active both report the same week, and both name
/// each other. Usage of one group: 3 for 30 days, not 3 for 37.
///
/// R6.6.
#[test]
fn a_switchover_reported_twice_counts_once() {
    let book = postpaid(
        "USD",
        "UTC",
        "UNCOMMITTED,",
        "p,ADV,usage,2026-01-01,license-days,flat,,1,,USD\n",
    );
    let mut old = claim("A", "ADV", "2026-09-01", "2026-09-20", 3);
    let mut new = claim("B", "ADV", "2026-09-13", "2026-10-01", 3);
    let alone = [old.clone(), new.clone()];
    (old.group, new.group) = ("A+B".to_owned(), "A+B".to_owned());
    check(&book, "2026-09", &[old, new], &["usage charge 2026-09 90 0 90 90.00"]);
    // The same reports of two devices that are no group: 3 × 19 + 3 × 18.
    check(&book, "2026-09", &alone, &["usage charge 2026-09 111 0 111 111.00"]);
}

/// Five are committed. Three used: the commitment is due, nothing over. Eight used: three over too.
#[test]
fn a_commitment_is_due_whatever_is_used() {
    let prices = "p,ADV,usage,2026-01-01,average,flat,,4,,USD\np,ADV,commit,2026-01-01,average,flat,,2.5,,USD\n";
    let book = postpaid("USD", "UTC", "COMMITTED,5", prices);
    check(&book, "2026-09", &[], &["commit charge 2026-09 0 5 5 12.50"]);
    let used = |n| [claim("A", "ADV", "2026-09-01", "2026-10-01", n)];
    check(&book, "2026-09", &used(3), &["commit charge 2026-09 3 5 5 12.50"]);
    check(
        &book,
        "2026-09",
        &used(8),
        &["usage charge 2026-09 8 5 3 12.00", "commit charge 2026-09 8 5 5 12.50"],
    );
}

/// A subscription that turns out to be uncommitted has no commitment any more, whatever is used: what was posted of
/// it goes, and the five that it covered are charged as the other three.
#[test]
fn a_commitment_that_was_none_vanishes() {
    let prices = "p,ADV,usage,2026-01-01,average,flat,,4,,USD\np,ADV,commit,2026-01-01,average,flat,,2.5,,USD\n";
    let used = [claim("A", "ADV", "2026-09-01", "2026-10-01", 8)];
    let mut ledger = Ledger::default();
    let committed = postpaid("USD", "UTC", "COMMITTED,5", prices);
    lines(&committed, "2026-09", &used, &ledger).iter().for_each(|l| ledger.take(l));
    let corrected =
        lines(&postpaid("USD", "UTC", "UNCOMMITTED,", prices), "2026-09", &used, &ledger);
    assert_eq!(
        shown(&corrected),
        ["usage adjustment 2026-09 8 0 5 20.00", "commit adjustment 2026-09 0 0 -5 -12.50"]
    );
}

/// HSECK9 is one item for both tags, and prepaid even on a PI in utility mode (R10.6).
#[test]
fn tags_that_stand_for_each_other_are_not_added() {
    let purchases = format!("{PURCHASES}1,sa,va,HSEC4,1,2026-01-01,,p\n");
    let prices = format!("{PRICES}p,HSECK9,usage,2026-01-01,peak,flat,,10,,USD\n");
    let book = book(&[
        ("accounts", &accounts("USD", "UTC")),
        ("devices", DEVICES),
        ("purchases", &purchases),
        ("prices", &prices),
    ]);
    let mut utility = claim("A", "HSEC", "2026-09-01", "2026-10-01", 3);
    utility.facts.utility = true;
    let claims = [utility, claim("A", "HSEC4", "2026-09-01", "2026-10-01", 2)];
    check(&book, "2026-09", &claims, &["usage charge 2026-09 3 1 2 20.00"]);
}

/// One licence for s seconds, by the hour, at 36 a licence-hour: s hundredths; and the minor units of
/// other currencies. Halves go to the even neighbour.
#[test]
fn amounts_are_rounded_once_half_to_even() {
    for (currency, price, seconds, expected) in [
        // 18 s are 0.005 h: at 1 exactly half a cent, down to even; 54 s are 1.5 cents, up to even.
        ("USD", "1", 18, "0.005 0.00"),
        ("USD", "1", 54, "0.015 0.02"),
        ("USD", "1", 90, "0.025 0.02"),
        ("JPY", "100", 90, "0.025 2"),
        ("JPY", "100", 126, "0.035 4"),
        ("BHD", "0.1", 18, "0.005 0.000"),
        ("BHD", "0.1", 54, "0.015 0.002"),
        // 1 s is 0.000277…, rounded to 0.000278 before it is rated.
        ("USD", "1000", 1, "0.000278 0.28"),
        ("USD", "0.123456789012", 3600 * 24 * 30, "720 88.89"),
    ] {
        let prices = format!("p,ADV,usage,2026-01-01,license-hours,flat,,{price},,{currency}\n");
        let book = postpaid(currency, "UTC", "UNCOMMITTED,", &prices);
        let mut one = claim("A", "ADV", "2026-09-01", "2026-09-02", 1);
        one.end = one.start + seconds;
        let quantity = expected.split(' ').next().unwrap();
        check(
            &book,
            "2026-09",
            &[one],
            &[&format!("usage charge 2026-09 {quantity} 0 {expected}")],
        );
    }
}

/// The share of verified licence-seconds: 10 days of 3 of which 2 days unverified.
#[test]
fn the_verified_share_is_of_licence_seconds() {
    let book = postpaid("USD", "UTC", "UNCOMMITTED,", "p,ADV,usage,2026-01-01,peak,flat,,1,,USD\n");
    let mut unverified = claim("A", "ADV", "2026-09-09", "2026-09-11", 3);
    unverified.facts.verified = false;
    let claims = [claim("A", "ADV", "2026-09-01", "2026-09-09", 3), unverified];
    let lines = lines(&book, "2026-09", &claims, &Ledger::default());
    assert_eq!(lines[0].verified_share, Some(800_000));
}

/// September is closed with 90; ten more days of one come late, then all of it proves wrong.
#[test]
fn late_usage_after_a_close_is_an_adjustment_in_the_next_open_month() {
    let book = postpaid(
        "USD",
        "UTC",
        "UNCOMMITTED,",
        "p,ADV,usage,2026-01-01,license-days,flat,,1,,USD\n",
    );
    let first = [claim("A", "ADV", "2026-09-01", "2026-10-01", 3)];
    let late = [first[0].clone(), claim("B", "ADV", "2026-09-01", "2026-09-11", 1)];
    let mut ledger = Ledger::default();
    let post = |ledger: &mut Ledger, claims: &[Claimed]| {
        let lines = lines(&book, "2026-09", claims, ledger);
        lines.iter().for_each(|l| ledger.take(l));
        (shown(&lines), lines)
    };
    let (shown, posted) = post(&mut ledger, &first);
    assert_eq!(shown, ["usage charge 2026-09 90 0 90 90.00"]);
    assert_eq!(post(&mut ledger, &first).0, [""; 0]);
    ledger.closed = BTreeSet::from(["2026-09".parse().unwrap(), "2026-10".parse().unwrap()]);
    let (shown, adjusted) = post(&mut ledger, &late);
    assert_eq!(shown, ["usage adjustment 2026-11 100 0 10 10.00"]);
    assert_eq!(adjusted[0].service_period.to_string(), "2026-09");
    assert_ne!(adjusted[0].line_id, posted[0].line_id);
    // A key whose first line is late is an adjustment too: there is no charge in another period.
    let other = [late[0].clone(), late[1].clone()].map(|mut c| {
        c.facts.tag = "PLUS".to_owned();
        c
    });
    assert_eq!(post(&mut ledger, &other).0, ["usage adjustment 2026-11 0 0 -100 -100.00"]);
    assert_eq!(post(&mut ledger, &late).0, ["usage adjustment 2026-11 100 0 100 100.00"]);
}

/// Reasons in their order, each with its licence-seconds.
///
/// R10.7.
#[test]
fn what_cannot_be_priced_is_an_exception_with_its_licence_seconds() {
    let book = postpaid("USD", "UTC", "UNCOMMITTED,", "");
    let day = |serial: &str, tag: &str| claim(serial, tag, "2026-09-01", "2026-09-02", 2);
    let mut named = day("A", "ADV");
    named.facts.subscription_id = "S9".to_owned();
    for (claim, expected) in [
        (day("Z", "NOT-THERE"), "not-in-catalog  NOT-THERE"),
        (day("Z", "ADV"), "account-unknown  ADV"),
        (named, "subscription-unknown S9 ADV"),
        (day("A", "ADV"), "price-unknown S1 ADV"),
        (day("A", "PLUS"), "price-unknown  PLUS"),
    ] {
        let exceptions = compute(&book, "2026-09".parse().unwrap(), &[claim]).exceptions;
        let shown: Vec<String> = exceptions
            .iter()
            .map(|(k, s)| format!("{} {} {} {s}", k.reason.as_str(), k.subscription_id, k.item))
            .collect();
        assert_eq!(shown, [format!("{expected} {}", 2 * 86_400)]);
    }
}
