//! What a run may leave out: computed anew in part, everything comes to what it comes to in full.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use proptest::prelude::*;
use reconcile::core::attribute::{Exceptions, Usage, Used};
use reconcile::core::changed::{
    Affected, Bearing, Named, Touched, affected, of_books, of_groups, take_named,
};
use reconcile::core::charge::{Target, charges};
use reconcile::core::claims::{Claims, Group};
use reconcile::core::groups::Groups;
use reconcile::core::reference::{Month, Reference};
use reconcile::core::timeline::{Claim, ReportFacts, max_join};
use schemas::book::{AccountId, Book};
use schemas::period::Period;
use schemas::udi::Udi;

use super::{PRICES, PURCHASES, SUBSCRIPTIONS, book};

const ACCOUNTS: usize = 4;
const PIS: usize = 6;
const TAGS: [&str; 5] = ["ADV", "PLUS", "HSEC", "HSEC4", "UNKNOWN"];
const DAY: i64 = 86_400;

/// One report with one measurement, in days of the month (and the days around it).
#[derive(Clone, Debug)]
struct Report {
    pi: usize,
    tag: usize,
    start: i64,
    days: i64,
    value: i64,
    header: Option<usize>,
    mate: Option<usize>,
}

/// What the book says.
#[derive(Clone, Debug, PartialEq)]
struct Terms {
    /// Accounts that the book has.
    accounts: [bool; ACCOUNTS],
    /// Of each PI the accounts that hold it: until a day, and after it.
    holders: [(Option<usize>, u32, Option<usize>); PIS],
    /// Of each account the plan of its subscription, if it has one.
    plans: [Option<u8>; ACCOUNTS],
    purchased: [u64; ACCOUNTS],
    prices: [u64; 2],
    zones: [bool; ACCOUNTS],
}

fn udi(pi: usize) -> Udi {
    Udi::new("P", format!("S{pi}"))
}

fn id(account: usize) -> AccountId {
    AccountId { smart: format!("sa{account}"), virtual_: "va".to_owned() }
}

impl Terms {
    fn has(&self, account: Option<usize>) -> Option<usize> {
        account.filter(|&a| self.accounts[a])
    }

    fn book(&self) -> Book {
        let mut accounts = "smart_account,virtual_account,customer,currency,time_zone\n".to_owned();
        let mut devices = "udi_pid,udi_serial,smart_account,virtual_account,valid_from,valid_to,managed_by,license_model,transport,channel\n".to_owned();
        let (mut subscriptions, mut purchases) = (SUBSCRIPTIONS.to_owned(), PURCHASES.to_owned());
        for a in (0..ACCOUNTS).filter(|&a| self.accounts[a]) {
            let zone = if self.zones[a] { "America/New_York" } else { "UTC" };
            accounts += &format!("sa{a},va,C{a},USD,{zone}\n");
            if let Some(plan) = self.plans[a] {
                let model = if a == 0 { "COMMITTED,2" } else { "UNCOMMITTED," };
                subscriptions += &format!("S{a},sa{a},va,ADV,{model},p{plan},2026-01-01,\n");
            }
            for tag in ["PLUS", "HSEC"] {
                let quantity = self.purchased[a];
                purchases +=
                    &format!("{a}-{tag},sa{a},va,{tag},{quantity},2026-01-01,,p{}\n", a % 2);
            }
        }
        for (pi, (before, day, after)) in self.holders.iter().enumerate() {
            let day = format!("2026-09-{day:02}");
            for (account, from, to) in [(before, "2026-01-01", &*day), (after, &day, "")] {
                if let Some(a) = self.has(*account) {
                    devices += &format!("P,S{pi},sa{a},va,{from},{to},cslu,slp,cslu,direct\n");
                }
            }
        }
        let mut prices = PRICES.to_owned();
        for (plan, price) in self.prices.iter().enumerate() {
            for item in ["ADV", "PLUS"] {
                prices +=
                    &format!("p{plan},{item},usage,2026-01-01,license-days,flat,,{price},,USD\n");
            }
        }
        book(&[
            ("accounts", &accounts),
            ("devices", &devices),
            ("subscriptions", &subscriptions),
            ("purchases", &purchases),
            ("prices", &prices),
        ])
    }
}

fn groups(reports: &[Report]) -> Groups {
    let mut groups = Groups::new(HashSet::new());
    for report in reports {
        if let Some(mate) = report.mate {
            groups.join(&udi(report.pi), &[udi(report.pi), udi(mate)]);
        }
    }
    groups
}

/// From the first to the last second that is read for the month: in some account's zone they are of it.
fn span(reference: &Reference<'_>) -> (i64, i64) {
    let utc = Month::new(period(), &jiff::tz::TimeZone::UTC).span;
    let months = reference.months(period());
    let spans = || months.iter().map(|month| month.span).chain([utc]);
    (spans().map(|s| s.start).min().unwrap(), spans().map(|s| s.end).max().unwrap())
}

/// True if it is read for the month.
fn touches(report: &Report, (from, to): (i64, i64)) -> bool {
    let begins = start() + report.start * DAY;
    report.value > 0 && begins + report.days * DAY > from && begins < to
}

