//! Whose usage it is: account, pool and subscription of what wins at an instant (contract 3.3, 3.4),
//! or the exception that it is (contract 3.10).

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::book::Span;
use schemas::ledger::Pool;
use schemas::merkle::{self, Hash};
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::charge::priced_spans;
use super::claims::Names;
use super::evidence::{Stretch, write_report};
use super::reference::{Month, Reference};
use super::timeline::{ReportFacts, Won};

/// Why usage could not be priced, in the order in which reasons apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExceptionReason {
    NotInCatalog,
    AccountUnknown,
    /// Kept, shown, and not billed until the book knows it (R10.7).
    SubscriptionUnknown,
    PriceUnknown,
}

impl ExceptionReason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ExceptionReason::NotInCatalog => "not-in-catalog",
            ExceptionReason::AccountUnknown => "account-unknown",
            ExceptionReason::SubscriptionUnknown => "subscription-unknown",
            ExceptionReason::PriceUnknown => "price-unknown",
        }
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        use ExceptionReason as R;
        [R::NotInCatalog, R::AccountUnknown, R::SubscriptionUnknown, R::PriceUnknown]
            .into_iter()
            .find(|reason| reason.as_str() == word)
    }
}

/// What an exception is about. `account` is `None` where no account is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExceptionKey {
    pub account: Option<usize>,
    pub subscription_id: String,
    pub item: String,
    pub reason: ExceptionReason,
}

/// Licence-seconds by exception.
pub type Exceptions = BTreeMap<ExceptionKey, i128>;

/// Whose usage is added up together (contract 3.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsageKey {
    pub account: usize,
    pub pool: Pool,
    pub subscription_id: String,
    pub item: String,
}

/// A change of the sum at an instant: of all usage, and of the verified part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    pub at: EpochSeconds,
    pub usage: i64,
    pub verified: i64,
}

/// What was used of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// Changes of the sum, in no order.
    pub steps: Vec<Step>,
    /// For each stretch of time that has one price: the hashes of the entries of the reports that count
    /// in it, in no order.
    pub reports: Vec<(Span, Vec<Hash>)>,
    /// The reports themselves, where they are asked for.
    pub counted: Vec<CountedReport>,
}

/// A report that counts for a key, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedReport {
    pub udi: Udi,
    pub tag: String,
    pub facts: ReportFacts,
    /// Within the month, in the order of time.
    pub stretches: Vec<Stretch>,
}

/// A stretch that counts, on its way to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    key: usize,
    report: usize,
    stretch: Stretch,
}

/// Usage of one period, summed over groups.
pub struct Usage<'r, 'b> {
    reference: &'r Reference<'b>,
    months: &'r [Month],
    /// The month in UTC, for usage whose account is not known.
    utc: Span,
    keys: HashMap<UsageKey, usize>,
    used: Vec<KeyUsage>,
    /// Of the group that is being added.
    counted: Vec<Counted>,
    /// Room to write an entry in.
    entry: String,
    /// The key whose reports are kept.
    kept: Option<UsageKey>,
    /// The key that was used last: one stretch of a device follows the other.
    last: Option<(UsageKey, usize)>,
    exceptions: Exceptions,
    /// PIs of which some usage has no account, or no item that the catalogue knows.
    unattributed: HashSet<Udi>,
}

/// What was used in a period.
#[derive(Debug, Default)]
pub struct Used {
    pub keys: BTreeMap<UsageKey, KeyUsage>,
    pub exceptions: Exceptions,
    /// PIs of which some usage has no account, or no item that the catalogue knows.
    pub unattributed: HashSet<Udi>,
}

/// Steps of one key are summed up when there are this many more of them.
const STEPS_COMPACT: usize = 1 << 16;

impl<'r, 'b> Usage<'r, 'b> {
    #[must_use]
    pub fn new(reference: &'r Reference<'b>, months: &'r [Month], utc: Span) -> Self {
        Usage {
            reference,
            months,
            utc,
            keys: HashMap::new(),
            used: Vec::new(),
            counted: Vec::new(),
            entry: String::new(),
            kept: None,
            last: None,
            exceptions: Exceptions::new(),
            unattributed: HashSet::new(),
        }
    }

    /// Keeps the reports of one key.
    #[must_use]
    pub fn keeping(self, key: Option<&UsageKey>) -> Self {
        Usage { kept: key.cloned(), ..self }
    }

    /// What was used of each key, and what could not be attributed.
    #[must_use]
    pub fn finish(self) -> Used {
        let mut used = self.used;
        let by_key = self.keys.into_iter().map(|(key, i)| (key, std::mem::take(&mut used[i])));
        Used {
            keys: by_key.collect(),
            exceptions: self.exceptions,
            unattributed: self.unattributed,
        }
    }

