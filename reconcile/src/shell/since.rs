//! What has changed since an earlier run over all accounts, so that only the accounts that it bears on are
//! computed anew.
//!
//! The earlier run left two files beside the lake: its [`memo`], and what it stood on ([`Bearing`]). Where
//! these are gone, of another lake, or do not tell all that matters, the answer is that everything may
//! have changed.

use lake::Lake;
use schemas::book::AccountId;
use schemas::ledger::Line;
use schemas::period::{EpochSeconds, Period};

use super::memo::{self, Standing};
use super::run::{ExceptionRow, Snapshot};
use crate::ReconcileError;
use crate::core::changed::{self, Affected, Bearing, Touched};
use crate::engine;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// Where a run goes on from an earlier one.
#[derive(Debug)]
pub(super) struct Since {
    pub affected: Affected,
    /// What the earlier run could not price.
    pub exceptions: Vec<ExceptionRow>,
    /// What the earlier run stood on, with the groups and headers of now. PIs without an account are those of
    /// then.
    pub bearing: Bearing,
}

/// A run that computes most accounts anew is faster in one piece.
const ACCOUNTS_PART_MAX: usize = 2;

/// What has changed of a period since the run that is remembered; `None` if that is not known, or too much.
pub(super) async fn look(
    lake: &Lake,
    cache_dir: &std::path::Path,
    snapshot: &Snapshot,
    (period, span): (Period, (EpochSeconds, EpochSeconds)),
    groups: &[Vec<schemas::udi::Udi>],
    lines: &[Line],
) -> Result<Option<Since>> {
    let Some((then, exceptions)) = memo::load(cache_dir, period) else { return Ok(None) };
    let Some(bearing) = memo::load_bearing(cache_dir, period, &then) else { return Ok(None) };
    let Some((mut touched, named)) = touched(lake, snapshot, &then, span, lines).await? else {
        return Ok(None);
    };
    let book = &snapshot.book.book;
    touched.pis.extend(changed::of_groups(&bearing.groups, groups));
    let mut since = Since {
        affected: Affected::default(),
        exceptions,
        bearing: Bearing { groups: groups.to_vec(), ..bearing },
    };
    if !touched.pis.is_empty() || !touched.accounts.is_empty() {
        since.affected = changed::affected(touched, &since.bearing, &named, groups, book);
    }
    for (account, pis) in named {
        since.bearing.named.entry(account).or_default().extend(pis);
    }
    let of = book.accounts.len();
    let changed = since.affected.accounts.len();
    tracing::info!(%period, changed, of, "accounts on which something new bears");
    Ok((changed * ACCOUNTS_PART_MAX <= of).then_some(since))
}

/// What tables hold that they did not hold then.
async fn touched(
    lake: &Lake,
    snapshot: &Snapshot,
    then: &Standing,
    span: (EpochSeconds, EpochSeconds),
    lines: &[Line],
) -> Result<Option<(Touched, changed::Named)>> {
    let Some(journal) = &snapshot.journal else { return Ok(None) };
    let Some(journal_then) = journal.stood_at(&then.journal).await? else { return Ok(None) };
    let Some(changes) = journal.changes_since(journal_then).await? else { return Ok(None) };
    if changes.removed.iter().any(|path| path.contains("disposition=accepted/")) {
        // What was accepted stays so: whatever this is, it is not known here.
        return Ok(None);
    }
    let (pis, named) = engine::read_reporters(journal, changes.added, span).await?;
    let ledger_then = match &snapshot.ledger {
        Some(ledger) => ledger.stood_at(&then.ledger).await?,
        None => None,
    };
    if ledger_then.is_none() && then.ledger != snapshot.standing()?.ledger {
        return Ok(None);
    }
    let mut touched = Touched { accounts: posted_since(ledger_then, lines), pis };
    if then.book != snapshot.book.stands_at {
        let Some(before) = lake::book_that_stood_at(lake, &then.book).await? else {
            return Ok(None);
        };
        let Some(of_book) = changed::of_books(&before.book, &snapshot.book.book) else {
            return Ok(None);
        };
        touched.accounts.extend(of_book.accounts);
        touched.pis.extend(of_book.pis);
    }
    Ok(Some((touched, named)))
}

/// Accounts of lines that another run posted.
fn posted_since(ledger_then: Option<u64>, lines: &[Line]) -> std::collections::BTreeSet<AccountId> {
    lines
        .iter()
        .filter(|line| ledger_then.is_none_or(|then| line.ledger_version() > then))
        .map(|line| AccountId {
            smart: line.key.smart_account.clone(),
            virtual_: line.key.virtual_account.clone(),
        })
        .collect()
}
