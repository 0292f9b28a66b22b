//! The rules of the programme over what was received up to an instant: findings, deadlines, coverage.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::tz::TimeZone;
use schemas::book::Span;
use schemas::finding::Rule;
use schemas::ledger::{Charge, Pool};
use schemas::period::{EpochSeconds, Period};
use schemas::udi::Udi;

use super::plan::{compute, usage_of};
use super::run::Snapshot;
use super::suspense;
use crate::ReconcileError;
use crate::core::attribute::{UsageKey, compact};
use crate::core::charge::{pieces, purchased, segments};
use crate::core::coverage::{Coverage, coverage};
use crate::core::deadlines::{DAY, Deadline, deadlines};
use crate::core::findings::{Finding, convertible, findings};
use crate::core::history::{Fleet, History};
use crate::core::measure::{Piece, clip, measure};
use crate::core::rate;
use crate::core::reference::{Month, Reference};
use crate::engine::{self, Evidence};

/// Months that a table of coverage reaches back.
const MONTHS_MAX: usize = 120;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// An amount in ten-thousandths of the currency's unit.
pub type Amount = (i128, String);

/// What a lake held up to an instant.
pub struct Compliance<'s> {
    snapshot: &'s Snapshot,
    reference: Reference<'s>,
    history: History,
    groups: HashMap<Udi, u64>,
    evidence: Evidence,
    at: EpochSeconds,
}

/// A finding, with what is at stake: what its licences cost in the month that leads up to the instant, at
/// the price in force at its end, as if used all of it; `None` where nothing is charged for them.
#[derive(Clone, Debug)]
pub struct FindingAtStake {
    pub finding: Finding,
    pub amount: Option<Amount>,
}

/// A deadline, with what hangs on it: what the licences that the PI last used cost in a month.
#[derive(Clone, Debug)]
pub struct DeadlineAtStake {
    pub deadline: Deadline,
    pub amounts: Vec<Amount>,
}

/// What falls due on one day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueDay {
    pub pis: u64,
    /// By currency.
    pub amounts: BTreeMap<String, i128>,
}

/// Coverage of one account in a period, and what its gaps would bill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountCoverage {
    pub expected: i64,
    pub covered: i64,
    pub pis: u64,
    pub silent: u64,
    pub lost: u64,
    pub unseen: i128,
    /// By how much the targets would change if usage had stayed as it was, by currency.
    pub would_bill: BTreeMap<String, i128>,
}

impl<'s> Compliance<'s> {
    /// Reads what was received up to an instant.
    ///
    /// # Errors
    /// If the lake cannot be read.
    pub async fn read(snapshot: &'s Snapshot, at: EpochSeconds) -> Result<Compliance<'s>> {
        let book = &snapshot.book.book;
        let journal = snapshot.journal.as_ref();
        let history = engine::read_history(journal, at).await?;
        // What was received later joined nothing yet.
        let groups = history.groups(engine::alone(book));
        let numbers: HashMap<Udi, u64> = groups.clone().finish().into_iter().collect();
        let evidence = Evidence::of_groups(journal, groups, book).await?.received_by(at);
        Ok(Compliance {
            snapshot,
            reference: Reference::new(book),
            history,
            groups: numbers,
            evidence,
            at,
        })
    }

    /// Gives back the memory of what was reported, when all that is asked of it is computed.
    pub fn forget_reports(&mut self) {
        self.history = History::default();
    }

    #[must_use]
    pub fn account(&self, index: usize) -> &schemas::book::Account {
        &self.reference.accounts[index]
    }

    /// All findings, in the order of PI, rule and entitlement; those of accounts as a whole last.
    ///
    /// # Errors
    /// If the lake cannot be read, or an amount does not fit.
    pub async fn findings(&self) -> Result<Vec<FindingAtStake>> {
        let book = &self.snapshot.book.book;
        let fleet = self.fleet();
        let mut all = findings(&fleet);
        all.extend(convertible(&fleet, book, self.at));
        all.extend(self.shortages().await?);
        let months = self.months();
        all.into_iter()
            .map(|finding| {
                let amount = match (finding.account, finding.licenses) {
                    (Some(account), 1..) => {
                        let used = (finding.entitlement.as_str(), finding.licenses);
                        self.worth(account, used, finding.utility, &months)?
                    }
                    _ => None,
                };
                Ok(FindingAtStake { finding, amount })
            })
            .collect()
    }

    /// What every PI owes.
    ///
    /// # Errors
    /// If an amount does not fit.
    pub fn deadlines(&self) -> Result<Vec<DeadlineAtStake>> {
        let months = self.months();
        self.bare_deadlines()
            .into_iter()
            .map(|deadline| {
                let mut by_currency: BTreeMap<String, i128> = BTreeMap::new();
                for (tag, value) in &deadline.licenses {
                    let Some(account) = deadline.account else { continue };
                    let worth = self.worth(account, (tag, *value), deadline.utility, &months)?;
                    if let Some((amount, currency)) = worth {
                        *by_currency.entry(currency).or_default() += amount;
                    }
                }
                let amounts = by_currency.into_iter().map(|(c, amount)| (amount, c)).collect();
                Ok(DeadlineAtStake { deadline, amounts })
            })
            .collect()
    }

    fn fleet(&self) -> Fleet<'_> {
        Fleet::new(&self.snapshot.book.book, &self.reference, &self.history)
    }