    /// Adds all of another part of the same period.
    pub fn merge(&mut self, mut other: Usage<'r, 'b>) {
        for (key, i) in other.keys {
            let mut more = std::mem::take(&mut other.used[i]);
            let Some(&at) = self.keys.get(&key) else {
                self.keys.insert(key, self.used.len());
                self.used.push(more);
                continue;
            };
            let used = &mut self.used[at];
            used.steps.append(&mut more.steps);
            used.counted.append(&mut more.counted);
            for ((_, all), (_, mut of_span)) in used.reports.iter_mut().zip(more.reports) {
                all.append(&mut of_span);
            }
            if used.steps.len() >= STEPS_COMPACT {
                compact(&mut used.steps);
            }
        }
        for (key, seconds) in other.exceptions {
            *self.exceptions.entry(key).or_default() += seconds;
        }
        self.unattributed.extend(other.unattributed);
    }

    /// Adds what one group used of one item.
    pub fn add(&mut self, item: &str, won: &[Won], facts: &[ReportFacts], names: &Names) {
        for stretch in won {
            let report = Named { facts: &facts[stretch.report], names };
            if self.reference.catalog_entry(report.tag()).is_none() {
                self.leave(item, ExceptionReason::NotInCatalog, stretch, report);
                continue;
            }
            self.by_account(item, stretch, report);
        }
        self.take_reports(facts, names);
    }

    /// Makes entries of what was counted of one group and item; a report stands in no other.
    fn take_reports(&mut self, facts: &[ReportFacts], names: &Names) {
        let mut counted = std::mem::take(&mut self.counted);
        counted.sort_unstable();
        for of_report in counted.chunk_by(|a, b| (a.key, a.report) == (b.key, b.report)) {
            let (key, facts) = (of_report[0].key, &facts[of_report[0].report]);
            let (udi, tag) = (names.pi_of(facts.pi), names.text_of(facts.tag));
            let used = &mut self.used[key];
            for (span, hashes) in &mut used.reports {
                let within = of_report
                    .iter()
                    .map(|c| c.stretch)
                    .map(|(start, end, value)| (start.max(span.start), end.min(span.end), value))
                    .filter(|(start, end, _)| start < end);
                write_report(&mut self.entry, (&udi.pid, &udi.serial), tag, facts, within);
                if !self.entry.is_empty() {
                    hashes.push(merkle::leaf(self.entry.as_bytes()));
                }
            }
            if self.kept.as_ref().is_some_and(|kept| self.keys.get(kept) == Some(&key)) {
                used.counted.push(CountedReport {
                    udi: udi.clone(),
                    tag: tag.to_owned(),
                    facts: *facts,
                    stretches: of_report.iter().map(|c| c.stretch).collect(),
                });
            }
        }
        counted.clear();
        self.counted = counted;
    }

    /// Splits a stretch by the account that held its PI.
    fn by_account(&mut self, item: &str, stretch: &Won, report: Named<'_>) {
        let from_headers = report
            .header_account()
            .and_then(|(smart, virtual_)| self.reference.account(smart, virtual_));
        let reference = self.reference;
        let spans = reference.holders(report.udi()).iter().map(|(span, account)| (*span, *account));
        for (part, account) in split(stretch, spans) {
            match account.or(from_headers) {
                Some(account) => self.by_subscription(item, &part, report, account),
                None => self.leave(item, ExceptionReason::AccountUnknown, &part, report),
            }
        }
    }

    /// Splits a stretch of one account into pools: post-paid by the subscription in force.
    fn by_subscription(&mut self, item: &str, stretch: &Won, report: Named<'_>, account: usize) {
        let reference = self.reference;
        let postpaid = report.facts.utility
            && reference.catalog_entry(report.tag()).is_some_and(|c| c.postpaid_allowed);
        if !postpaid {
            self.used((account, Pool::Prepaid, "", item), stretch, report);
            return;
        }
        let named = report.subscription();
        let in_force = reference
            .subscriptions_of_tag(account, report.tag())
            .iter()
            .filter(|s| named.is_empty() || s.id == named)
            .map(|s| (s.valid, s.id.as_str()));
        for (part, subscription) in split(stretch, in_force) {
            match subscription {
                Some(id) => self.used((account, Pool::Postpaid, id, item), &part, report),
                None => self.except(
                    Some(account),
                    named,
                    item,
                    ExceptionReason::SubscriptionUnknown,
                    &part,
                ),
            }
        }
    }

