//! Who reports for whom, as a table: what was reported in its order, which devices the book holds no more.

use std::collections::HashSet;

use super::*;
use crate::core::history::made::{self, devices, heard};
use crate::core::history::{History, Member};
use crate::core::reference::Reference;

/// Who reports for each PI, as `b by a`, on day 100. A report is `reporter:members` (in the order of its receipt, one a
/// day), or `reporter@day:members`.
fn actives(reports: &[&str], retired: &[&str]) -> String {
    let udi = |serial: &str| Udi::new("C8000V", serial);
    // `!b` is not in the book at all.
    let rows: Vec<String> = ["a", "b", "c"]
        .iter()
        .filter(|serial| !retired.contains(&format!("!{serial}").as_str()))
        .map(|serial| {
            let until = if retired.contains(serial) { "1970-03-01" } else { "" };
            format!("C8000V,{serial},sa,va,1970-01-01,{until},none,slp,,partner")
        })
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let book = made::book(&[("devices", &devices(&rows))]);
    let mut history = History::default();
    for (i, report) in (1..).zip(reports) {
        let (head, members) = report.split_once(':').unwrap();
        let (by, day) = head.split_once('@').map_or((head, i), |(by, d)| (by, d.parse().unwrap()));
        let members: Vec<Member> = members
            .chars()
            .map(|serial| Member { udi: udi(&serial.to_string()), role: String::new() })
            .collect();
        let told = Heard { ha: members.into(), ..heard(i as u64, day, "T", &[(i - 1, i, 1)]) };
        history.heard.entry(udi(by)).or_default().push(told);
    }
    history.sort();
    let reference = Reference::new(&book);
    let fleet = Fleet::new(&book, &reference, &history);
    let groups: HashMap<Udi, u64> = history.groups(HashSet::new()).finish().into_iter().collect();
    let actives = Actives::new(&fleet, &groups, 100 * 86_400);
    let of = |serial: &&str| Some(format!("{serial} by {}", actives.of(&udi(serial))?.serial));
    ["a", "b", "c"].iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

/// R5.5, R6.6.
#[test]
fn the_last_that_reported_reports_for_those_it_names() {
    for (reports, retired, expected) in [
        (&["a:ab"][..], &[][..], "b by a"),
        (&["a:ab", "b:ab"], &[], "a by b"),
        (&["a:ab", "b:ab", "a:ab"], &[], "b by a"),
        (&["a:abc", "c:abc"], &[], "a by c, b by c"),
        (&["a:", "b:"], &[], ""),
        // Received together: the one that speaks of later.
        (&["b@5:ab", "a@5:ab"], &[], "b by a"),
        // An old report that comes late.
        (&["a@9:ab", "b@5:ab"], &[], "a by b"),
        // They parted: b reports for itself.
        (&["a:ab", "a:", "b:"], &[], ""),
        (&["a:ab", "b:", "a:"], &[], ""),
        // b does not name a, but is named by c, whom it reported for.
        (&["a:ab", "b:ab", "c:bc"], &[], "a by c, b by c"),
        // The book holds the active no more.
        (&["a:ab"], &["a"], "a by b"),
        (&["a:abc"], &["a"], "a by b, c by b"),
        (&["a:abc"], &["a", "b"], "a by c, b by c"),
        (&["a:ab"], &["b"], "b by a"),
        // Who is in no table owes nothing in another's place.
        (&["a:abc"], &["a", "!b"], "a by c, b by c"),
        (&["a:ab"], &["a", "!b"], "b by a"),
        (&["a:ab", "b:ab"], &["a"], "a by b"),
        (&["a:ab"], &["a", "b"], "b by a"),
        // b left a for c, and is gone: a reports for itself.
        (&["a:ab", "b:bc"], &["b"], "b by c"),
    ] {
        assert_eq!(actives(reports, retired), expected, "{reports:?} without {retired:?}");
    }
}
