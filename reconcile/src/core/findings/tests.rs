//! Findings, each by the smallest case.

use super::*;
use crate::core::history::made;
use crate::core::history::{History, Member, SubDeviceChange, Via};
use schemas::book::Book;
use std::sync::Arc;

const HSEC: &str = "DNA_HSEC";
const MRP: &str = "MRP_CLIENT";
const FAST: &str = "TIER_3";
const PLUS: &str = "PLUS";

fn book(authorizations: &[&str], devices: &[&str]) -> Book {
    let catalog = format!(
        "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence\n\
         {HSEC},DNA HSEC,export-controlled,perpetual,false,HSECK9\n\
         {MRP},MRP Client,enforced,perpetual,false,\n\
         {FAST},Throughput T3,enforced,perpetual,false,\n\
         {PLUS},Plus,unenforced,perpetual,false,"
    );
    let authorizations = format!(
        "udi_pid,udi_serial,kind,entitlement_tag,code_version,installed_at,returned_at\n{}",
        authorizations.join("\n")
    );
    let files = [
        ("catalog", catalog.as_str()),
        ("authorizations", &authorizations),
        ("devices", &made::devices(devices)),
    ];
    made::book(&files)
}

/// A report of a release, received when its usage ends.
fn heard(id: u64, tag: &str, release: &str, uses: &[(i64, i64, i64)]) -> Heard {
    let last = uses.iter().map(|u| u.1).max().unwrap_or(0);
    Heard { software_version: Arc::from(release), ..made::heard(id, last, tag, uses) }
}

fn of(pid: &str, book: &Book, reports: Vec<Heard>) -> Vec<Finding> {
    let mut history = History::default();
    history.heard.insert(Udi::new(pid, "a"), reports);
    history.sort();
    let reference = Reference::new(book);
    findings(&Fleet::new(book, &reference, &history))
}

/// The rules that a PI breaks.
fn rules(pid: &str, book: &Book, reports: Vec<Heard>) -> Vec<&'static str> {
    let mut rules: Vec<&str> =
        of(pid, book, reports).iter().map(|found| found.rule.as_str()).collect();
    rules.dedup();
    rules
}

/// R4.3, R4.4, R11.6: what permits the use of an enforced or export-controlled licence.
#[test]
fn what_stands_in_for_a_slac() {
    let of_pi = |pid: &str, rest: &str| format!("{pid},a,{rest}");
    for (pid, tag, release, authorization, found) in [
        ("ISR4331/K9", PLUS, "17.12.04", "", vec![]),
        ("ISR4331/K9", HSEC, "17.12.04", "", vec!["no-slac"]),
        ("ISR4331/K9", HSEC, "17.12.04", "SLAC,DNA_HSEC,,1970-01-01,", vec![]),
        ("ISR4331/K9", HSEC, "17.12.04", "SLAC,PLUS,,1970-01-01,", vec!["no-slac"]),
        ("ISR4331/K9", HSEC, "17.12.04", "SLAC,DNA_HSEC,,1970-02-01,", vec!["no-slac"]),
        (
            "ISR4331/K9",
            HSEC,
            "17.12.04",
            "SLAC,DNA_HSEC,,1970-01-01,1970-01-15",
            vec!["slac-returned"],
        ),
        ("ISR4331/K9", HSEC, "17.12.04", "SLAC,DNA_HSEC,,1970-01-01,1970-01-25", vec![]),
        ("ISR4331/K9", HSEC, "17.9.4", "PAK,DNA_HSEC,,1970-01-01,", vec![]),
        ("ISR4331/K9", HSEC, "17.9.4", "SLR,DNA_HSEC,,1970-01-01,", vec![]),
        ("ISR4331/K9", FAST, "17.12.04", "", vec!["no-slac"]),
        ("ISR4331/K9", FAST, "17.12.04", "SLAC,DNA_HSEC,,1970-01-01,", vec![]),
        ("C1100TG-1N24P32A", FAST, "17.12.04", "SLR,DNA_HSEC,,1970-01-01,", vec![]),
        ("C8300-1N1S-6T", FAST, "17.12.04", "SLAC,DNA_HSEC,,1970-01-01,", vec!["no-slac"]),
        ("C8300-1N1S-6T", FAST, "17.12.04", "SLAC,TIER_3,,1970-01-01,", vec![]),
        ("ISR4331/K9", MRP, "17.12.04", "SLAC,DNA_HSEC,,1970-01-01,", vec!["no-slac"]),
        ("C8000V", HSEC, "17.12.04", "PLR,DNA_HSEC,3,1970-01-01,", vec![]),
        (
            "C8000V",
            HSEC,
            "17.12.04",
            "PLR,DNA_HSEC,2,1970-01-01,",
            vec!["no-slac", "plr-code-version"],
        ),
    ] {
        let row = of_pi(pid, authorization);
        let rows = [row.as_str()];
        let book = book(if authorization.is_empty() { &[] } else { &rows }, &[]);
        let reports = vec![heard(1, tag, release, &[(10, 20, 2)])];
        assert_eq!(rules(pid, &book, reports), found, "{pid} {tag} {authorization}");
    }
}

