//! Target minus posted (contract 3.9): what a run adds to the ledger.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{Context, SHA256};
use schemas::ledger::{ChargeKey, Kind, Line, Measure};
use schemas::period::{EpochSeconds, Period};

use super::charge::Target;
use super::evidence::Roots;

/// What the ledger holds of one key and currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    pub quantity: i128,
    pub amount: i128,
    /// Of the last line.
    pub customer: String,
    pub measure: Measure,
    pub price_plan: String,
    pub segment_end: EpochSeconds,
    pub usage_root: String,
    pub terms_leaf: String,
    pub purchased_leaf: String,
}

/// What the ledger holds of one service period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub posted: BTreeMap<(ChargeKey, String), Posted>,
    /// Lines that each key already has.
    pub lines: BTreeMap<ChargeKey, u64>,
    pub closed: BTreeSet<Period>,
}

impl Ledger {
    /// Takes in one posted line, in the order of posting.
    pub fn take(&mut self, line: &Line) {
        *self.lines.entry(line.key.clone()).or_default() += 1;
        let posted =
            self.posted.entry((line.key.clone(), line.currency.clone())).or_insert_with(|| {
                Posted {
                    quantity: 0,
                    amount: 0,
                    customer: String::new(),
                    measure: line.measure,
                    price_plan: String::new(),
                    segment_end: line.segment_end,
                    usage_root: String::new(),
                    terms_leaf: String::new(),
                    purchased_leaf: String::new(),
                }
            });
        posted.quantity += line.quantity;
        posted.amount += line.amount;
        posted.customer.clone_from(&line.customer);
        posted.measure = line.measure;
        posted.price_plan.clone_from(&line.price_plan);
        posted.segment_end = line.segment_end;
        posted.usage_root.clone_from(&line.usage_root);
        posted.terms_leaf.clone_from(&line.terms_leaf);
        posted.purchased_leaf.clone_from(&line.purchased_leaf);
    }
}

/// The lines that bring the ledger to the targets, ordered by key. `correction` is the
/// reason for which the book changes what was charged, or blank; `keep` tells which keys this run speaks
/// of (all, or those of one account).
#[must_use]
pub fn adjust(
    targets: Vec<Target>,
    ledger: &Ledger,
    service_period: Period,
    correction: &str,
    keep: impl Fn(&ChargeKey) -> bool,
) -> Vec<Line> {
    let mut due: BTreeMap<(ChargeKey, String), Option<Target>> =
        ledger.posted.keys().map(|key| (key.clone(), None)).collect();
    for target in targets {
        due.insert((target.key.clone(), target.currency.clone()), Some(target));
    }
    let open_period = earliest_open(service_period, &ledger.closed);
    let mut counts = ledger.lines.clone();
    let mut lines = Vec::new();
    for ((key, currency), target) in due.into_iter().filter(|((key, _), _)| keep(key)) {
        let posted = ledger.posted.get(&(key.clone(), currency.clone()));
        let (held_quantity, held_amount) = posted.map_or((0, 0), |p| (p.quantity, p.amount));
        let (quantity, amount) = target.as_ref().map_or((0, 0), |t| (t.quantity, t.amount));
        if (quantity, amount) == (held_quantity, held_amount) {
            continue;
        }
        let count = counts.entry(key.clone()).or_default();
        let first_in_own_period = *count == 0 && open_period == service_period;
        let lines_before = *count;
        *count += 1;
        let cause = match (&target, first_in_own_period) {
            (_, true) => String::new(),
            (None, _) => VANISHED.to_owned(),
            (Some(target), _) => cause(target, posted, correction),
        };
        // Of a vanished target, what was charged last still names plan and measure.
        let present = target.unwrap_or_else(|| vanished(&key, &currency, posted));
        lines.push(Line {
            line_id: line_id(&key, lines_before),
            posted_period: open_period,
            service_period,
            kind: if first_in_own_period { Kind::Charge } else { Kind::Adjustment },
            customer: present.customer,
            measure: present.measure,
            consumed: present.consumed,
            purchased: present.purchased,
            quantity: quantity - held_quantity,
            amount: amount - held_amount,
            currency,
            price_plan: present.price_plan,
            verified_share: present.verified_share,
            evidence_root: present.roots.evidence.to_string(),
            segment_end: present.segment_end,
            lines_before,
            quantity_before: held_quantity,
            amount_before: held_amount,
            cause,
            usage_root: present.roots.usage.to_string(),
            terms_leaf: present.roots.terms.to_string(),
            purchased_leaf: present.roots.purchased.to_string(),
            posting: None,
            key,
        });
    }
    lines
}

fn vanished(key: &ChargeKey, currency: &str, posted: Option<&Posted>) -> Target {
    Target {
        key: key.clone(),
        customer: posted.map(|p| p.customer.clone()).unwrap_or_default(),
        currency: currency.to_owned(),
        price_plan: posted.map(|p| p.price_plan.clone()).unwrap_or_default(),
        measure: posted.map_or(Measure::Peak, |p| p.measure),
        consumed: 0,
        purchased: 0,
        quantity: 0,
        amount: 0,
        verified_share: None,
        segment_end: posted.map_or(key.segment_start, |p| p.segment_end),
        roots: Roots::vanished(),
    }
}

/// The cause of a line that takes back what is not due any more.
const VANISHED: &str = "vanished";

/// What changed since the last line of a key: usage (late reports, or devices that moved), purchases, or
/// terms (price, tiers, plan, zone), with the reason that the book's import gave. Of a key's first line: late usage, or purchases alone.
fn cause(target: &Target, posted: Option<&Posted>, correction: &str) -> String {
    let Some(posted) = posted else {
        let used = target.roots.usage != Roots::vanished().usage;
        return if used { "usage" } else { "purchases" }.to_owned();
    };
    let changed: Vec<&str> = [
        ("usage", target.roots.usage, &posted.usage_root),
        ("purchases", target.roots.purchased, &posted.purchased_leaf),
        ("terms", target.roots.terms, &posted.terms_leaf),
    ]
    .into_iter()
    .filter(|(_, now, before)| now.to_string() != **before)
    .map(|(word, ..)| word)
    .collect();
    let words = changed.join("+");
    if changed.contains(&"terms") && !correction.is_empty() {
        return format!("{words}: {correction}");
    }
    words
}

/// The service period while it is open, else the earliest open period after it.
fn earliest_open(service_period: Period, closed: &BTreeSet<Period>) -> Period {
    let mut period = service_period;
    while closed.contains(&period) {
        period = period.next();
    }
    period
}

/// Gives lines of one service period ids of their own, where their keys have so many lines of others too: the zone
/// of an account was another one, and a segment that starts at this instant was of the month before or after.
pub fn tell_apart(lines: &mut [Line], elsewhere: &BTreeMap<ChargeKey, u64>) {
    for line in lines {
        if let Some(count) = elsewhere.get(&line.key) {
            line.line_id = line_id(&line.key, line.lines_before + count);
        }
    }
}

/// The id of a line: a hash of its key and of the number of lines that the key already has. So a dry
/// run gives the ids that the run will give, and a line can be told from its forerunner.
fn line_id(key: &ChargeKey, lines_before: u64) -> String {
    let mut context = Context::new(&SHA256);
    let segment_start = key.segment_start.to_string();
    for part in [
        key.smart_account.as_str(),
        &key.virtual_account,
        key.pool.as_str(),
        &key.subscription_id,
        &key.item,
        key.charge.as_str(),
        &segment_start,
    ] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.update(&lines_before.to_be_bytes());
    context.finish().as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect()
}
