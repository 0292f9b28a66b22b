//! The max-join: usage at an instant is the greatest value that any report claims (contract 3.3).
//!
//! So usage does not depend on the order, the number of copies, or the overlap of reports (R6.3,
//! R6.6).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

use schemas::merkle::Hash;
use schemas::period::EpochSeconds;

use super::claims::{Names, Number};

/// What a claim says beside its value: the report that it stands in. Names stand in [`Names`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportFacts {
    pub report_id: u64,
    pub pi: Number,
    pub tag: Number,
    /// The subscription that the report names, or blank.
    pub subscription: Number,
    /// The account that the collector's headers name, if both parts are there.
    pub header_account: Option<(Number, Number)>,
    pub utility: bool,
    pub verified: bool,
    /// Digest of the signed bytes.
    pub payload_sha256: Hash,
}

/// One measurement of usage, for `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    pub value: i64,
    /// Index into the facts that the claims stand with.
    pub report: usize,
}

/// A stretch of time during which one claim wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Won {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    pub value: i64,
    pub report: usize,
}

/// Joins the claims of one group and item. Ties: utility mode first, then verified, then smallest
/// `PID:SERIAL` as bytes, then smallest report id. Stretches without usage are left out; adjacent
/// ones of one report and value are one.
#[must_use]
pub fn max_join(claims: &[Claim], facts: &[ReportFacts], names: &Names) -> Vec<Won> {
    let mut claims: Vec<Claim> =
        claims.iter().filter(|c| c.value > 0 && c.start < c.end).copied().collect();
    claims.sort_unstable_by_key(|c| c.start);
    let mut won: Vec<Won> = Vec::with_capacity(claims.len());
    let mut rest = &claims[..];
    while let Some(first) = rest.first() {
        // Most claims meet no other; those that do are joined with what they meet.
        let mut end = first.end;
        let mut together = 1;
        while let Some(next) = rest.get(together).filter(|next| next.start < end) {
            end = end.max(next.end);
            together += 1;
        }
        if together == 1 {
            let Claim { start, end, value, report } = *first;
            extend(&mut won, Won { start, end, value, report });
        } else {
            join_overlapping(&rest[..together], facts, names, &mut won);
        }
        rest = &rest[together..];
    }
    won
}

fn join_overlapping(claims: &[Claim], facts: &[ReportFacts], names: &Names, won: &mut Vec<Won>) {
    let rank = report_ranks(claims, facts, names);
    let mut bounds: Vec<(EpochSeconds, bool, usize)> = Vec::with_capacity(claims.len() * 2);
    for (i, claim) in claims.iter().enumerate() {
        bounds.push((claim.start, true, i));
        bounds.push((claim.end, false, i));
    }
    bounds.sort_unstable();
    let mut active: BTreeSet<(Reverse<i64>, usize, usize)> = BTreeSet::new();
    let mut since = EpochSeconds::MIN;
    for (at, starts, i) in bounds {
        if at > since {
            if let Some(&(Reverse(value), _, winner)) = active.first() {
                extend(won, Won { start: since, end: at, value, report: claims[winner].report });
            }
            since = at;
        }
        let entry = (Reverse(claims[i].value), rank[&claims[i].report], i);
        if starts {
            active.insert(entry);
        } else {
            active.remove(&entry);
        }
    }
}

fn extend(won: &mut Vec<Won>, next: Won) {
    match won.last_mut() {
        Some(last)
            if last.end == next.start && last.value == next.value && last.report == next.report =>
        {
            last.end = next.end;
        }
        _ => won.push(next),
    }
}