/// What is found does not depend on how long the measurements are.
#[test]
fn a_measurement_is_looked_at_in_its_parts() {
    let one = || vec![heard(1, HSEC, "17.12.04", &[(10, 30, 2)])];
    for (authorizations, expected) in [
        // Returned, and the next one installed at that instant.
        (&["1970-01-01,1970-01-21", "1970-01-21,"][..], vec![]),
        (&["1970-01-01,1970-01-21", "1970-01-23,"], vec![("slac-returned", 20, 22)]),
        (&["1970-01-21,"], vec![("no-slac", 10, 20)]),
        (&["1970-01-21,1970-01-26"], vec![("no-slac", 10, 20), ("slac-returned", 25, 30)]),
    ] {
        let rows: Vec<String> = authorizations
            .iter()
            .map(|valid| format!("ISR4331/K9,a,SLAC,DNA_HSEC,,{valid}"))
            .collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let found: Vec<_> = of("ISR4331/K9", &book(&rows, &[]), one())
            .iter()
            .map(|found| (found.rule.as_str(), found.since / 86_400, found.last / 86_400))
            .collect();
        assert_eq!(found, expected, "{authorizations:?}");
    }
    // A code that was returned is none (R11.6).
    let returned =
        ["C8000V,a,PLR,DNA_HSEC,2,1970-01-01,1970-01-05", "C8000V,a,SLAC,DNA_HSEC,,1970-01-01,"];
    assert_eq!(rules("C8000V", &book(&returned, &[]), one()), [""; 0]);
}

/// R10.9: also of a PI that the book does not name.
#[test]
fn whoever_was_refused_is_found() {
    let book = book(&[], &[]);
    let mut history = History::default();
    history.refused.insert(Udi::new("C8000V", "z"), vec![(7, 100, "direct".to_owned())]);
    let reference = Reference::new(&book);
    let found = findings(&Fleet::new(&book, &reference, &history));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule.as_str(), "collector-not-allowed");
}

/// R4.6: one for each UDI; in a stack only the active's.
#[test]
fn high_availability_needs_a_slac_for_each() {
    let member = |role: &str, serial: &str| Member {
        udi: Udi::new("C8300-1N1S-6T", serial),
        role: role.to_owned(),
    };
    let pair = vec![member("Active", "a"), member("Standby", "b")];
    let stack = vec![member("Active", "a"), member("Member", "b"), member("Member", "c")];
    let (one, both) = (
        vec!["C8300-1N1S-6T,a,SLAC,DNA_HSEC,,1970-01-01,"],
        vec![
            "C8300-1N1S-6T,a,SLAC,DNA_HSEC,,1970-01-01,",
            "C8300-1N1S-6T,b,SLAC,DNA_HSEC,,1970-01-01,",
        ],
    );
    for (ha, authorizations, found) in
        [(&pair, &one, vec!["no-slac"]), (&pair, &both, vec![]), (&stack, &one, vec![])]
    {
        let book = book(authorizations, &[]);
        let report = Heard { ha: ha.clone().into(), ..heard(1, HSEC, "17.12.04", &[(10, 20, 2)]) };
        assert_eq!(rules("C8300-1N1S-6T", &book, vec![report]), found);
    }
}

