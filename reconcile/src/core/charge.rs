//! From usage and the book to targets: what each key should come to (contract 3.5 to 3.9).

use std::collections::{BTreeMap, BTreeSet};

use schemas::book::{Price, Span};
use schemas::ledger::{Charge, ChargeKey, Measure, Pool};
use schemas::merkle::Hash;
use schemas::period::EpochSeconds;
use schemas::quantity::divide_half_even;

use super::attribute::{
    ExceptionKey, ExceptionReason, Exceptions, KeyUsage, Step, UsageKey, compact,
};
use super::evidence::{InForce, Roots, purchased_entry, terms_entry};
use super::measure::{Piece, clip, integral, measure};
use super::rate::{RateError, amount};
use super::reference::{self, Month, Reference};

/// What one key should come to, as things stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub key: ChargeKey,
    pub customer: String,
    pub currency: String,
    pub price_plan: String,
    pub measure: Measure,
    /// The measures of Q and P, in millionths.
    pub consumed: i128,
    pub purchased: i128,
    pub quantity: i128,
    /// In ten-thousandths of the currency's unit.
    pub amount: i128,
    /// In millionths; `None` where nothing was consumed.
    pub verified_share: Option<i128>,
    pub segment_end: EpochSeconds,
    pub roots: Roots,
}

/// Licence-seconds of one account and item, for the identity of contract 3.10:
/// usage = covered + billed + excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// ∫ Q of both pools.
    pub consumed: i128,
    /// ∫ min(Q, P).
    pub covered: i128,
    /// ∫ D of segments with a price.
    pub billed: i128,
    /// ∫ D without one.
    pub unpriced: i128,
}

/// All targets of a period, and what could not be priced.
#[derive(Debug, Default)]
pub struct Charges {
    pub targets: Vec<Target>,
    pub exceptions: Exceptions,
    pub balances: BTreeMap<(usize, String), Balance>,
}

/// Computes the targets of every key that has usage or a commitment in the period.
///
/// # Errors
/// If an amount does not fit a ledger line.
pub fn charges(
    reference: &Reference<'_>,
    months: &[Month],
    mut usage: BTreeMap<UsageKey, KeyUsage>,
    exceptions: Exceptions,
) -> Result<Charges, RateError> {
    for (account, id, item) in reference.committed() {
        usage
            .entry(UsageKey {
                account,
                pool: Pool::Postpaid,
                subscription_id: id.to_owned(),
                item: item.to_owned(),
            })
            .or_default();
    }
    let mut charges = Charges { exceptions, ..Charges::default() };
    for (key, mut used) in usage {
        compact(&mut used.steps);
        let month = &months[key.account];
        let purchases = purchased(reference, &key);
        let pieces = pieces(&used.steps, &purchases, month.span);
        let plans = plans(reference, &key, month.span);
        let account = Account {
            reference,
            month,
            key: &key,
            pieces: &pieces,
            purchases: &purchases,
            reports: &used.reports,
        };
        account.charge_usage(&plans, &mut charges)?;
        if is_committed(reference, &key) {
            account.charge_commitment(&plans, &mut charges)?;
        }
    }
    Ok(charges)
}

/// Whether a key is of a subscription that commits to something, in one of its rows at least.
#[must_use]
pub fn is_committed(reference: &Reference<'_>, key: &UsageKey) -> bool {
    match key.pool {
        Pool::Prepaid => false,
        Pool::Postpaid => reference::is_committed(reference.subscription(
            key.account,
            &key.subscription_id,
            &key.item,
        )),
    }
}

/// What P is made of: purchases, or the committed quantity of the subscription.
#[must_use]
pub fn purchased(reference: &Reference<'_>, key: &UsageKey) -> Vec<InForce> {
    match key.pool {
        Pool::Prepaid => reference
            .purchases(key.account, &key.item)
            .iter()
            .map(|p| (p.id.clone(), p.valid, p.quantity))
            .collect(),
        Pool::Postpaid => reference
            .subscription(key.account, &key.subscription_id, &key.item)
            .iter()
            .map(|s| (s.id.clone(), s.valid, s.committed_quantity))
            .collect(),
    }
}

