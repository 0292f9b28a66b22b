//! What did not come, or is not used: refused sources, report ids that are missing, licences that lie idle.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use schemas::book::Book;
use schemas::disposition::Reason;
use schemas::finding::Rule;
use schemas::period::EpochSeconds;
use schemas::programme::{DNA_HSEC_RELEASE, Family, HSECK9, is_dna_hsec};
use schemas::udi::Udi;

use super::{Finding, ID_GAP_MAX, REPORTS_MAX};
use crate::core::history::{Fleet, Heard, Pi, Refused, by_holder};

/// R10.9: what a source sent that may not.
pub(super) fn refused(pi: &Pi<'_>, fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut by_account: BTreeMap<Option<usize>, Vec<&Refused>> = BTreeMap::new();
    for refused in fleet.history.refused.get(pi.udi).into_iter().flatten() {
        by_account.entry(pi.account_at(refused.1)).or_default().push(refused);
    }
    let of_account = |(account, refused): (_, Vec<&Refused>)| {
        let times = || refused.iter().map(|(_, at, _)| *at);
        let (since, last) = (times().min()?, times().max()?);
        let ids: BTreeSet<u64> = refused.iter().map(|(id, ..)| *id).collect();
        let source = &refused.first()?.2;
        Some(Finding {
            rule: Rule::CollectorNotAllowed,
            account,
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
    };
    by_account.into_iter().filter_map(of_account).collect()
}

/// Reports that never came, of one account.
struct Missing {
    total: u64,
    first: (u64, u64),
    ids: Vec<u64>,
    since: EpochSeconds,
    last: EpochSeconds,
}

/// R6.1: ids between those that came, which nobody sent. They are of the account that held the PI at the
/// end of what came before them.
pub(super) fn gaps(pi: &Pi<'_>, fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut ids: BTreeMap<u64, Option<&Heard>> = BTreeMap::new();
    for id in fleet.history.suspended_ids.get(pi.udi).into_iter().flatten() {
        ids.insert(*id, None);
    }
    for heard in pi.reports {
        ids.insert(heard.report_id, Some(heard));
    }
    let all: Vec<(u64, Option<&Heard>)> = ids.into_iter().collect();
    let mut by_account: BTreeMap<Option<usize>, Missing> = BTreeMap::new();
    // Suspended reports tell no time: that of the nearest other.
    let mut known = pi.reports.first().map(Heard::first_at).unwrap_or_default();
    for pair in all.windows(2) {
        let ((before, left), (after, right)) = (pair[0], pair[1]);
        known = left.map_or(known, Heard::last_at);
        let gap = after - before - 1;
        if gap == 0 || gap > ID_GAP_MAX {
            continue;
        }
        let from = left.map(Heard::last_at).or(right.map(Heard::first_at)).unwrap_or(known);
        let to = right.map_or(from, Heard::first_at);
        let missing = by_account.entry(pi.account_at(from)).or_insert_with(|| Missing {
            total: 0,
            first: (before + 1, after - 1),
            ids: Vec::new(),
            since: from,
            last: from,
        });
        missing.total += gap;
        let room = REPORTS_MAX.saturating_sub(missing.ids.len());
        missing.ids.extend((before + 1..after).take(room));
        missing.last = missing.last.max(to);
    }
    let of_account = |(account, missing): (_, Missing)| Finding {
        rule: Rule::ReportIdGap,
        account,
        udi: Some(pi.udi.clone()),
        entitlement: String::new(),
        since: missing.since,
        last: missing.last,
        licenses: 0,
        reports_total: usize::try_from(missing.total).unwrap_or(usize::MAX),
        reports: missing.ids,
        detail: format!(
            "{} reports never came, the first of them {} to {}",
            missing.total, missing.first.0, missing.first.1
        ),
        utility: false,
    };
    by_account.into_iter().map(of_account).collect()
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
        let holders = pi.holders();
        for heard in reports {
            for of in heard.consuming() {
                let held = by_holder(&holders, (of.start, of.end));
                used.extend(held.into_iter().filter_map(|(by, _)| Some((by?, &*heard.tag))));
            }
            let Some(account) = pi.account_at(heard.first_at()) else { continue };
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
