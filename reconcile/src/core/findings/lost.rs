//! What did not come, or is not used: refused sources, report ids that are missing, licences that lie idle.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use schemas::book::Book;
use schemas::disposition::Reason;
use schemas::finding::Rule;
use schemas::period::EpochSeconds;
use schemas::programme::{DNA_HSEC_RELEASE, Family, HSECK9, is_dna_hsec};
use schemas::udi::Udi;

use super::{Finding, ID_GAP_MAX, REPORTS_MAX};
use crate::core::history::{Fleet, Heard, Pi};

/// R10.9: what a source sent that may not.
pub(super) fn refused(pi: &Pi<'_>, fleet: &Fleet<'_>) -> Option<Finding> {
    let refused = fleet.history.refused.get(pi.udi)?;
    let times = || refused.iter().map(|(_, at, _)| *at);
    let (since, last) = (times().min()?, times().max()?);
    let ids: BTreeSet<u64> = refused.iter().map(|(id, ..)| *id).collect();
    let source = &refused.first()?.2;
    Some(Finding {
        rule: Rule::CollectorNotAllowed,
        account: pi.account_at(since),
        udi: Some(pi.udi.clone()),
        entitlement: String::new(),
        since,
        last,
        licenses: 0,
        reports_total: refused.len(),
        reports: ids.into_iter().take(REPORTS_MAX).collect(),
        detail: format!(
            "sent by '{}' ({})",
            source.escape_debug(),
            Reason::SourceNotAllowed.as_str()
        ),
        utility: false,
    })
}

/// R6.1: ids between those that came, which nobody sent.
pub(super) fn gaps(pi: &Pi<'_>, fleet: &Fleet<'_>) -> Option<Finding> {
    let mut ids: BTreeMap<u64, Option<&Heard>> = BTreeMap::new();
    for id in fleet.history.suspended_ids.get(pi.udi).into_iter().flatten() {
        ids.insert(*id, None);
    }
    for heard in pi.reports {
        ids.insert(heard.report_id, Some(heard));
    }
    let all: Vec<(u64, Option<&Heard>)> = ids.into_iter().collect();
    let mut missing = 0u64;
    let mut first: Option<(u64, u64)> = None;
    let mut lost = Vec::new();
    let (mut since, mut last) = (None, None);
    for pair in all.windows(2) {
        let ((before, left), (after, right)) = (pair[0], pair[1]);
        let gap = after - before - 1;
        if gap == 0 || gap > ID_GAP_MAX {
            continue;
        }
        missing += gap;
        first.get_or_insert((before + 1, after - 1));
        lost.extend((before + 1..after).take(REPORTS_MAX.saturating_sub(lost.len())));
        let from = left.map(Heard::last_at).or(right.map(Heard::first_at));
        since = since.or(from);
        last = right.map(Heard::first_at).or(from).or(last);
    }
    let (from, to) = first?;
    let since = since.unwrap_or_default();
    Some(Finding {
        rule: Rule::ReportIdGap,
        account: pi.account_at(since),
        udi: Some(pi.udi.clone()),
        entitlement: String::new(),
        since,
        last: last.unwrap_or(since).max(since),
        licenses: 0,
        reports_total: usize::try_from(missing).unwrap_or(usize::MAX),
        reports: lost,
        detail: format!("{missing} reports never came, the first of them {from} to {to}"),
        utility: false,
    })
}

/// R11.5: device-specific HSECK9 licences that an account holds and does not use, where a device runs a
/// release that knows `DNA_HSEC`. As of an instant.
#[must_use]
pub fn convertible(fleet: &Fleet<'_>, book: &Book, at: EpochSeconds) -> Vec<Finding> {
    let mut used: HashSet<(usize, &str)> = HashSet::new();
    let mut able: HashMap<usize, (EpochSeconds, &Udi)> = HashMap::new();
    for (udi, reports) in &fleet.history.heard {
        let pi = fleet.pi(udi);
        let family = pi.family.map(|row| row.family);
        for heard in reports {
            let Some(account) = pi.account_at(heard.first_at()) else { continue };
            if heard.peak() > 0 {
                used.insert((account, &heard.tag));
            }
            let knows = heard.release().is_some_and(|r| r >= DNA_HSEC_RELEASE)
                && matches!(family, Some(Family::Isr1000 | Family::Isr4000));
            if knows {
                let since = heard.first_at();
                let held = able.entry(account).or_insert((since, udi));
                *held = (*held).min((since, udi));
            }
        }
    }
    let mut by_tag: BTreeMap<(usize, &str), i64> = BTreeMap::new();
    for p in book.purchases.iter().filter(|p| p.valid.contains(at)) {
        if fleet.reference.item(&p.tag) == HSECK9 && !is_dna_hsec(&p.tag) {
            let quantity = i64::try_from(p.quantity).unwrap_or(i64::MAX);
            *by_tag.entry((p.account, &p.tag)).or_default() += quantity;
        }
    }
    by_tag
        .into_iter()
        .filter(|((account, tag), quantity)| *quantity > 0 && !used.contains(&(*account, *tag)))
        .filter_map(|((account, tag), quantity)| {
            let (since, udi) = able.get(&account)?;
            Some(Finding {
                rule: Rule::Hseck9Convertible,
                account: Some(account),
                udi: None,
                entitlement: tag.to_owned(),
                since: *since,
                last: at,
                licenses: quantity,
                reports: Vec::new(),
                reports_total: 0,
                detail: format!(
                    "{quantity} are held and not used, and {udi} runs 17.6.1a or later"
                ),
                utility: false,
            })
        })
        .collect()
}