    fn bare_deadlines(&self) -> Vec<Deadline> {
        deadlines(&self.fleet(), &self.snapshot.book.book, &self.groups, self.at)
    }

    /// The coverage of every PI and entitlement in a period.
    #[must_use]
    pub fn coverage(&self, period: Period) -> Vec<Coverage> {
        self.coverage_of(&[period]).pop().unwrap_or_default()
    }

    /// The same of several periods, in their order; what is owed is computed once for all.
    #[must_use]
    pub fn coverage_of(&self, periods: &[Period]) -> Vec<Vec<Coverage>> {
        let (fleet, owed) = (self.fleet(), self.bare_deadlines());
        let of_period = |period: &Period| {
            let months = self.reference.months(*period);
            let utc = Month::new(*period, &TimeZone::UTC).span;
            coverage(&fleet, &owed, &self.groups, &months, utc, self.at)
        };
        periods.iter().map(of_period).collect()
    }

    /// The months from the first usage to an instant, of which the last ten years.
    #[must_use]
    pub fn months_up_to(&self, at: EpochSeconds) -> Vec<Period> {
        let uses = self.history.heard.values().flatten().flat_map(|heard| heard.uses.iter());
        let first = uses.map(|of| of.start).min().unwrap_or(at);
        let utc = TimeZone::UTC;
        // Where it is another day already, or still, it may be another month.
        let bounds = Period::containing(first - DAY, &utc).zip(Period::containing(at + DAY, &utc));
        let Some((mut period, last)) = bounds else { return Vec::new() };
        let mut periods = Vec::new();
        while period <= last {
            periods.push(period);
            period = period.next();
        }
        periods.split_off(periods.len().saturating_sub(MONTHS_MAX))
    }

    /// The coverage of every account in a period; what no account is known for comes under `None`.
    ///
    /// # Errors
    /// If the lake cannot be read, or an amount does not fit.
    pub async fn account_coverage(
        &self,
        period: Period,
    ) -> Result<BTreeMap<Option<usize>, AccountCoverage>> {
        let of_pis = self.coverage(period);
        let mut accounts: BTreeMap<Option<usize>, AccountCoverage> = BTreeMap::new();
        // A PI has a row for each of its licences, and counts once.
        let mut counted: HashSet<(Option<usize>, &Udi, &str)> = HashSet::new();
        for one in &of_pis {
            let account = accounts.entry(one.account).or_default();
            let mut counts = |what| u64::from(counted.insert((one.account, &one.udi, what)));
            account.expected += one.expected;
            account.covered += one.covered;
            account.pis += counts("");
            match one.state {
                "silent" => account.silent += counts("silent"),
                "lost" => account.lost += counts("lost"),
                _ => {}
            }
            account.unseen += one.unseen();
        }
        let fills: Vec<engine::Fill> = of_pis
            .iter()
            .flat_map(|one| {
                one.gaps
                    .iter()
                    .filter(|gap| gap.value > 0)
                    .map(|gap| engine::Fill { tag: one.entitlement.clone(), gap: gap.clone() })
            })
            .collect();
        if fills.is_empty() {
            return Ok(accounts);
        }
        let filled = self.evidence.clone().with_fills(fills);
        let mut amounts = suspense::Amounts::new();
        suspense::add(&mut amounts, &compute(&filled, &self.reference, period).await?, 1);
        suspense::add(&mut amounts, &compute(&self.evidence, &self.reference, period).await?, -1);
        for ((account, currency), amount) in amounts {
            let held = accounts.entry(self.reference.account_of(&account)).or_default();
            if amount != 0 {
                held.would_bill.insert(currency, amount);
            }
        }
        Ok(accounts)
    }

    /// The time that each customer's PIs are to account for in a period, and what of it reports cover, in
    /// seconds.
    #[must_use]
    pub fn customer_coverage(&self, period: Period) -> BTreeMap<String, (i64, i64)> {
        let mut customers: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for one in self.coverage(period) {
            let Some(account) = one.account else { continue };
            let customer = self.account(account).customer.clone();
            let held = customers.entry(customer).or_default();
            *held = (held.0 + one.expected, held.1 + one.covered);
        }
        customers
    }