fn start() -> i64 {
    period().bounds(&jiff::tz::TimeZone::UTC).0
}

fn period() -> Period {
    "2026-09".parse().unwrap()
}

/// The claims of some PIs, as the engine collects them.
fn claims(reports: &[Report], of: impl Fn(&Udi) -> bool, reference: &Reference<'_>) -> Claims {
    let groups: BTreeMap<Udi, u64> = groups(reports).finish().into_iter().collect();
    let mut all = Claims::default();
    let span = span(reference);
    let read = |r: &Report| of(&udi(r.pi)) && touches(r, span);
    for (number, report) in reports.iter().enumerate().filter(|(_, r)| read(r)) {
        let udi = udi(report.pi);
        let pi = all.names.pi(&udi.pid, &udi.serial).0;
        let group = groups.get(&udi).map_or(Group::Alone(pi), |g| Group::Several(*g));
        let tag = TAGS[report.tag];
        let item = all.names.text(reference.item(tag));
        let header = report.header.map(id);
        let facts = ReportFacts {
            payload_sha256: schemas::merkle::digest(&number.to_be_bytes()),
            report_id: number as u64,
            pi,
            tag: all.names.text(tag),
            subscription: all.names.text(""),
            header_account: header
                .map(|id| (all.names.text(&id.smart), all.names.text(&id.virtual_))),
            utility: tag == "ADV",
            verified: true,
        };
        let from = start() + report.start * DAY;
        let claim =
            Claim { start: from, end: from + report.days * DAY, value: report.value, report: 0 };
        all.add(group, item, facts, std::iter::once(claim));
    }
    all
}

/// By account, blank where there is none: what is due, and what is excepted.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    targets: BTreeMap<AccountId, Vec<Target>>,
    exceptions: BTreeMap<Option<AccountId>, Exceptions>,
}

fn outcome(
    claims: &Claims,
    book: &Book,
    of: impl Fn(&AccountId) -> bool,
) -> (Outcome, HashSet<Udi>) {
    let reference = Reference::new(book);
    let months = reference.months(period());
    let utc = Month::new(period(), &jiff::tz::TimeZone::UTC).span;
    let mut usage = Usage::new(&reference, &months, utc);
    for (item, of_group) in claims.groups() {
        usage.add(
            item,
            &max_join(of_group, &claims.facts, &claims.names),
            &claims.facts,
            &claims.names,
        );
    }
    let Used { mut keys, exceptions, unattributed } = usage.finish();
    keys.retain(|key, _| of(&book.accounts[key.account].id));
    let charges = charges(&reference, &months, keys, exceptions).unwrap();
    let mut outcome = Outcome::default();
    for target in charges.targets {
        let (smart, virtual_) =
            (target.key.smart_account.clone(), target.key.virtual_account.clone());
        let id = AccountId { smart, virtual_ };
        // Of what was neither used nor is due there is no line, whether or not it is a target.
        if of(&id) && (target.quantity, target.amount) != (0, 0) {
            outcome.targets.entry(id).or_default().push(target);
        }
    }
    for (key, seconds) in charges.exceptions.into_iter().filter(|(_, seconds)| *seconds > 0) {
        let id = key.account.map(|a| book.accounts[a].id.clone());
        if id.as_ref().is_none_or(&of) {
            let key = reconcile::core::attribute::ExceptionKey { account: None, ..key };
            outcome.exceptions.entry(id).or_default().insert(key, seconds);
        }
    }
    (outcome, unattributed)
}

