//! What each PI owes by when: the policy in use, reports and ACKs (R5, R10.5, R11.2).

use std::collections::{BTreeMap, HashMap};

use schemas::book::{Ack, Book, Duration, Enforcement, LicenseModel, Policy, PolicyScope};
use schemas::period::EpochSeconds;
use schemas::programme::{
    Instructions, POSTPAID_DAYS, POSTPAID_RECOMMENDED_DAYS, Reporting, cisco_default, reporting_of,
};
use schemas::udi::Udi;

use super::actives::Actives;
use super::history::{Fleet, Heard, Pi};
use super::reference::Reference;

pub const DAY: EpochSeconds = 86_400;

/// Why a PI owes nothing, or nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exemption {
    /// R5.4.
    NeverConsumed,
    /// `devices.csv` holds it no more.
    Retired,
    /// R5.5: the active of its HA group reports for it.
    HaMember,
    /// R5.6: PLR and CSL.
    NoReporting,
    /// R5.6: SLR and PAK, and policies without a frequency: until usage changes.
    UntilChange,
    /// R11.2: it sends nothing by itself; by file, until the policy's date.
    TransportOff,
}

impl Exemption {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Exemption::NeverConsumed => "never-consumed",
            Exemption::Retired => "retired",
            Exemption::HaMember => "ha-member",
            Exemption::NoReporting => "no-reporting",
            Exemption::UntilChange => "until-change",
            Exemption::TransportOff => "transport-off",
        }
    }
}

/// What one PI owes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    pub udi: Udi,
    pub account: Option<usize>,
    /// The policy in use, and the licence that decides the date.
    pub policy: String,
    pub entitlement: String,
    pub why: String,
    pub exemption: Option<Exemption>,
    /// The member of its HA group that reports for it.
    pub active: Option<Udi>,
    pub last_report: Option<EpochSeconds>,
    pub last_ack: Option<EpochSeconds>,
    /// The last change of usage (R5.3), when it had to be reported, and when it was.
    pub change_at: Option<EpochSeconds>,
    pub change_due: Option<EpochSeconds>,
    pub change_reported: Option<EpochSeconds>,
    pub report_due: Option<EpochSeconds>,
    /// Post-paid: within 7 days (R10.5).
    pub report_recommended: Option<EpochSeconds>,
    pub ack_due: Option<EpochSeconds>,
    /// The licences that it last used, by tag.
    pub licenses: Vec<(String, i64)>,
    pub utility: bool,
}

impl Deadline {
    /// The first of what is due.
    #[must_use]
    pub fn due(&self) -> Option<EpochSeconds> {
        [self.report_due, self.ack_due].into_iter().flatten().min()
    }

    /// Whole days until then; negative after it.
    #[must_use]
    pub fn days_left(&self, at: EpochSeconds) -> Option<i64> {
        self.due().map(|due| (due - at).div_euclid(DAY))
    }

    #[must_use]
    pub fn state(&self, at: EpochSeconds) -> &'static str {
        match (self.due(), self.exemption) {
            (Some(due), _) if due <= at => "overdue",
            (Some(due), _) if due - at <= 7 * DAY => "within-7-days",
            (Some(_), _) => "on-time",
            (None, Some(exemption)) => exemption.as_str(),
            (None, None) => "nothing-due",
        }
    }
}

/// The policies of the book, by scope.
pub struct Policies<'a> {
    by_scope: HashMap<(PolicyScope, &'a str), Vec<&'a Policy>>,
}