/// R2.4, R10.4, R2.3, R10.3: how reports came.
#[test]
fn collectors_and_transports() {
    let managed = "C8000V,a,sa,va,1970-01-01,,vmanage,slp,,direct";
    for (collector, version, release, utility, device, found) in [
        ("cslu", "1.6.0", "17.12.04", false, "", vec![]),
        ("cslu", "1.6.0", "17.12.04", true, "", vec!["collector-too-old"]),
        ("cslu", "2.0.0", "17.12.04", true, "", vec![]),
        ("cslu", "2.0.0", "17.12.04", true, managed, vec!["cslu-under-vmanage"]),
        ("ssm-on-prem", "8-202012", "17.12.04", false, "", vec!["collector-too-old"]),
        ("ssm-on-prem", "8-202102", "17.12.04", false, "", vec![]),
        ("ssm-on-prem", "8-202102", "17.12.04", true, "", vec!["collector-too-old"]),
        ("ssm-on-prem", "", "17.12.04", true, "", vec![]),
        ("dna-center", "2.2.1", "17.12.04", false, "", vec!["collector-too-old"]),
        ("vmanage", "20.5.1", "17.5.1", false, managed, vec!["release-too-old-for-collector"]),
        ("vmanage", "20.5.1", "17.5.1a", false, managed, vec![]),
        ("vmanage", "20.5.1", "17.5.1a", true, managed, vec![]),
        ("vmanage", "20.5.1", "17.9.1", true, "", vec!["utility-release"]),
    ] {
        let rows = [device];
        let book = book(&[], if device.is_empty() { &[] } else { &rows });
        let via = Via {
            collector: collector.to_owned(),
            collector_version: version.to_owned(),
            ..Via::default()
        };
        let report = Heard {
            utility,
            via: Arc::new(via),
            ..heard(1, "unknown to the catalogue", release, &[(10, 20, 2)])
        };
        assert_eq!(rules("C8000V", &book, vec![report]), found, "{collector} {version} {release}");
    }
}

/// R6.1: ids that never came; what is suspended came, and a numbering begun anew loses nothing.
#[test]
fn gaps_between_ids() {
    let report = |id: u64| {
        let day = i64::try_from(id % 1000).unwrap();
        heard(id, PLUS, "17.12.04", &[(day, day + 1, 2)])
    };
    let lost = |ids: &[u64], suspended: &[u64]| -> Vec<u64> {
        let mut history = History::default();
        let udi = Udi::new("C8000V", "a");
        history.heard.insert(udi.clone(), ids.iter().map(|id| report(*id)).collect());
        history.suspended_ids.insert(udi, suspended.to_vec());
        history.sort();
        let book = book(&[], &[]);
        let reference = Reference::new(&book);
        let found = findings(&Fleet::new(&book, &reference, &history));
        found.into_iter().flat_map(|f| f.reports).collect()
    };
    assert_eq!(lost(&[1, 2, 3], &[]), Vec::<u64>::new());
    assert_eq!(lost(&[3, 1, 2], &[]), Vec::<u64>::new());
    assert_eq!(lost(&[1, 4], &[]), [2, 3]);
    assert_eq!(lost(&[1, 4], &[2]), [3]);
    assert_eq!(lost(&[1, 4, 6], &[2, 3]), [5]);
    assert_eq!(lost(&[1, 1_624_536_580], &[]), Vec::<u64>::new());
}

