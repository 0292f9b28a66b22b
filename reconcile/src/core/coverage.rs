//! Which time of a period the reports of a PI cover, and what the rest means.
//!
//! A PI is expected to account for all time from its first use of a licence on, until the book holds it no
//! more. What no report covers is told apart:
//!
//! | state | the uncovered time |
//! | --- | --- |
//! | `covered` | there is none |
//! | `pending` | lies after the last report, and the next one is not due yet |
//! | `silent` | lies after the last report, and the next one is overdue |
//! | `lost` | lies between reports, and ids between theirs never came |
//! | `gap` | lies between reports whose ids follow each other |
//! | `expected` | lies after the last report of a PI that owes none by itself (R5.6, R11.2) |
//! | `retired` | begins where the book holds the PI no more |
//! | `never-consumed` | is all: no licence was ever used (R5.4) |

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemas::book::Span;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::deadlines::{Deadline, Exemption};
use super::history::{Fleet, Heard, Pi, Use, Via, by_holder};
use super::reference::Month;

/// What covers one PI and entitlement in a period, as long as one account holds the PI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub udi: Udi,
    pub account: Option<usize>,
    pub entitlement: String,
    pub state: &'static str,
    /// The time that it is expected to account for, in seconds, and how much of it reports cover.
    pub expected: EpochSeconds,
    pub covered: EpochSeconds,
    pub gaps: Vec<Gap>,
}

/// Time that no report covers, and what the last one before it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    pub span: Span,
    /// 0 where there is none before it.
    pub value: i64,
    /// The member of the group that said it.
    pub udi: Udi,
    pub utility: bool,
    pub subscription: Arc<str>,
    pub via: Option<Arc<Via>>,
}

impl Coverage {
    #[must_use]
    pub fn uncovered(&self) -> EpochSeconds {
        self.expected - self.covered
    }

    /// Licence-seconds of the uncovered time, had usage stayed as it was.
    #[must_use]
    pub fn unseen(&self) -> i128 {
        let of = |gap: &Gap| i128::from(gap.span.end - gap.span.start) * i128::from(gap.value);
        self.gaps.iter().map(of).sum()
    }
}

/// The coverage of every PI and entitlement, as of an instant. `months`: the period in each account's zone;
/// `utc`: where the account is not known.
#[must_use]
pub fn coverage(
    fleet: &Fleet<'_>,
    deadlines: &[Deadline],
    groups: &HashMap<Udi, u64>,
    months: &[Month],
    utc: Span,
    at: EpochSeconds,
) -> Vec<Coverage> {
    // In HA any member's report covers the group (R6.6): the one that reports answers for all.
    let mut of_group: HashMap<u64, Vec<&Udi>> = HashMap::new();
    for udi in fleet.udis() {
        if let Some(group) = groups.get(udi) {
            of_group.entry(*group).or_default().push(udi);
        }
    }
    // The months of all accounts, which begin and end by their own zones.
    let spans = || months.iter().map(|month| month.span).chain([utc]);
    let whole = Span {
        start: spans().map(|span| span.start).min().unwrap_or(utc.start),
        end: spans().map(|span| span.end).max().unwrap_or(utc.end),
    };
    let active_of: HashMap<&Udi, &Udi> =
        deadlines.iter().filter_map(|d| Some((&d.udi, d.active.as_ref()?))).collect();
    let mut all = Vec::new();
    for deadline in deadlines {
        let udi = &deadline.udi;
        if active_of.contains_key(udi) {
            continue;
        }
        let pi = fleet.pi(udi);
        let month_of = |account: Option<usize>| account.map_or(utc, |a| months[a].span);
        if deadline.exemption == Some(Exemption::NeverConsumed) {
            // Of the account that held it last in the month, if the book tells of it.
            let held = pi.rows.iter().rev().find(|row| {
                let month = month_of(Some(row.account));
                row.valid.overlaps(month) && row.valid.start < at
            });
            let account = held.map_or(deadline.account, |row| Some(row.account));
            if month_of(account).start < at && (held.is_some() || pi.rows.is_empty()) {
                all.push(Coverage {
                    udi: udi.clone(),
                    account,
                    entitlement: String::new(),
                    state: "never-consumed",
                    expected: 0,
                    covered: 0,
                    gaps: Vec::new(),
                });
            }
            continue;
        }
        let mut by_tag: BTreeMap<&str, Vec<(&Udi, &Heard)>> = BTreeMap::new();
        let members = groups.get(udi).and_then(|group| of_group.get(group));
        let own = [udi];
        let mut holders: HashMap<&Udi, Holders> = HashMap::from([(udi, pi.holders())]);
        for member in members.map_or(&own[..], Vec::as_slice) {
            // Members that parted from it answer for themselves, but for what they reported of it.
            let answers = *member == udi || active_of.get(*member) == Some(&udi);
            if *member != udi {
                holders.insert(*member, fleet.pi(member).holders());
            }
            for heard in fleet.history.heard.get(*member).into_iter().flatten() {
                let is_of_it = answers || heard.ha.iter().any(|named| named.udi == *udi);
                if is_of_it && !heard.uses.is_empty() {
                    by_tag.entry(&heard.tag).or_default().push((*member, heard));
                }
            }
        }
        for (tag, reports) in by_tag {
            let of = (whole, &month_of as &dyn Fn(_) -> _);
            all.extend(of_tag(&pi, fleet, deadline, (tag, &reports), &holders, of, at));
        }
    }
    all
}

/// Who holds a PI when, as [`Pi::holders`] says.
type Holders = Vec<(Option<usize>, Span)>;