impl<'a> Policies<'a> {
    #[must_use]
    pub fn new(book: &'a Book) -> Policies<'a> {
        let mut by_scope: HashMap<_, Vec<_>> = HashMap::new();
        for policy in &book.policies {
            by_scope.entry((policy.scope, policy.scope_id.as_str())).or_default().push(policy);
        }
        Policies { by_scope }
    }

    /// The policy in use for a kind of licence, and its name: the narrowest scope wins, in it the row that
    /// names the kind most exactly; without any, `Cisco default` (R5.2, R5.5).
    #[must_use]
    pub fn of(
        &self,
        pi: &Pi<'_>,
        account: Option<&schemas::book::AccountId>,
        kind: (Enforcement, Duration),
        at: EpochSeconds,
    ) -> (String, Instructions) {
        let row = pi.row_at(at);
        let by_default = || {
            let is_direct = row.is_some_and(|row| row.channel == "direct");
            ("Cisco default".to_owned(), cisco_default(kind.0, kind.1, is_direct))
        };
        if row.is_some_and(|row| reporting_of(row.license_model) == Reporting::CiscoDefault) {
            return by_default();
        }
        let udi = pi.udi.to_string();
        let of_va = account.map(ToString::to_string).unwrap_or_default();
        let of_sa = account.map(|id| id.smart.as_str()).unwrap_or_default();
        for (scope, id) in [
            (PolicyScope::ProductInstance, udi.as_str()),
            (PolicyScope::VirtualAccount, of_va.as_str()),
            (PolicyScope::SmartAccount, of_sa),
        ] {
            let fits = |p: &&&Policy| {
                p.enforcement.is_none_or(|e| e == kind.0) && p.duration.is_none_or(|d| d == kind.1)
            };
            let exactness = |p: &&&Policy| {
                usize::from(p.enforcement.is_some()) + usize::from(p.duration.is_some())
            };
            let rows = self.by_scope.get(&(scope, id)).into_iter().flatten();
            if let Some(policy) = rows.filter(fits).max_by_key(exactness) {
                let instructions = Instructions {
                    ack_required: policy.ack_required,
                    first_report_days: policy.first_report_days,
                    reporting_frequency_days: policy.reporting_frequency_days,
                    report_on_change_days: policy.report_on_change_days,
                };
                return (format!("{} {id}", scope.as_str()), instructions);
            }
        }
        by_default()
    }
}

/// The last change of usage, and the receipt of the report that first shows it (R5.3): another licence,
/// one more or less, from none to some, from some to none.
fn last_change(told: &[Told<'_>]) -> Option<(EpochSeconds, EpochSeconds)> {
    let mut by_tag: BTreeMap<&str, Vec<(EpochSeconds, EpochSeconds, i64, EpochSeconds)>> =
        BTreeMap::new();
    for (_, heard) in told {
        for of in &heard.uses {
            by_tag.entry(&heard.tag).or_default().push((
                of.start,
                of.end,
                of.value,
                heard.received_at,
            ));
        }
    }
    let mut last: Option<(EpochSeconds, EpochSeconds)> = None;
    for uses in by_tag.values_mut() {
        uses.sort_unstable();
        let mut value = 0;
        // Of each value the last end of those that hold it: the greatest counts (contract 3.3).
        let mut held: BTreeMap<i64, EpochSeconds> = BTreeMap::new();
        for of_start in uses.chunk_by(|a, b| a.0 == b.0) {
            let start = &of_start[0].0;
            for (_, end, value, _) in of_start {
                let last = held.entry(*value).or_insert(*end);
                *last = (*last).max(*end);
            }
            while held.last_entry().is_some_and(|last| last.get() <= start) {
                held.pop_last();
            }
            let Some((now, _)) = held.last_key_value() else { continue };
            let shows =
                |(.., of, received): &(_, _, i64, EpochSeconds)| (of == now).then_some(*received);
            let received = of_start.iter().filter_map(shows).min();
            let received = &received.unwrap_or(of_start[0].3);
            if *now != value {
                // The earliest receipt of those that show the same.
                let shown = match last {
                    Some((at, shown)) if at == *start => shown.min(*received),
                    _ => *received,
                };
                if last.is_none_or(|(at, _)| *start >= at) {
                    last = Some((*start, shown));
                }
                value = *now;
            }
        }
    }
    last
}

fn days(days: u32) -> EpochSeconds {
    EpochSeconds::from(days) * DAY
}

/// What a report received at `last` puts off until when; later reports never make it earlier.
#[must_use]
pub fn report_due(
    instructions: &Instructions,
    is_postpaid: bool,
    last: EpochSeconds,
) -> Option<EpochSeconds> {
    let by_policy = (instructions.reporting_frequency_days > 0)
        .then(|| last + days(instructions.reporting_frequency_days));
    let by_programme = is_postpaid.then(|| last + days(POSTPAID_DAYS));
    [by_policy, by_programme].into_iter().flatten().min()
}

/// What every PI owes, as of an instant, in the order of their names. `groups`: the number of each PI's HA
/// group; `acks`: of the book.
#[must_use]
pub fn deadlines(
    fleet: &Fleet<'_>,
    book: &Book,
    groups: &HashMap<Udi, u64>,
    at: EpochSeconds,
) -> Vec<Deadline> {
    let policies = Policies::new(book);
    let mut acks: HashMap<&Udi, Vec<&Ack>> = HashMap::new();
    // One that is not installed yet has not come.
    for ack in book.acks.iter().filter(|ack| came_at(ack) <= at) {
        acks.entry(&ack.udi).or_default().push(ack);
    }
    let actives = Actives::new(fleet, groups, at);
    let mut all = Vec::new();
    for udi in fleet.udis() {
        let pi = fleet.pi(udi);
        // What it reported, and what others did that is of its usage too.
        let own = pi.reports.iter().map(|heard| (udi, heard));
        let told: Vec<Told<'_>> = own.chain(actives.naming(udi).iter().copied()).collect();
        let mut by: Vec<&Udi> = told.iter().map(|(by, _)| *by).chain([udi]).collect();
        by.sort_unstable();
        by.dedup();
        let acks: Vec<&Ack> =
            by.iter().filter_map(|udi| acks.get(udi)).flatten().copied().collect();
        all.push(deadline(&pi, &told, fleet.reference, &policies, &acks, actives.of(udi), at));
    }
    all
}

/// A report, and whose it is.
type Told<'a> = (&'a Udi, &'a Heard);

fn deadline(
    pi: &Pi<'_>,
    told: &[Told<'_>],
    reference: &Reference<'_>,
    policies: &Policies<'_>,
    acks: &[&Ack],
    active: Option<&Udi>,
    at: EpochSeconds,
) -> Deadline {
    let account = pi.account_at(at);
    let account_id = account.map(|a| &reference.accounts[a].id);
    let heard = || told.iter().map(|(_, heard)| *heard);
    let newest =
        told.iter().max_by_key(|(by, r)| (r.received_at, r.last_at(), r.report_id, *by)).copied();
    let last_report = newest.map(|(_, r)| r.received_at);
    let last_ack = acks.iter().map(|ack| came_at(ack)).max();
    let mut deadline = Deadline {
        udi: pi.udi.clone(),
        account,
        policy: String::new(),
        entitlement: String::new(),
        why: String::new(),
        exemption: None,
        active: active.cloned(),
        last_report,
        last_ack,
        change_at: None,
        change_due: None,
        change_reported: None,
        report_due: None,
        report_recommended: None,
        ack_due: None,
        licenses: last_licenses(told),
        utility: newest.is_some_and(|(_, r)| r.utility),
    };
    let exempt = |deadline: Deadline, exemption, why: &str| Deadline {
        exemption: Some(exemption),
        why: why.to_owned(),
        ..deadline
    };
    if pi.retired_at(at).is_some() {
        return exempt(deadline, Exemption::Retired, "devices.csv holds it no more");
    }
    if let Some(active) = active {
        return exempt(deadline, Exemption::HaMember, &format!("{active} reports for it"));
    }
    if !heard().any(|r| r.peak() > 0) {
        return exempt(deadline, Exemption::NeverConsumed, "it never consumed a licence");
    }
    let model = pi.row_at(at).map_or(LicenseModel::Slp, |row| row.license_model);
    let reporting = reporting_of(model);
    if reporting == Reporting::Never && !deadline.utility {
        return exempt(
            deadline,
            Exemption::NoReporting,
            &format!("{} never reports", model.as_str()),
        );
    }
    let (Some(last), Some((reporter, newest))) = (last_report, newest) else { return deadline };
    let mut best: Option<(EpochSeconds, String, String, Instructions)> = None;
    let mut on_change: Option<(u32, String, String)> = None;
    let mut ack_required = deadline.utility;
    for tag in tags(told) {
        let Some(entry) = reference.catalog_entry(tag) else { continue };
        let kind = (entry.enforcement, entry.duration);
        let (name, mut instructions) = policies.of(pi, account_id, kind, at);
        if reporting == Reporting::OnChangeOnly {
            instructions.reporting_frequency_days = 0;
        } else if pi.is_under_vmanage(at) {
            // R2.6: every 24 hours, fixed.
            instructions.reporting_frequency_days = 1;
        }
        ack_required |= instructions.ack_required;
        let change = instructions.report_on_change_days;
        if change > 0 && on_change.as_ref().is_none_or(|(held, _, _)| change < *held) {
            on_change = Some((change, name.clone(), tag.to_owned()));
        }
        if let Some(due) = report_due(&instructions, false, last)
            && best.as_ref().is_none_or(|(held, ..)| due < *held)
        {
            best = Some((due, name.clone(), tag.to_owned(), instructions));
        }
        if deadline.policy.is_empty() {
            (deadline.policy, deadline.entitlement) = (name, tag.to_owned());
        }
    }
    if let Some((change_at, reported)) = last_change(told) {
        deadline.change_at = Some(change_at);
        deadline.change_reported = Some(reported);
        deadline.change_due = on_change.as_ref().map(|(n, _, _)| change_at + days(*n));
    }
    if let Some((due, name, tag, instructions)) = best {
        deadline.why = format!("every {} days", instructions.reporting_frequency_days);
        (deadline.policy, deadline.entitlement) = (name, tag);
        deadline.report_due = Some(due);
    }
    if deadline.utility {
        let due = last + days(POSTPAID_DAYS);
        deadline.report_recommended = Some(last + days(POSTPAID_RECOMMENDED_DAYS));
        if deadline.report_due.is_none_or(|held| due < held) {
            deadline.report_due = Some(due);
            deadline.why = format!("post-paid: every {POSTPAID_DAYS} days");
            deadline.entitlement = newest.tag.to_string();
        }
        // In utility mode: before it, nothing was due of it.
        let in_utility = heard().filter(|r| r.utility);
        let first = in_utility.map(|r| r.received_at).min().unwrap_or(last);
        let since = last_ack.map_or(first, |ack| ack.max(first));
        deadline.ack_due = Some(since + days(POSTPAID_DAYS));
    } else if ack_required
        && !acks.iter().any(|ack| ack.udi == *reporter && acknowledges(ack, newest))
    {
        // The programme names no day for the ACK alone: it has to be there before the next report.
        deadline.ack_due = deadline.report_due;
    }
    if deadline.report_due.is_none() {
        deadline.exemption = Some(Exemption::UntilChange);
        deadline.why = "no further report until usage changes".to_owned();
    } else if pi.transport(newest, at) == "off" {
        // R11.2.
        deadline.exemption = Some(Exemption::TransportOff);
        deadline.why.push_str("; by file, its transport is off");
    }
    deadline
}

fn came_at(ack: &Ack) -> EpochSeconds {
    ack.installed_at.unwrap_or(ack.acked_at)
}

/// True if an ACK is of a report or a later one, and not of a report of an earlier numbering.
fn acknowledges(ack: &Ack, heard: &Heard) -> bool {
    ack.report_id >= heard.report_id && ack.acked_at >= heard.last_at()
}

fn tags<'a>(told: &[Told<'a>]) -> Vec<&'a str> {
    let consuming = told.iter().filter(|(_, r)| r.peak() > 0);
    let mut tags: Vec<&str> = consuming.map(|(_, r)| &*r.tag).collect();
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// The count of each tag at the end of what was reported of it.
fn last_licenses(told: &[Told<'_>]) -> Vec<(String, i64)> {
    let mut last: BTreeMap<&str, (EpochSeconds, i64)> = BTreeMap::new();
    for (_, heard) in told {
        for of in &heard.uses {
            let held = last.entry(&heard.tag).or_insert((of.end, of.value));
            *held = (*held).max((of.end, of.value));
        }
    }
    last.into_iter()
        .filter(|(_, (_, value))| *value > 0)
        .map(|(tag, (_, value))| (tag.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests;