/// Cuts the month where Q or P changes; the pieces tile it.
#[must_use]
pub fn pieces(steps: &[Step], purchases: &[InForce], month: Span) -> Vec<Piece> {
    let mut changes: Vec<(EpochSeconds, i128, i128, i128)> =
        steps.iter().map(|s| (s.at, i128::from(s.usage), i128::from(s.verified), 0)).collect();
    for (_, span, quantity) in purchases {
        let (start, end) = (span.start.max(month.start), span.end.min(month.end));
        if start < end {
            changes.push((start, 0, 0, i128::from(*quantity)));
            changes.push((end, 0, 0, -i128::from(*quantity)));
        }
    }
    changes.sort_unstable_by_key(|c| c.0);
    let mut pieces = Vec::new();
    let mut piece =
        Piece { start: month.start, end: month.end, consumed: 0, verified: 0, purchased: 0 };
    for (at, usage, verified, purchase) in changes {
        if at > piece.start && at < month.end {
            pieces.push(Piece { end: at, ..piece });
            piece.start = at;
        }
        if at >= month.end {
            break;
        }
        piece.consumed += usage;
        piece.verified += verified;
        piece.purchased += purchase;
    }
    pieces.push(piece);
    pieces
}

/// A stretch of the month under one plan, or under none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlanRun<'b> {
    span: Span,
    plan: Option<&'b str>,
}

/// Appends a run, joining it to the one before if the plan stays.
fn push_run<'b>(runs: &mut Vec<PlanRun<'b>>, span: Span, plan: Option<&'b str>) {
    if span.start >= span.end {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.plan == plan => last.span.end = span.end,
        _ => runs.push(PlanRun { span, plan }),
    }
}

/// A row of the book that names a plan for as long as it is in force.
struct Names<'b> {
    valid: Span,
    /// Decides between rows that start together: the greatest.
    rank: (&'b str, &'b str),
    plan: &'b str,
}

/// The plan at any instant: that of the row in force with the latest start; where none is in force, what `otherwise`
/// says for that instant. A blank plan of that row is no plan.
fn plan_runs<'b>(
    rows: &[Names<'b>],
    month: Span,
    otherwise: impl Fn(EpochSeconds) -> Option<&'b str>,
) -> Vec<PlanRun<'b>> {
    let mut changes: Vec<(EpochSeconds, bool, usize)> = Vec::new();
    for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.valid.overlaps(month)) {
        changes.push((row.valid.start.max(month.start), true, i));
        changes.push((row.valid.end.min(month.end), false, i));
    }
    changes.sort_unstable();
    let mut in_force: BTreeSet<(EpochSeconds, (&str, &str), usize)> = BTreeSet::new();
    let mut runs = Vec::new();
    let mut since = month.start;
    let mut push = |in_force: &BTreeSet<_>, since, until| {
        let row = in_force.last().map(|&(_, _, i): &(_, _, usize)| rows[i].plan);
        let plan = row.or_else(|| otherwise(since)).filter(|plan| !plan.is_empty());
        push_run(&mut runs, Span { start: since, end: until }, plan);
    };
    for (at, starts, i) in changes {
        if at > since {
            push(&in_force, since, at);
            since = at;
        }
        let entry = (rows[i].valid.start, rows[i].rank, i);
        if starts {
            in_force.insert(entry);
        } else {
            in_force.remove(&entry);
        }
    }
    push(&in_force, since, month.end);
    runs
}

