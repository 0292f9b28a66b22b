//! Prices that posted lines stand on: a new book may supersede them, and not change them in silence.

use lake::{Lake, load_book};
use schemas::book::{Book, Price};

use super::ledger;
use crate::ReconcileError;
use crate::core::evidence::moment;
use crate::core::reference::Reference;

/// A price that lines stand on and that a new book lacks or has otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedPrice {
    /// Plan, item, charge and `valid_from`.
    pub name: String,
    pub lines: usize,
    /// False if it is there with other terms.
    pub missing: bool,
}

/// The prices of the book in force that posted lines stand on and that the new book does not have as they
/// are.
///
/// # Errors
/// If the lake cannot be read.
pub async fn changed_prices(lake: &Lake, new: &Book) -> Result<Vec<ChangedPrice>, ReconcileError> {
    let Some(table) = lake.table(schemas::ledger::TABLE).await? else { return Ok(Vec::new()) };
    let stored = load_book(lake, None).await?;
    let old = &stored.book;
    let reference = Reference::new(old);
    let mut used = vec![0usize; old.prices.len()];
    for line in ledger::all_lines(&table).await? {
        let key = &line.key;
        let Some(account) = reference.account(&key.smart_account, &key.virtual_account) else {
            continue;
        };
        let prices = reference.prices(&line.price_plan, &key.item, key.charge, account);
        let in_force = prices.iter().rev().find(|(from, _)| *from <= key.segment_start);
        if let Some((_, price)) = in_force
            && let Some(at) = old.prices.iter().position(|p| std::ptr::eq(p, *price))
        {
            used[at] += 1;
        }
    }
    let same_row = |a: &Price, b: &Price| {
        (&a.plan, &a.item, a.charge, &a.valid_from) == (&b.plan, &b.item, b.charge, &b.valid_from)
    };
    let changed = old
        .prices
        .iter()
        .zip(used)
        .filter(|(price, lines)| *lines > 0 && !new.prices.contains(price));
    Ok(changed
        .map(|(price, lines)| ChangedPrice {
            name: format!(
                "plan {}, {} {} from {}",
                price.plan,
                price.item,
                price.charge.as_str(),
                moment(&price.valid_from)
            ),
            lines,
            missing: !new.prices.iter().any(|other| same_row(price, other)),
        })
        .collect())
}