    fn used(&mut self, key: (usize, Pool, &str, &str), stretch: &Won, report: Named<'_>) {
        let Some((start, end)) = clip(stretch, self.months[key.0].span) else { return };
        let at = self.place_of(key);
        self.counted.push(Counted {
            key: at,
            report: stretch.report,
            stretch: (start, end, stretch.value),
        });
        let steps = &mut self.used[at].steps;
        let verified = if report.facts.verified { stretch.value } else { 0 };
        steps.push(Step { at: start, usage: stretch.value, verified });
        steps.push(Step { at: end, usage: -stretch.value, verified: -verified });
        if steps.len() >= STEPS_COMPACT && steps.len().is_power_of_two() {
            compact(steps);
        }
    }

    /// Where the steps of a key stand.
    fn place_of(
        &mut self,
        (account, pool, subscription_id, item): (usize, Pool, &str, &str),
    ) -> usize {
        if let Some((last, at)) = &self.last
            && last.account == account
            && last.pool == pool
            && last.subscription_id == subscription_id
            && last.item == item
        {
            return *at;
        }
        let key = UsageKey {
            account,
            pool,
            subscription_id: subscription_id.to_owned(),
            item: item.to_owned(),
        };
        let (reference, months) = (self.reference, self.months);
        let at = *self.keys.entry(key.clone()).or_insert_with(|| {
            let spans = priced_spans(reference, &key, &months[account]);
            let reports = spans.into_iter().map(|span| (span, Vec::new())).collect();
            self.used.push(KeyUsage { reports, ..KeyUsage::default() });
            self.used.len() - 1
        });
        self.last = Some((key, at));
        at
    }

    /// Usage of no account.
    fn leave(&mut self, item: &str, reason: ExceptionReason, stretch: &Won, report: Named<'_>) {
        self.except(None, "", item, reason, stretch);
        if !self.unattributed.contains(report.udi()) {
            self.unattributed.insert(report.udi().clone());
        }
    }

    fn except(
        &mut self,
        account: Option<usize>,
        subscription_id: &str,
        item: &str,
        reason: ExceptionReason,
        stretch: &Won,
    ) {
        let month = account.map_or(self.utc, |a| self.months[a].span);
        if let Some((start, end)) = clip(stretch, month) {
            let key = ExceptionKey {
                account,
                subscription_id: subscription_id.to_owned(),
                item: item.to_owned(),
                reason,
            };
            *self.exceptions.entry(key).or_default() +=
                i128::from(stretch.value) * i128::from(end - start);
        }
    }
}

/// A report's facts with the names that they refer to.
#[derive(Clone, Copy)]
struct Named<'a> {
    facts: &'a ReportFacts,
    names: &'a Names,
}

impl<'a> Named<'a> {
    fn udi(self) -> &'a Udi {
        self.names.pi_of(self.facts.pi)
    }

    fn tag(self) -> &'a str {
        self.names.text_of(self.facts.tag)
    }

    fn subscription(self) -> &'a str {
        self.names.text_of(self.facts.subscription)
    }

    fn header_account(self) -> Option<(&'a str, &'a str)> {
        let (smart, virtual_) = self.facts.header_account?;
        Some((self.names.text_of(smart), self.names.text_of(virtual_)))
    }
}

/// Sums steps at the same instant, in the order of time. Two steps whose sum would not fit stay two.
pub fn compact(steps: &mut Vec<Step>) {
    steps.sort_unstable_by_key(|s| s.at);
    steps.dedup_by(|next, kept| {
        let sums = (kept.usage.checked_add(next.usage), kept.verified.checked_add(next.verified));
        match sums {
            (Some(usage), Some(verified)) if next.at == kept.at => {
                (kept.usage, kept.verified) = (usage, verified);
                true
            }
            _ => false,
        }
    });
    steps.retain(|s| s.usage != 0 || s.verified != 0);
}

fn clip(stretch: &Won, span: Span) -> Option<(EpochSeconds, EpochSeconds)> {
    let (start, end) = (stretch.start.max(span.start), stretch.end.min(span.end));
    (start < end).then_some((start, end))
}

/// Cuts a stretch along spans that do not overlap and are in the order of time; `None` between them.
fn split<T: Copy>(stretch: &Won, spans: impl Iterator<Item = (Span, T)>) -> Vec<(Won, Option<T>)> {
    let mut parts = Vec::new();
    let mut at = stretch.start;
    let part = |start, end| Won { start, end, ..*stretch };
    for (span, what) in spans {
        let (start, end) = (span.start.max(at), span.end.min(stretch.end));
        if start >= end {
            continue;
        }
        if at < start {
            parts.push((part(at, start), None));
        }
        parts.push((part(start, end), Some(what)));
        at = end;
    }
    if at < stretch.end {
        parts.push((part(at, stretch.end), None));
    }
    parts
}