/// The plan of prepaid usage: that of the purchase in force with the latest start, ties: greatest id (contract
/// 3.6), then greatest plan; none where none is in force.
fn prepaid_plans<'b>(reference: &Reference<'b>, key: &UsageKey, month: Span) -> Vec<PlanRun<'b>> {
    let purchases = reference.purchases(key.account, &key.item).iter();
    let rows: Vec<Names<'b>> = purchases
        .map(|p| Names { valid: p.valid, rank: (&p.id, &p.price_plan), plan: &p.price_plan })
        .collect();
    plan_runs(&rows, month, |_| None)
}

/// The plan of a post-paid charge is its subscription's. Where an id recurs, for later times or for another tag of
/// the item, that of the row in force with the latest start, ties: greatest tag. A subscription's own start and end
/// do not split the period, since outside them Q and P are 0: where no row is in force, the one that started last
/// holds; before the first, the first.
fn postpaid_plans<'b>(reference: &Reference<'b>, key: &UsageKey, month: Span) -> Vec<PlanRun<'b>> {
    let rows = reference.subscription(key.account, &key.subscription_id, &key.item);
    let names: Vec<Names<'b>> = rows
        .iter()
        .map(|s| Names { valid: s.valid, rank: (&s.tag, &s.price_plan), plan: &s.price_plan })
        .collect();
    plan_runs(&names, month, |at| {
        let started = rows.partition_point(|row| row.valid.start <= at);
        rows.get(started.saturating_sub(1)).map(|row| row.price_plan.as_str())
    })
}

fn plans<'b>(reference: &Reference<'b>, key: &UsageKey, month: Span) -> Vec<PlanRun<'b>> {
    match key.pool {
        Pool::Prepaid => prepaid_plans(reference, key, month),
        Pool::Postpaid => postpaid_plans(reference, key, month),
    }
}

/// A segment of the month, and the price in force at its start.
pub struct Segment<'b> {
    pub span: Span,
    pub plan: Option<&'b str>,
    pub price: Option<&'b Price>,
}

/// The segments of a charge in a month.
#[must_use]
pub fn segments<'b>(
    reference: &Reference<'b>,
    key: &UsageKey,
    month: &Month,
    charge: Charge,
) -> Vec<Segment<'b>> {
    split_at_prices(reference, key, &plans(reference, key, month.span), charge)
}

/// The stretches of a month that a line of the key may be about.
#[must_use]
pub fn priced_spans(reference: &Reference<'_>, key: &UsageKey, month: &Month) -> Vec<Span> {
    let plans = plans(reference, key, month.span);
    let mut spans: Vec<Span> = Vec::new();
    for charge in [Charge::Usage, Charge::Commit] {
        if charge == Charge::Commit && key.pool == Pool::Prepaid {
            continue;
        }
        for segment in split_at_prices(reference, key, &plans, charge) {
            if segment.price.is_some() && !spans.contains(&segment.span) {
                spans.push(segment.span);
            }
        }
    }
    spans
}

/// Splits the runs of plans at every start of a price inside them.
fn split_at_prices<'b>(
    reference: &Reference<'b>,
    key: &UsageKey,
    runs: &[PlanRun<'b>],
    charge: Charge,
) -> Vec<Segment<'b>> {
    let mut segments = Vec::new();
    for run in runs {
        let prices = run
            .plan
            .map(|plan| reference.prices(plan, &key.item, charge, key.account))
            .unwrap_or_default();
        let mut bounds: Vec<EpochSeconds> = prices
            .iter()
            .map(|(from, _)| *from)
            .filter(|from| run.span.start < *from && *from < run.span.end)
            .collect();
        bounds.dedup();
        bounds.insert(0, run.span.start);
        bounds.push(run.span.end);
        for pair in bounds.windows(2) {
            let in_force = prices.iter().rev().find(|(from, _)| *from <= pair[0]);
            segments.push(Segment {
                span: Span { start: pair[0], end: pair[1] },
                plan: run.plan,
                price: in_force.map(|(_, price)| *price),
            });
        }
    }
    segments
}

