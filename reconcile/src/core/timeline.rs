//! The max-join: usage at an instant is the greatest value that any report claims (contract 3.3).
//!
//! So usage does not depend on the order, the number of copies, or the overlap of reports (R6.3,
//! R6.6).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use schemas::period::EpochSeconds;
use schemas::udi::Udi;

/// What a claim says beside its value: the report that it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportFacts {
    pub udi: Udi,
    pub report_id: u64,
    pub tag: String,
    pub utility: bool,
    pub verified: bool,
    /// The subscription that the report names, or blank.
    pub subscription_id: String,
    /// The account that the collector's headers name, if both parts are there.
    pub header_account: Option<(String, String)>,
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
pub fn max_join(claims: &[Claim], facts: &[ReportFacts]) -> Vec<Won> {
    let rank = report_ranks(facts);
    let mut bounds: Vec<(EpochSeconds, bool, usize)> = Vec::with_capacity(claims.len() * 2);
    for (i, claim) in claims.iter().enumerate().filter(|(_, c)| c.value > 0 && c.start < c.end) {
        bounds.push((claim.start, true, i));
        bounds.push((claim.end, false, i));
    }
    bounds.sort_unstable();
    let mut active: BTreeSet<(Reverse<i64>, usize, usize)> = BTreeSet::new();
    let mut won: Vec<Won> = Vec::new();
    let mut since = EpochSeconds::MIN;
    for (at, starts, i) in bounds {
        if at > since {
            if let Some(&(Reverse(value), _, winner)) = active.first() {
                extend(
                    &mut won,
                    Won { start: since, end: at, value, report: claims[winner].report },
                );
            }
            since = at;
        }
        let entry = (Reverse(claims[i].value), rank[claims[i].report], i);
        if starts {
            active.insert(entry);
        } else {
            active.remove(&entry);
        }
    }
    won
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

/// For each report its place in the order of ties.
fn report_ranks(facts: &[ReportFacts]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..facts.len()).collect();
    order.sort_by(|&a, &b| {
        let (a, b) = (&facts[a], &facts[b]);
        (Reverse(a.utility), Reverse(a.verified))
            .cmp(&(Reverse(b.utility), Reverse(b.verified)))
            .then_with(|| a.udi.cmp_written(&b.udi))
            .then_with(|| a.report_id.cmp(&b.report_id))
    });
    let mut rank = vec![0; facts.len()];
    for (place, report) in order.into_iter().enumerate() {
        rank[report] = place;
    }
    rank
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(pid: &str, report_id: u64, utility: bool, verified: bool) -> ReportFacts {
        ReportFacts {
            udi: Udi::new(pid, "1"),
            report_id,
            tag: "tag".to_owned(),
            utility,
            verified,
            subscription_id: String::new(),
            header_account: None,
        }
    }

    #[test]
    fn ties_are_broken_in_the_order_of_the_contract() {
        let claim = |report| Claim { start: 0, end: 10, value: 3, report };
        for (winner, loser) in [
            (facts("Z", 9, true, false), facts("A", 1, false, true)),
            (facts("Z", 9, true, true), facts("A", 1, true, false)),
            (facts("A", 9, true, true), facts("B", 1, true, true)),
            // As written: "A-:1" comes before "A:1", since '-' is smaller than ':'.
            (facts("A-", 9, true, true), facts("A", 1, true, true)),
            (facts("A", 2, true, true), facts("A", 10, true, true)),
        ] {
            for (facts, expected) in [([winner.clone(), loser.clone()], 0), ([loser, winner], 1)] {
                let won = max_join(&[claim(0), claim(1)], &facts);
                assert_eq!(won, [Won { start: 0, end: 10, value: 3, report: expected }]);
            }
        }
    }

    #[test]
    fn the_greatest_claim_wins_while_it_lasts() {
        let all = [facts("A", 1, false, false), facts("B", 2, false, false)];
        let claims = [
            Claim { start: 0, end: 10, value: 2, report: 0 },
            Claim { start: 4, end: 6, value: 5, report: 1 },
            Claim { start: 10, end: 12, value: 2, report: 0 },
            Claim { start: 20, end: 30, value: 0, report: 1 },
        ];
        let won: Vec<_> =
            max_join(&claims, &all).iter().map(|w| (w.start, w.end, w.value)).collect();
        assert_eq!(won, [(0, 4, 2), (4, 6, 5), (6, 12, 2)]);
    }

    proptest! {
        /// Against the definition, second by second; in any order and with any copies.
        #[test]
        fn is_the_maximum_at_every_second(
            claims in prop::collection::vec((0i64..20, 1i64..20, 0i64..4, 0usize..3), 0..8),
            copies in prop::collection::vec(0usize..8, 0..8),
        ) {
            let all = [facts("A", 1, true, false), facts("B", 2, false, true), facts("C", 3, false, true)];
            let claims: Vec<Claim> = claims
                .into_iter()
                .map(|(start, length, value, report)| Claim { start, end: start + length, value, report })
                .collect();
            let won = max_join(&claims, &all);
            for t in 0..45 {
                let expected = claims.iter().filter(|c| c.start <= t && t < c.end).map(|c| c.value).max().unwrap_or(0);
                let ours = won.iter().filter(|w| w.start <= t && t < w.end).map(|w| w.value).sum::<i64>();
                prop_assert_eq!(ours, expected, "at {}", t);
            }
            let mut shuffled: Vec<Claim> = claims.iter().rev().copied().collect();
            shuffled.extend(copies.iter().filter_map(|&i| claims.get(i)));
            prop_assert_eq!(max_join(&shuffled, &all), won);
        }
    }
}
