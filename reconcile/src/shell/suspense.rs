//! What suspended reports would bill.

use std::collections::BTreeMap;

use datafusion::prelude::Expr;
use schemas::book::AccountId;
use schemas::period::{EpochSeconds, Period};

use super::plan::compute;
use super::run::Snapshot;
use crate::ReconcileError;
use crate::core::charge::Charges;
use crate::core::reference::Reference;
use crate::engine::Evidence;

/// Amounts by account and currency, in ten-thousandths of its unit.
pub type Amounts = BTreeMap<(AccountId, String), i128>;

/// By how much the targets of all months would change if the suspended reports that `which` selects were
/// accepted and nothing else, up to the month of `now`: signatures are not looked at, copies and overlaps
/// are.
///
/// # Errors
/// If the lake cannot be read.
pub async fn would_bill(
    snapshot: &Snapshot,
    which: &Expr,
    now: EpochSeconds,
) -> Result<Amounts, ReconcileError> {
    let reference = Reference::new(&snapshot.book.book);
    let journal = snapshot.journal.as_ref();
    let as_it_is = Evidence::prepare(journal, &snapshot.book.book).await?;
    let mut months = as_it_is.months_of_suspended(which.clone()).await?;
    if let Some(running) = Period::containing(now, &jiff::tz::TimeZone::UTC) {
        months.retain(|month| *month <= running);
    }
    let with = as_it_is.clone().with_suspended(which.clone());
    let mut amounts = Amounts::new();
    for period in months {
        let (now, then) = (
            compute(&as_it_is, &reference, period).await?,
            compute(&with, &reference, period).await?,
        );
        add(&mut amounts, &then, 1);
        add(&mut amounts, &now, -1);
    }
    amounts.retain(|_, amount| *amount != 0);
    Ok(amounts)
}

/// Adds what targets come to, or takes it away.
pub(super) fn add(amounts: &mut Amounts, charges: &Charges, sign: i128) {
    for target in &charges.targets {
        let account = AccountId {
            smart: target.key.smart_account.clone(),
            virtual_: target.key.virtual_account.clone(),
        };
        *amounts.entry((account, target.currency.clone())).or_default() += sign * target.amount;
    }
}