struct Account<'a, 'b> {
    reference: &'a Reference<'b>,
    month: &'a Month,
    key: &'a UsageKey,
    pieces: &'a [Piece],
    purchases: &'a [InForce],
    reports: &'a [(Span, Vec<Hash>)],
}

impl<'b> Account<'_, 'b> {
    fn charge_usage(&self, runs: &[PlanRun<'b>], charges: &mut Charges) -> Result<(), RateError> {
        let mut balance = Balance::default();
        for segment in split_at_prices(self.reference, self.key, runs, Charge::Usage) {
            let pieces = clip(self.pieces, segment.span);
            let over = integral(&pieces, Piece::delta);
            balance.consumed += integral(&pieces, |p| p.consumed);
            balance.covered += integral(&pieces, |p| p.consumed.min(p.purchased));
            match segment.price {
                Some(price) => {
                    balance.billed += over;
                    charges.targets.push(self.target(&segment, price, &pieces, Charge::Usage)?);
                }
                None if over > 0 => {
                    balance.unpriced += over;
                    let key = ExceptionKey {
                        account: Some(self.key.account),
                        subscription_id: self.key.subscription_id.clone(),
                        item: self.key.item.clone(),
                        reason: ExceptionReason::PriceUnknown,
                    };
                    *charges.exceptions.entry(key).or_default() += over;
                }
                None => {}
            }
        }
        let total = charges.balances.entry((self.key.account, self.key.item.clone())).or_default();
        total.consumed += balance.consumed;
        total.covered += balance.covered;
        total.billed += balance.billed;
        total.unpriced += balance.unpriced;
        Ok(())
    }

    /// The measure of P instead of D, due also where nothing was consumed. No price for it is no
    /// exception.
    fn charge_commitment(
        &self,
        runs: &[PlanRun<'b>],
        charges: &mut Charges,
    ) -> Result<(), RateError> {
        for segment in split_at_prices(self.reference, self.key, runs, Charge::Commit) {
            if let Some(price) = segment.price {
                let pieces = clip(self.pieces, segment.span);
                charges.targets.push(self.target(&segment, price, &pieces, Charge::Commit)?);
            }
        }
        Ok(())
    }

    fn target(
        &self,
        segment: &Segment<'b>,
        price: &Price,
        pieces: &[Piece],
        charge: Charge,
    ) -> Result<Target, RateError> {
        let account = &self.reference.accounts[self.key.account];
        let of = |value: fn(&Piece) -> i128| {
            measure(price.measure, pieces, segment.span, self.month, value)
        };
        let quantity = match charge {
            Charge::Usage => of(Piece::delta),
            Charge::Commit => of(|p| p.purchased),
        };
        let plan = segment.plan.unwrap_or_default();
        let reports = self.reports.iter().find(|(span, _)| *span == segment.span);
        let roots = Roots::new(
            &terms_entry(price, plan, segment.span, self.month),
            &purchased_entry(self.purchases, segment.span),
            reports.map(|(_, hashes)| hashes.clone()).unwrap_or_default(),
        );
        let consumed_seconds = integral(pieces, |p| p.consumed);
        let verified_seconds = integral(pieces, |p| p.verified);
        Ok(Target {
            key: ChargeKey {
                smart_account: account.id.smart.clone(),
                virtual_account: account.id.virtual_.clone(),
                pool: self.key.pool,
                subscription_id: self.key.subscription_id.clone(),
                item: self.key.item.clone(),
                charge,
                segment_start: segment.span.start,
            },
            customer: account.customer.clone(),
            currency: account.currency.clone(),
            price_plan: plan.to_owned(),
            measure: price.measure,
            consumed: of(|p| p.consumed),
            purchased: of(|p| p.purchased),
            quantity,
            amount: amount(price, quantity)?,
            verified_share: divide_half_even(verified_seconds * 1_000_000, consumed_seconds),
            segment_end: segment.span.end,
            roots,
        })
    }
}