    /// The month that leads up to the instant, in an account's zone: at its very start, the one before.
    fn month_of(&self, account: &schemas::book::Account) -> Option<Period> {
        Period::containing(self.at - 1, &account.zone)
    }

    /// Of all accounts.
    fn months(&self) -> Vec<Month> {
        let month_of = |account: &schemas::book::Account| {
            self.month_of(account).map(|p| Month::new(p, &account.zone))
        };
        let nothing = Month { span: Span { start: 0, end: 1 }, day_starts: vec![0, 1] };
        let accounts = self.reference.accounts.iter();
        accounts.map(|a| month_of(a).unwrap_or_else(|| nothing.clone())).collect()
    }

    /// What so many licences cost, used all of the month.
    fn worth(
        &self,
        account: usize,
        (tag, licenses): (&str, i64),
        utility: bool,
        months: &[Month],
    ) -> Result<Option<Amount>> {
        let reference = &self.reference;
        let is_postpaid =
            utility && reference.catalog_entry(tag).is_some_and(|entry| entry.postpaid_allowed);
        let subscription = reference
            .subscriptions_of_tag(account, tag)
            .iter()
            .find(|s| is_postpaid && s.valid.contains(self.at - 1));
        let key = UsageKey {
            account,
            pool: if subscription.is_some() { Pool::Postpaid } else { Pool::Prepaid },
            subscription_id: subscription.map(|s| s.id.clone()).unwrap_or_default(),
            item: reference.item(tag).to_owned(),
        };
        let month = &months[account];
        let of_month = segments(reference, &key, month, Charge::Usage);
        let price = of_month.iter().find(|s| s.span.contains(self.at - 1)).and_then(|s| s.price);
        let Some(price) = price else { return Ok(None) };
        let used = Piece {
            start: month.span.start,
            end: month.span.end,
            consumed: i128::from(licenses),
            verified: 0,
            purchased: 0,
        };
        let quantity = measure(price.measure, &[used], month.span, month, |p| p.consumed);
        Ok(Some((rate::amount(price, quantity)?, price.currency.clone())))
    }

    /// What accounts consumed in the month that leads up to the instant beyond what they purchased (R4.2).
    async fn shortages(&self) -> Result<Vec<Finding>> {
        let mut periods: BTreeMap<Period, BTreeSet<usize>> = BTreeMap::new();
        for (i, account) in self.reference.accounts.iter().enumerate() {
            if let Some(period) = self.month_of(account) {
                periods.entry(period).or_default().insert(i);
            }
        }
        let mut all = Vec::new();
        for (period, accounts) in periods {
            let months = self.reference.months(period);
            let of_month = (&months[..], period);
            let usage =
                usage_of(&self.evidence, &self.reference, of_month, None, &mut |_| {}).await?.keys;
            for (key, mut used) in usage {
                if key.pool != Pool::Prepaid || !accounts.contains(&key.account) {
                    continue;
                }
                compact(&mut used.steps);
                let month = months[key.account].span;
                let all_pieces = pieces(&used.steps, &purchased(&self.reference, &key), month);
                let so_far = Span { start: month.start, end: month.end.min(self.at) };
                let short: Vec<Piece> =
                    clip(&all_pieces, so_far).into_iter().filter(|p| p.delta() > 0).collect();
                let (Some(first), Some(last)) = (short.first(), short.last()) else { continue };
                let most = short.iter().map(Piece::delta).max().unwrap_or(0);
                all.push(Finding {
                    rule: Rule::Shortage,
                    account: Some(key.account),
                    udi: None,
                    entitlement: key.item,
                    since: first.start,
                    last: last.end,
                    licenses: i64::try_from(most).unwrap_or(i64::MAX),
                    reports: Vec::new(),
                    reports_total: 0,
                    detail: format!("up to {most} more than purchased in {period}"),
                    utility: false,
                });
            }
        }
        Ok(all)
    }
}

/// By day (UTC), what falls due after an instant and within so many days.
#[must_use]
pub fn forecast(
    deadlines: &[DeadlineAtStake],
    at: EpochSeconds,
    days: u32,
) -> BTreeMap<EpochSeconds, DueDay> {
    let until = at + EpochSeconds::from(days) * DAY;
    let mut by_day: BTreeMap<EpochSeconds, DueDay> = BTreeMap::new();
    for one in deadlines {
        let Some(due) = one.deadline.due().filter(|due| *due > at && *due <= until) else {
            continue;
        };
        let day = by_day.entry(due.div_euclid(DAY) * DAY).or_default();
        day.pis += 1;
        for (amount, currency) in &one.amounts {
            *day.amounts.entry(currency.clone()).or_default() += amount;
        }
    }
    by_day
}