/// R6.6: what is added and removed, replayed, against what is counted; copies change nothing.
#[test]
fn sub_devices_are_replayed() {
    let change = |measurement, is_added, serial: &str| SubDeviceChange {
        measurement,
        is_added,
        udi: Udi::new("SUB", serial),
    };
    let first = Heard {
        sub_devices: vec![change(0, true, "x"), change(0, true, "y"), change(1, false, "x")].into(),
        ..heard(1, PLUS, "17.12.04", &[(1, 2, 2), (2, 3, 1)])
    };
    let copied = Heard { report_id: 2, ..first.clone() };
    let book = book(&[], &[]);
    assert_eq!(rules("C8300-1N1S-6T", &book, vec![first.clone(), copied]), Vec::<&str>::new());
    let wrong = heard(2, PLUS, "17.12.04", &[(3, 4, 2)]);
    let found = of("C8300-1N1S-6T", &book, vec![first, wrong]);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rule, &found[0].reports[..]), (Rule::SubDeviceCount, &[2][..]));
}

/// R6.4, R6.3, R6.7, R10.8, R11.4: each by the smallest case.
#[test]
fn the_smallest_cases() {
    let by = |id: u64, account: &str, collection: &str| {
        let via = Via {
            collection: collection.to_owned(),
            account: Some((account.to_owned(), "va".to_owned())),
            ..Via::default()
        };
        Heard { via: Arc::new(via), ..heard(id, PLUS, "17.9.4a", &[(1, 2, 2)]) }
    };
    let book = book(&[], &[]);
    let pid = "C8300-1N1S-6T";
    assert_eq!(rules(pid, &book, vec![by(1, "sa", "push")]), Vec::<&str>::new());
    assert_eq!(rules(pid, &book, vec![by(1, "sa", "push"), by(2, "sa", "push")]), ["throttle"]);
    assert_eq!(
        rules(pid, &book, vec![by(1, "sa", "pull"), by(2, "sa", "pull")]),
        Vec::<&str>::new()
    );
    assert_eq!(
        rules(pid, &book, vec![by(1, "sa", "pull"), by(2, "sb", "pull")]),
        ["account-moved"]
    );
    let old = Heard { layout: 1, ..heard(1, PLUS, "17.6.5", &[(1, 3, 2)]) };
    let new = |start| heard(2, PLUS, "17.9.1a", &[(start, 4, 2)]);
    assert_eq!(rules(pid, &book, vec![old.clone(), new(2)]), ["overlap-across-17-7-1"]);
    assert_eq!(rules(pid, &book, vec![old, new(3)]), Vec::<&str>::new());
    let other = Heard { utility: true, ..heard(1, PLUS, "17.9.1a", &[(1, 2, 0)]) };
    assert_eq!(rules("ISRV", &book, vec![other.clone()]), ["utility-product"]);
    assert_eq!(rules("C8000V", &book, vec![other]), Vec::<&str>::new());
}

/// R6.7: a breach that outlasts a move is one of each account, for as long as it holds the PI.
#[test]
fn a_breach_of_a_pi_that_moved() {
    let rows = [
        "C8300-1N1S-6T,a,sa,va,1970-01-01,1970-01-11,none,slp,,partner",
        "C8300-1N1S-6T,a,sb,vb,1970-01-11,,none,slp,,partner",
    ];
    let reports = vec![
        heard(1, HSEC, "17.12.04", &[(2, 8, 1)]),
        heard(2, HSEC, "17.12.04", &[(8, 15, 3)]),
        heard(5, HSEC, "17.12.04", &[(15, 20, 2)]),
        heard(7, HSEC, "17.12.04", &[(20, 22, 0)]),
    ];
    let found: Vec<String> = of("C8300-1N1S-6T", &book(&[], &rows), reports)
        .iter()
        .map(|f| {
            let (rule, days) = (f.rule.as_str(), (f.since / DAY, f.last / DAY));
            format!("{rule} {:?} {days:?} {} {:?}", f.account, f.licenses, f.reports)
        })
        .collect();
    // Days 2 to 10 and 10 to 20; of ids, 3, 4 and 6 never came, all after day 10.
    let expected = [
        "no-slac Some(0) (2, 10) 3 [1, 2]",
        "no-slac Some(1) (10, 20) 3 [2, 5]",
        "report-id-gap Some(1) (15, 20) 0 [3, 4, 6]",
    ];
    assert_eq!(found, expected);
}