/// What one account has of a PI's time.
#[derive(Default)]
struct Held {
    expected: EpochSeconds,
    covered: EpochSeconds,
    gaps: Vec<Gap>,
    end: EpochSeconds,
}

fn of_tag(
    pi: &Pi<'_>,
    fleet: &Fleet<'_>,
    deadline: &Deadline,
    (tag, reports): (&str, &[(&Udi, &Heard)]),
    holders: &HashMap<&Udi, Holders>,
    (whole, month_of): (Span, &dyn Fn(Option<usize>) -> Span),
    at: EpochSeconds,
) -> Vec<Coverage> {
    let consuming = reports.iter().flat_map(|(_, r)| r.consuming());
    let Some(first_use) = consuming.map(|of| of.start).min() else { return Vec::new() };
    let retired = pi.retired_at(at);
    let end = whole.end.min(at).min(retired.unwrap_or(EpochSeconds::MAX));
    if first_use.max(whole.start) >= end {
        return Vec::new();
    }
    let mut uses: Vec<(Use, &Udi, &Heard)> = reports
        .iter()
        .flat_map(|(udi, heard)| heard.uses.iter().map(|of| (*of, *udi, *heard)))
        .collect();
    uses.sort_by_key(|(of, udi, heard)| (of.start, of.end, of.value, *udi, heard.report_id));
    let mut by_account: BTreeMap<Option<usize>, Held> = BTreeMap::new();
    // A stretch of time is of whoever holds the member that speaks of it, or spoke last before it.
    let mut add = |stretch: Span, last: Option<&(Use, &Udi, &Heard)>, is_covered: bool| {
        let speaker = last.map_or(pi.udi, |(_, udi, _)| *udi);
        let stretch = (stretch.start, stretch.end.min(end));
        for (account, (start, end)) in by_holder(&holders[speaker], stretch) {
            let month = month_of(account);
            let span = Span { start: start.max(month.start), end: end.min(month.end) };
            if span.start >= span.end {
                continue;
            }
            let held = by_account.entry(account).or_default();
            held.expected += span.end - span.start;
            held.end = held.end.max(span.end);
            if is_covered {
                held.covered += span.end - span.start;
            } else {
                held.gaps.push(gap(pi.udi, last, span));
            }
        }
    };
    let mut covered_to = first_use;
    // What stands at the end of what is covered.
    let mut last: Option<&(Use, &Udi, &Heard)> = None;
    for use_of in uses.iter().take_while(|(of, ..)| of.start < end) {
        let of = use_of.0;
        if of.start > covered_to {
            add(Span { start: covered_to, end: of.start }, last, false);
            covered_to = of.start;
        }
        if of.end > covered_to {
            add(Span { start: covered_to, end: of.end }, Some(use_of), true);
            covered_to = of.end;
        }
        if last.is_none_or(|(held, ..)| of.end >= held.end) {
            last = Some(use_of);
        }
    }
    if covered_to < end {
        add(Span { start: covered_to, end }, last, false);
    }
    let state_of = |account: Option<usize>, held: &Held| {
        let tail = held.gaps.last().is_some_and(|gap| gap.span.end == held.end);
        let is_last = uses.iter().all(|(of, ..)| of.start < held.end);
        if held.gaps.is_empty() {
            let ends = retired.is_some_and(|end| month_of(account).contains(end));
            if ends { "retired" } else { "covered" }
        } else if tail && is_last {
            match deadline.exemption {
                Some(Exemption::Retired) => "retired",
                _ if deadline.report_due.is_some_and(|due| due <= at) => "silent",
                Some(_) => "expected",
                None => "pending",
            }
        } else if ids_are_missing(fleet, &deadline.udi, reports) {
            "lost"
        } else {
            "gap"
        }
    };
    let of_account = |(account, held): (Option<usize>, Held)| Coverage {
        udi: deadline.udi.clone(),
        account,
        entitlement: tag.to_owned(),
        state: state_of(account, &held),
        expected: held.expected,
        covered: held.covered,
        gaps: held.gaps,
    };
    by_account.into_iter().map(of_account).collect()
}

fn gap(udi: &Udi, last: Option<&(Use, &Udi, &Heard)>, span: Span) -> Gap {
    match last {
        Some((of, udi, heard)) => Gap {
            span,
            value: of.value,
            udi: (*udi).clone(),
            utility: heard.utility,
            subscription: Arc::clone(&heard.subscription),
            via: Some(Arc::clone(&heard.via)),
        },
        None => Gap {
            span,
            value: 0,
            udi: udi.clone(),
            utility: false,
            subscription: Arc::from(""),
            via: None,
        },
    }
}

/// True if ids between those of the PI's own reports never came.
fn ids_are_missing(fleet: &Fleet<'_>, udi: &Udi, of_tag: &[(&Udi, &Heard)]) -> bool {
    let Some(all) = fleet.history.heard.get(udi) else { return false };
    let suspended = fleet.history.suspended_ids.get(udi).into_iter().flatten().copied();
    let mut ids: Vec<u64> = all.iter().map(|r| r.report_id).chain(suspended).collect();
    ids.sort_unstable();
    ids.dedup();
    let span = of_tag.iter().filter(|(of, _)| *of == udi).map(|(_, r)| r.report_id);
    let (Some(first), Some(last)) = (span.clone().min(), span.max()) else { return false };
    ids.windows(2).any(|pair| {
        pair[0] >= first
            && pair[1] <= last
            && (2..=super::findings::ID_GAP_MAX).contains(&(pair[1] - pair[0]))
    })
}

#[cfg(test)]
mod tests;
