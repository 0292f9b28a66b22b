//! Coverage of PIs in HA, and of those that moved.

use std::collections::HashSet;

use schemas::period::Period;

use super::*;
use crate::core::deadlines::{DAY, deadlines};
use crate::core::history::made::{self, devices, heard};
use crate::core::history::{History, Member};
use crate::core::reference::Reference;

const TAG: &str = "ADV";

/// Rows of March 1970 (days 59 to 90), as `serial account state covered/expected`, in days.
fn march(rows: &[&str], reports: Vec<(&str, Heard)>, at: i64) -> Vec<String> {
    let catalog = "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence\n\
                   ADV,Advantage,unenforced,subscription,true,";
    let book = made::book(&[("catalog", catalog), ("devices", &devices(rows))]);
    let mut history = History::default();
    for (serial, heard) in reports {
        history.heard.entry(Udi::new("C8000V", serial)).or_default().push(heard);
    }
    history.sort();
    let reference = Reference::new(&book);
    let fleet = Fleet::new(&book, &reference, &history);
    let groups: HashMap<Udi, u64> = history.groups(HashSet::new()).finish().into_iter().collect();
    let owed = deadlines(&fleet, &book, &groups, at * DAY);
    let months = reference.months("1970-03".parse::<Period>().unwrap());
    let utc = months[0].span;
    coverage(&fleet, &owed, &groups, &months, utc, at * DAY)
        .into_iter()
        .map(|one| {
            let of = one.account.map_or("nobody", |a| reference.accounts[a].id.smart.as_str());
            let (covered, expected) = (one.covered / DAY, one.expected / DAY);
            format!("{} {of} {} {covered}/{expected}", one.udi.serial, one.state)
        })
        .collect()
}

/// R6.7: a month is covered for whoever held the PI then.
#[test]
fn a_pi_that_moved() {
    let rows = [
        "C8000V,s,sa,va,1970-01-01,1970-03-11,none,slp,,partner",
        "C8000V,s,sb,vb,1970-03-11,,none,slp,,partner",
    ];
    // Day 69 is 11 March.
    let reports =
        vec![("s", heard(1, 66, TAG, &[(40, 66, 2)])), ("s", heard(2, 90, TAG, &[(72, 90, 2)]))];
    assert_eq!(march(&rows, reports.clone(), 100), ["s sa gap 7/10", "s sb gap 18/21"]);
    assert_eq!(
        march(&rows, reports[..1].to_vec(), 100),
        ["s sa pending 7/10", "s sb pending 0/21"]
    );
    // As of a day before it moved, nothing is expected of the other.
    assert_eq!(march(&rows, reports[..1].to_vec(), 68), ["s sa pending 7/9"]);
    let moved_later = [
        "C8000V,s,sa,va,1970-01-01,1970-04-05,none,slp,,partner",
        "C8000V,s,sb,vb,1970-04-05,,none,slp,,partner",
    ];
    assert_eq!(march(&moved_later, reports, 100), ["s sa gap 25/31"]);
}

fn pair(by: Heard, members: &[&str]) -> Heard {
    let member = |serial: &&str| Member { udi: Udi::new("C8000V", *serial), role: String::new() };
    Heard { ha: members.iter().map(member).collect(), ..by }
}

/// R6.6: whoever reports covers the others; what is left of a pair owes what the pair did.
#[test]
fn pairs() {
    let rows = |until: &str| {
        [
            format!("C8000V,a,sa,va,1970-01-01,{until},none,slp,,partner"),
            "C8000V,b,sa,va,1970-01-01,,none,slp,,partner".to_owned(),
        ]
    };
    let of = |until: &str, reports: Vec<(&str, Heard)>, at| {
        let rows = rows(until);
        march(&[rows[0].as_str(), rows[1].as_str()], reports, at)
    };
    let by_a = ("a", pair(heard(1, 70, TAG, &[(40, 70, 2)]), &["a", "b"]));
    let by_b = ("b", pair(heard(1, 90, TAG, &[(70, 90, 0)]), &["a", "b"]));
    assert_eq!(of("", vec![by_a.clone(), by_b.clone()], 100), ["b sa covered 31/31"]);
    // 90 days after its last report (R5.2) the pair is silent, though the active is not there any more.
    assert_eq!(of("", vec![by_a.clone()], 100), ["a sa pending 11/31"]);
    assert_eq!(of("", vec![by_a.clone()], 160), ["a sa silent 11/31"]);
    assert_eq!(of("1970-03-20", vec![by_a.clone()], 160), ["b sa silent 11/31"]);
    // In two accounts: each is told of the time in which its own member spoke, or had spoken last.
    let apart = [
        "C8000V,a,sa,va,1970-01-01,,none,slp,,partner",
        "C8000V,b,sb,vb,1970-01-01,,none,slp,,partner",
    ];
    let later = ("b", pair(heard(1, 95, TAG, &[(75, 90, 1)]), &["a", "b"]));
    let both = vec![by_a.clone(), later];
    assert_eq!(march(&apart, both, 100), ["b sa gap 11/16", "b sb covered 15/15"]);
    // They parted: each covers its own.
    let alone = ("b", heard(2, 95, TAG, &[(70, 90, 2)]));
    let still = ("a", heard(2, 95, TAG, &[(70, 80, 2)]));
    let parted = of("", vec![by_a, alone, still], 100);
    assert_eq!(parted, ["a sa pending 21/31", "b sa covered 31/31"]);
}
