//! Prices that posted lines stand on: a new book may supersede them, and not change them in silence.

use std::collections::BTreeMap;

use lake::{Appended, Import, Lake, Table, Written, load_book, save_book, take_back_book};
use schemas::book::{Book, Cells, Price};

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

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Imported {
    /// The book of this version is in force.
    InForce(u64),
    /// It changes prices that lines stand on, without a reason; the book before is in force.
    Refused(Vec<ChangedPrice>),
}

/// The counter in the ledger's log that names the book imported last.
const MARK: &str = "book";

/// Replaces the whole book, unless it changes a price that posted lines stand on and does not say why.
///
/// The book and the ledger are two tables, so no commit is one of both. The ledger is pinned before its lines are
/// looked at, and marked once the book is saved: a run that read the book before, and has not posted yet, finds the
/// ledger changed and starts anew. Where a run was faster than the mark, the lines are looked at again, and the book
/// is taken back if it is one that would have been refused.
///
/// # Errors
/// If the lake cannot be read or written.
pub async fn import(
    lake: &Lake,
    cells: &BTreeMap<String, Cells>,
    new: &Book,
    import: &Import,
) -> Result<Imported, ReconcileError> {
    let changed = async |ledger: Option<&Table>, old: &Book| match ledger {
        Some(ledger) if import.corrects.is_empty() => changed_prices(ledger, old, new).await,
        _ => Ok(Vec::new()),
    };
    let mut ledger = lake.table(schemas::ledger::TABLE).await?;
    let old = load_book(lake, None).await?;
    let refused = changed(ledger.as_ref(), &old.book).await?;
    if !refused.is_empty() {
        return Ok(Imported::Refused(refused));
    }
    let version = save_book(lake, cells, import).await?;
    let before = version.checked_sub(1);
    // Of two imports at once the later one replaces the earlier one's book, not the one that it was compared with.
    let mut compared = old.version.is_none() || old.version == before;
    loop {
        if !compared {
            let old = load_book(lake, before).await?;
            let refused = changed(ledger.as_ref(), &old.book).await?;
            if !refused.is_empty() {
                take_back_book(lake, version).await?;
                return Ok(Imported::Refused(refused));
            }
        }
        let is_in_force = match &mut ledger {
            None => {
                ledger = lake.table(schemas::ledger::TABLE).await?;
                ledger.is_none()
            }
            Some(table) => {
                let mark = (MARK.to_owned(), i64::try_from(version).unwrap_or(i64::MAX));
                let marked = table.commit_once(&Written::default(), &[], &[mark]).await?;
                let is_marked = matches!(marked, Appended::Committed(_));
                if !is_marked {
                    table.refresh().await?;
                }
                is_marked
            }
        };
        if is_in_force {
            return Ok(Imported::InForce(version));
        }
        compared = false;
    }
}

/// The prices of a book that posted lines stand on and that a new book does not have as they are.
///
/// # Errors
/// If the lake cannot be read.
async fn changed_prices(
    ledger: &Table,
    old: &Book,
    new: &Book,
) -> Result<Vec<ChangedPrice>, ReconcileError> {
    let reference = Reference::new(old);
    let mut used = vec![0usize; old.prices.len()];
    for line in ledger::all_lines(ledger).await? {
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
