//! What reports tell beside usage: clocks that were set, two storage formats at once, another account.

use std::collections::BTreeMap;

use schemas::finding::Rule;
use schemas::period::EpochSeconds;
use schemas::programme::NEW_STORAGE;

use super::Found;
use crate::core::history::{Heard, Pi};
use crate::core::reference::Reference;

pub(super) fn clock(pi: &Pi<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        for (number, seconds) in &heard.clock_changes {
            let when = heard
                .uses
                .get(*number)
                .map_or((heard.first_at(), heard.last_at()), |of| (of.start, of.end));
            let detail = || format!("its clock was set by {seconds} seconds");
            found.add(Rule::ClockChange, heard, when, heard.peak(), detail);
        }
    }
}

/// R6.3: the same time in the old storage format and in the new one.
pub(super) fn overlaps(pi: &Pi<'_>, found: &mut Found<'_>) {
    let is_new = |heard: &Heard| match heard.release() {
        Some(release) => release >= NEW_STORAGE,
        None => heard.layout >= 2,
    };
    let mut of_tag: BTreeMap<&str, Vec<(EpochSeconds, EpochSeconds, bool, &Heard)>> =
        BTreeMap::new();
    for heard in pi.reports {
        let spans = heard.uses.iter().map(|of| (of.start, of.end, is_new(heard), heard));
        of_tag.entry(&heard.tag).or_default().extend(spans);
    }
    for mut spans in of_tag.into_values() {
        if spans.iter().all(|s| s.2) || spans.iter().all(|s| !s.2) {
            continue;
        }
        spans.sort_by_key(|(start, end, ..)| (*start, *end));
        // The latest end of each format up to here.
        let mut ends: [Option<(EpochSeconds, &Heard)>; 2] = [None, None];
        for (start, end, new, heard) in spans {
            if let Some((other_end, other)) = ends[usize::from(!new)]
                && other_end > start
            {
                for heard in [heard, other] {
                    let when = (start, end.min(other_end));
                    let detail = || "reported in the formats before and from 17.7.1".to_owned();
                    found.add(Rule::OverlapAcross1771, heard, when, heard.peak(), detail);
                }
            }
            let held = &mut ends[usize::from(new)];
            if held.is_none_or(|(held, _)| held < end) {
                *held = Some((end, heard));
            }
        }
    }
}

/// R6.7: the account of the headers is not the one of the report before, or not the book's.
pub(super) fn moved(pi: &Pi<'_>, reference: &Reference<'_>, found: &mut Found<'_>) {
    let mut before: Option<(&str, &str)> = None;
    let mut reports: Vec<&Heard> = pi.reports.iter().collect();
    reports.sort_by_key(|r| (r.last_at(), r.received_at, r.report_id));
    for heard in reports {
        let Some((smart, virtual_)) = heard.via.account.as_ref() else { continue };
        let named = (smart.as_str(), virtual_.as_str());
        let held = pi.row_at(heard.first_at()).map(|row| &reference.accounts[row.account].id);
        if let Some(id) = held.filter(|id| (id.smart.as_str(), id.virtual_.as_str()) != named) {
            found.report(Rule::AccountMoved, heard, || {
                format!("its collector says {smart}/{virtual_}, devices.csv says {id}")
            });
        } else if let Some(from) = before.filter(|from| *from != named) {
            found.report(Rule::AccountMoved, heard, || {
                format!("from {}/{} to {smart}/{virtual_}", from.0, from.1)
            });
        }
        before = Some(named);
    }
}