fn report() -> impl Strategy<Value = Report> {
    let account = || prop::option::of(0..ACCOUNTS);
    let mate = prop::option::weighted(0.15, 0..PIS);
    (0..PIS, 0..TAGS.len(), -4i64..32, 1i64..9, 0i64..4, account(), mate).prop_map(
        |(pi, tag, start, days, value, header, mate)| Report {
            pi,
            tag,
            start,
            days,
            value,
            header,
            mate,
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let account = || prop::option::weighted(0.8, 0..ACCOUNTS);
    (
        prop::array::uniform4(prop::bool::weighted(0.9)),
        prop::array::uniform6((account(), 1u32..30, account())),
        prop::array::uniform4(prop::option::weighted(0.8, 0u8..2)),
        prop::array::uniform4(0u64..4),
        prop::array::uniform2(1u64..5),
        prop::array::uniform4(any::<bool>()),
    )
        .prop_map(|(accounts, holders, plans, purchased, prices, zones)| Terms {
            accounts,
            holders,
            plans,
            purchased,
            prices,
            zones,
        })
}

/// A book in which a few things of another one are otherwise.
fn changes() -> impl Strategy<Value = (Terms, Terms)> {
    (terms(), terms(), prop::collection::vec((0usize..6, 0usize..6), 0..3)).prop_map(
        |(before, other, which)| {
            let mut now = before.clone();
            for (what, i) in which {
                let account = i % ACCOUNTS;
                match what {
                    0 => now.accounts[account] = other.accounts[account],
                    1 => now.holders[i] = other.holders[i],
                    2 => now.plans[account] = other.plans[account],
                    3 => now.purchased[account] = other.purchased[account],
                    4 => now.prices[i % 2] = other.prices[i % 2],
                    _ => now.zones[account] = other.zones[account],
                }
            }
            (before, now)
        },
    )
}

fn zones(book: &Book) -> BTreeSet<&str> {
    book.accounts.iter().map(|account| &*account.zone_name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Accounts that are not affected come to what they came to; those that are, come from the PIs that
    /// bear on them to what they come to from all.
    #[test]
    fn a_part_comes_to_what_the_whole_comes_to(
        (before, now) in changes(),
        old in prop::collection::vec(report(), 0..14),
        new in prop::collection::vec(report(), 0..3),
    ) {
        let (book_before, book_now) = (before.book(), now.book());
        let all: Vec<Report> = old.iter().chain(&new).cloned().collect();

        // What the earlier run left.
        let reference = Reference::new(&book_before);
        let claims_before = claims(&old, |_| true, &reference);
        let (came_to, unattributed) = outcome(&claims_before, &book_before, |_| true);
        let mut named = Named::new();
        take_named(&mut named, &claims_before);
        let bearing = Bearing { groups: groups(&old).members(), named, unattributed };

        // What came since.
        let Some(mut touched) = of_books(&book_before, &book_now) else {
            // The catalogue stays.
            prop_assert_ne!(zones(&book_before), zones(&book_now));
            return Ok(());
        };
        prop_assert!(before != now || touched == Touched::default());
        let reference_now = Reference::new(&book_now);
        let span = span(&reference_now);
        let mut named = Named::new();
        for report in new.iter().filter(|report| touches(report, span)) {
            touched.pis.insert(udi(report.pi));
            if let Some(account) = report.header {
                named.entry(id(account)).or_default().insert(udi(report.pi));
            }
        }
        let members = groups(&all).members();
        touched.pis.extend(of_groups(&bearing.groups, &members));
        let Affected { accounts, pis } = affected(touched, &bearing, &named, &members, &book_now);

        let reference = reference_now;
        let (whole, _) = outcome(&claims(&all, |_| true, &reference), &book_now, |_| true);
        let of = |id: &AccountId| accounts.contains(id);
        let part = claims(&all, |udi| pis.contains(udi), &reference);
        let (part, _) = outcome(&part, &book_now, of);
        let ids: BTreeSet<AccountId> = (0..ACCOUNTS).map(id).collect();
        for id in &ids {
            let expected = if of(id) { &part } else { &came_to };
            prop_assert_eq!(whole.targets.get(id), expected.targets.get(id), "{} of {:?}", id, &accounts);
            let id = Some(id.clone());
            prop_assert_eq!(whole.exceptions.get(&id), expected.exceptions.get(&id), "{:?}", &accounts);
        }
        prop_assert_eq!(whole.exceptions.get(&None), part.exceptions.get(&None));
    }
}

#[test]
fn what_is_the_same_touches_nobody() {
    let terms = Terms {
        accounts: [true; 4],
        holders: [
            (Some(0), 10, Some(1)),
            (Some(2), 3, None),
            (None, 3, None),
            (Some(3), 4, Some(3)),
            (Some(1), 9, Some(2)),
            (Some(0), 5, Some(3)),
        ],
        plans: [Some(0), Some(1), None, Some(1)],
        purchased: [1, 2, 3, 4],
        prices: [2, 3],
        zones: [false, true, false, true],
    };
    let of = |now: &Terms| of_books(&terms.book(), &now.book()).unwrap();
    assert_eq!(of(&terms), Touched::default());
    let accounts = |touched: Touched| -> Vec<String> {
        touched.accounts.into_iter().map(|id| id.smart).collect()
    };
    // Plan p0 is that of account 0's subscription, and of the purchases of 0 and 2.
    assert_eq!(accounts(of(&Terms { prices: [9, 3], ..terms.clone() })), ["sa0", "sa2"]);
    assert_eq!(accounts(of(&Terms { purchased: [1, 2, 3, 5], ..terms.clone() })), ["sa3"]);
    let mut moved = terms.clone();
    moved.holders[1] = (Some(2), 4, None);
    let of_device = of(&moved);
    assert_eq!(of_device.pis, HashSet::from([udi(1)]));
    assert_eq!(accounts(of_device), ["sa2"]);
    // A catalogue concerns everybody.
    let mut other = terms.book();
    other.catalog.pop();
    assert_eq!(of_books(&terms.book(), &other), None);
    // A zone that no account had makes the month longer: what is read of it is not known then.
    let all_utc = Terms { zones: [false; 4], ..terms.clone() };
    assert_eq!(of_books(&all_utc.book(), &terms.book()), None);
    let moved = Terms { zones: [true, true, false, true], ..terms.clone() };
    // Bare dates of its devices, and so those of who had them before and after, move too.
    assert_eq!(accounts(of(&moved)), ["sa0", "sa1", "sa3"]);
}
