//! Who held a PI when.

use super::made::{self, devices, heard};
use super::*;

const DAY: EpochSeconds = 86_400;

/// The accounts of a PI, each with the day from which on it holds it.
fn holders(rows: &[&str], headers: &[(i64, &str)]) -> String {
    let book = made::book(&[("devices", &devices(rows))]);
    let udi = Udi::new("C8000V", "s");
    let of_headers = |(day, account): &(i64, &str)| {
        let account = account.split_once('/').map(|(s, v)| (s.to_owned(), v.to_owned()));
        let via = Arc::new(Via { account, ..Via::default() });
        Heard { via, ..heard(*day as u64, day + 1, "T", &[(*day, day + 1, 1)]) }
    };
    let mut history = History::default();
    history.heard.insert(udi.clone(), headers.iter().map(of_headers).collect());
    history.sort();
    let reference = Reference::new(&book);
    let fleet = Fleet::new(&book, &reference, &history);
    let text = |(account, span): &(Option<usize>, Span)| {
        let account = account.map_or("nobody", |a| reference.accounts[a].id.smart.as_str());
        let from = if span.start == EpochSeconds::MIN { 0 } else { span.start / DAY };
        format!("{account} {from}")
    };
    let holders = fleet.pi(&udi).holders();
    assert!(holders.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
    assert_eq!(holders.last().map(|(_, span)| span.end), Some(EpochSeconds::MAX));
    holders.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// Contract 3.3: by the book, else by the headers; R6.7.
#[test]
fn who_held_it_when() {
    let row = |account: &str, from: &str, to: &str| {
        format!("C8000V,s,{account},{from},{to},none,slp,,partner")
    };
    let [first, second] =
        [row("sa,va", "1970-01-11", "1970-01-21"), row("sb,vb", "1970-01-21", "")];
    for (rows, headers, expected) in [
        (vec![], vec![], "nobody 0"),
        (vec![], vec![(5, "none/at all")], "nobody 0"),
        (vec![], vec![(5, "sa/va")], "sa 0"),
        (vec![], vec![(5, "sa/va"), (6, ""), (7, "sa/va"), (9, "sb/vb")], "sa 0, sb 9"),
        (vec![&first], vec![], "sa 0"),
        (vec![&first, &second], vec![], "sa 0, sb 20"),
        // The book first; beside it the headers.
        (vec![&second], vec![(5, "sa/va"), (25, "sa/va")], "sa 0, sb 20"),
        (vec![&first], vec![(12, "sb/vb"), (25, "sb/vb")], "sa 0, sb 20"),
    ] {
        let rows: Vec<&str> = rows.iter().map(|row| row.as_str()).collect();
        assert_eq!(holders(&rows, &headers), expected, "{rows:?} {headers:?}");
    }
}