/// For each report of the claims its place in the order of ties.
fn report_ranks(claims: &[Claim], facts: &[ReportFacts], names: &Names) -> HashMap<usize, usize> {
    let mut order: Vec<usize> = claims.iter().map(|c| c.report).collect();
    order.sort_unstable();
    order.dedup();
    order.sort_by(|&a, &b| {
        let (a, b) = (&facts[a], &facts[b]);
        (Reverse(a.utility), Reverse(a.verified))
            .cmp(&(Reverse(b.utility), Reverse(b.verified)))
            .then_with(|| names.pi_of(a.pi).cmp_written(names.pi_of(b.pi)))
            .then_with(|| a.report_id.cmp(&b.report_id))
    });
    order.into_iter().enumerate().map(|(place, report)| (report, place)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(
        names: &mut Names,
        pid: &str,
        report_id: u64,
        utility: bool,
        verified: bool,
    ) -> ReportFacts {
        ReportFacts {
            report_id,
            pi: names.pi(pid, "1").0,
            tag: names.text("tag"),
            subscription: names.text(""),
            header_account: None,
            utility,
            verified,
            payload_sha256: Hash::default(),
        }
    }

    #[test]
    fn ties_are_broken_in_the_order_of_the_contract() {
        let claim = |report| Claim { start: 0, end: 10, value: 3, report };
        let mut names = Names::default();
        let mut of = |pid, id, utility, verified| facts(&mut names, pid, id, utility, verified);
        let pairs = [
            (of("Z", 9, true, false), of("A", 1, false, true)),
            (of("Z", 9, true, true), of("A", 1, true, false)),
            (of("A", 9, true, true), of("B", 1, true, true)),
            // As written: "A-:1" comes before "A:1", since '-' is smaller than ':'.
            (of("A-", 9, true, true), of("A", 1, true, true)),
            (of("A", 2, true, true), of("A", 10, true, true)),
        ];
        for (winner, loser) in pairs {
            for (facts, expected) in [([winner, loser], 0), ([loser, winner], 1)] {
                let won = max_join(&[claim(0), claim(1)], &facts, &names);
                assert_eq!(won, [Won { start: 0, end: 10, value: 3, report: expected }]);
            }
        }
    }

    #[test]
    fn the_greatest_claim_wins_while_it_lasts() {
        let mut names = Names::default();
        let all =
            [facts(&mut names, "A", 1, false, false), facts(&mut names, "B", 2, false, false)];
        let claims = [
            Claim { start: 0, end: 10, value: 2, report: 0 },
            Claim { start: 4, end: 6, value: 5, report: 1 },
            Claim { start: 10, end: 12, value: 2, report: 0 },
            Claim { start: 20, end: 30, value: 0, report: 1 },
        ];
        let won: Vec<_> =
            max_join(&claims, &all, &names).iter().map(|w| (w.start, w.end, w.value)).collect();
        assert_eq!(won, [(0, 4, 2), (4, 6, 5), (6, 12, 2)]);
    }

    proptest! {
        /// Against the definition, second by second; in any order and with any copies.
        #[test]
        fn is_the_maximum_at_every_second(
            claims in prop::collection::vec((0i64..20, 1i64..20, 0i64..4, 0usize..3), 0..8),
            copies in prop::collection::vec(0usize..8, 0..8),
        ) {
            let mut names = Names::default();
            let all = [("A", 1, true, false), ("B", 2, false, true), ("C", 3, false, true)]
                .map(|(pid, id, utility, verified)| facts(&mut names, pid, id, utility, verified));
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(start, length, value, report)| Claim { start, end: start + length, value, report })
                .collect();
            let won = max_join(&claims, &all, &names);
            for t in 0..45 {
                let expected = claims.iter().filter(|c| c.start <= t && t < c.end).map(|c| c.value).max().unwrap_or(0);
                let ours = won.iter().filter(|w| w.start <= t && t < w.end).map(|w| w.value).sum::<i64>();
                prop_assert_eq!(ours, expected, "at {}", t);
            }
            let mut shuffled: Vec<Claim> = claims.iter().rev().copied().collect();
            shuffled.extend(copies.iter().filter_map(|&i| claims.get(i)));
            prop_assert_eq!(max_join(&shuffled, &all, &names), won);
        }
    }
}
