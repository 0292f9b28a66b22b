//! Prices that posted lines stand on: a new book may supersede them, and not change them in silence.

use std::collections::BTreeMap;
use std::sync::Arc;

use lake::{
    Appended, Import, Lake, StoredBook, Table, Written, load_book, save_book, take_back_book,
};
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

/// The counter in the ledger's log that names the book in force: the one that an import, or a run that posted, left
/// there.
pub(super) const MARK: &str = "book";

/// Replaces the whole book, unless it changes a price that posted lines stand on and does not say why.
///
/// The book and the ledger are two tables, so no commit is one of both. The ledger is pinned before its lines are
/// looked at, and marked once the book is saved: a run that read the book before, and has not posted yet, finds the
/// ledger changed and starts anew. Where a run was faster than the mark, the lines are looked at again, and the book
/// is taken back if it is one that would have been refused. No run posts by a book that is saved and not marked: where
/// an import broke off there, the next run does for it what is left to do ([`settle`]).
///
/// # Errors
/// If the lake cannot be read or written.
pub async fn import(
    lake: &Lake,
    cells: &BTreeMap<String, Cells>,
    new: &Book,
    import: &Import,
) -> Result<Imported, ReconcileError> {
    let ledger = lake.table(schemas::ledger::TABLE).await?;
    let base = in_force(ledger.as_ref()).await?;
    if let Some(ledger) = ledger.as_ref().filter(|_| import.corrects.is_empty()) {
        let old = load_book(lake, base).await?;
        let refused = changed_prices(ledger, &old.book, new).await?;
        if !refused.is_empty() {
            return Ok(Imported::Refused(refused));
        }
    }
    let version = save_book(lake, cells, import).await?;
    // Of two imports at once the later one replaces the earlier one's book, not the one that it was compared with.
    let is_compared = base.or(version.checked_sub(1)) == version.checked_sub(1);
    decide(lake, ledger, (new, version), import, is_compared).await
}

/// Ends an import that broke off before its book was marked: marks it, or takes it back.
///
/// # Errors
/// If the lake cannot be read or written.
pub(super) async fn settle(lake: &Lake) -> Result<(), ReconcileError> {
    let ledger = lake.table(schemas::ledger::TABLE).await?;
    let stored = load_book(lake, None).await?;
    let (Some(version), Some(marked)) = (stored.version, in_force(ledger.as_ref()).await?) else {
        return Ok(());
    };
    if marked < version {
        tracing::warn!(version, marked, "an import of the book broke off; it is ended");
        decide(lake, ledger, (&stored.book, version), &stored.import, false).await?;
    }
    Ok(())
}

/// True if a book was saved of which nobody has decided whether it is in force.
pub(super) async fn is_unsettled(
    ledger: &Table,
    book: &StoredBook,
) -> Result<bool, ReconcileError> {
    let marked = in_force(Some(ledger)).await?;
    Ok(book.version.zip(marked).is_some_and(|(version, marked)| marked < version))
}

/// The book that a run will find in force, once it has ended the import that broke off: the one before, if that
/// import is one that is taken back.
///
/// # Errors
/// If the lake cannot be read.
pub(super) async fn to_be_in_force(
    lake: &Lake,
    ledger: &Table,
    saved: &Arc<StoredBook>,
) -> Result<Arc<StoredBook>, ReconcileError> {
    let base = in_force(Some(ledger)).await?;
    if base.is_some() && saved.import.corrects.is_empty() {
        let old = load_book(lake, base).await?;
        if !changed_prices(ledger, &old.book, &saved.book).await?.is_empty() {
            return Ok(Arc::new(old));
        }
    }
    Ok(Arc::clone(saved))
}

/// The version of the book that the ledger names; `None` where it names none.
async fn in_force(ledger: Option<&Table>) -> Result<Option<u64>, ReconcileError> {
    let Some(ledger) = ledger else { return Ok(None) };
    Ok(ledger.held(MARK).await?.and_then(|version| u64::try_from(version).ok()))
}

/// Whether a book that is saved is in force.
async fn decide(
    lake: &Lake,
    mut ledger: Option<Table>,
    (new, version): (&Book, u64),
    import: &Import,
    mut is_compared: bool,
) -> Result<Imported, ReconcileError> {
    loop {
        let marked = in_force(ledger.as_ref()).await?;
        if marked == Some(version) {
            return Ok(Imported::InForce(version));
        }
        let base = marked.or(version.checked_sub(1));
        if let (Some(table), Some(base)) = (&ledger, base)
            && !is_compared
            && import.corrects.is_empty()
        {
            let old = load_book(lake, Some(base)).await?;
            let refused = changed_prices(table, &old.book, new).await?;
            if !refused.is_empty() {
                if let Some(version) = take_back_book(lake, version, base).await? {
                    // What it holds is in force already, whatever is posted meanwhile.
                    let mut table = table.clone();
                    while in_force(Some(&table)).await?.is_none_or(|marked| marked < version)
                        && !mark(&mut table, version).await?
                    {}
                }
                return Ok(Imported::Refused(refused));
            }
        }
        // A later one replaced it, whole.
        if marked.is_some_and(|marked| marked > version) {
            return Ok(Imported::InForce(version));
        }
        let is_in_force = match &mut ledger {
            None => {
                ledger = lake.table(schemas::ledger::TABLE).await?;
                ledger.is_none()
            }
            Some(table) => mark(table, version).await?,
        };
        if is_in_force {
            return Ok(Imported::InForce(version));
        }
        is_compared = false;
    }
}

/// Names a book in the ledger's log, on the very version that is loaded; if something came since, that is loaded.
async fn mark(ledger: &mut Table, version: u64) -> Result<bool, ReconcileError> {
    let mark = (MARK.to_owned(), i64::try_from(version).unwrap_or(i64::MAX));
    let marked = ledger.commit_once(&Written::default(), &[], &[mark]).await?;
    let is_marked = matches!(marked, Appended::Committed(_));
    if !is_marked {
        ledger.refresh().await?;
    }
    Ok(is_marked)
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
