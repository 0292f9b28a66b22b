//! What was consumed and purchased on each day of a period, by customer.

use std::collections::BTreeMap;

use schemas::book::Span;
use schemas::period::{EpochSeconds, Period};

use super::plan::usage_of;
use super::run::Snapshot;
use crate::ReconcileError;
use crate::core::attribute::compact;
use crate::core::charge::{pieces, purchased};
use crate::core::measure::{Piece, clip};
use crate::core::reference::Reference;
use crate::engine::Evidence;

/// One local day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Day {
    pub start: EpochSeconds,
    /// The greatest number of licences consumed at once, summed over accounts, pools and items.
    pub consumed: i128,
    /// The greatest number purchased or committed, summed alike.
    pub purchased: i128,
}

/// The days of a period for each customer, as usage and book have them now.
///
/// # Errors
/// If the lake cannot be read.
pub async fn daily(
    snapshot: &Snapshot,
    period: Period,
) -> Result<BTreeMap<String, Vec<Day>>, ReconcileError> {
    let book = &snapshot.book.book;
    let reference = Reference::new(book);
    let months = reference.months(period);
    let evidence = Evidence::prepare(snapshot.journal.as_ref(), book).await?;
    let of_month = (&months[..], period);
    let used = usage_of(&evidence, &reference, of_month, None, &mut |_| {}).await?.keys;
    let mut customers: BTreeMap<String, Vec<Day>> = BTreeMap::new();
    for (key, mut used) in used {
        compact(&mut used.steps);
        let month = &months[key.account];
        let pieces = pieces(&used.steps, &purchased(&reference, &key), month.span);
        let days = customers.entry(reference.accounts[key.account].customer.clone()).or_default();
        // Zones differ by hours, and months have the same days everywhere.
        for (i, day) in month.day_starts.windows(2).enumerate() {
            let within = clip(&pieces, Span { start: day[0], end: day[1] });
            let greatest = |of: fn(&Piece) -> i128| within.iter().map(of).max().unwrap_or(0);
            if days.len() <= i {
                days.push(Day { start: day[0], ..Day::default() });
            }
            days[i].consumed += greatest(|p| p.consumed);
            days[i].purchased += greatest(|p| p.purchased);
        }
    }
    Ok(customers)
}
