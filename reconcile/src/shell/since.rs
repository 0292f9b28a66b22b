//! What has changed since an earlier run over all accounts, so that only the accounts that it bears on are
//! computed anew.
//!
//! The earlier run left two files beside the lake: its [`memo`], and what it stood on ([`Bearing`]). Where
//! these are gone, of another lake, or do not tell all that matters, the answer is that everything may
//! have changed.

use lake::{Lake, load_book};
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
    let now = snapshot.standing()?;
    let (Some(journal_then), Some(journal)) =
        (version_of(&then.journal, &now.journal), &snapshot.journal)
    else {
        return Ok(None);
    };
    let Some(changes) = journal.changes_since(journal_then).await? else { return Ok(None) };
    if changes.removed.iter().any(|path| path.contains("disposition=accepted/")) {
        // What was accepted stays so: whatever this is, it is not known here.
        return Ok(None);
    }
    let (pis, named) = engine::read_reporters(journal, changes.added, span).await?;
    let mut touched = Touched { accounts: posted_since(then, &now, lines), pis };
    if then.book != now.book {
        let Some(version) = version_of(&then.book, &now.book) else { return Ok(None) };
        // It may have been removed since.
        let Ok(before) = load_book(lake, Some(version)).await else { return Ok(None) };
        let Some(of_book) = changed::of_books(&before.book, &snapshot.book.book) else {
            return Ok(None);
        };
        touched.accounts.extend(of_book.accounts);
        touched.pis.extend(of_book.pis);
    }
    let ledger_is_known =
        then.ledger == now.ledger || version_of(&then.ledger, &now.ledger).is_some();
    Ok(ledger_is_known.then_some((touched, named)))
}

/// Accounts of lines that another run posted.
fn posted_since(
    then: &Standing,
    now: &Standing,
    lines: &[Line],
) -> std::collections::BTreeSet<AccountId> {
    let since = version_of(&then.ledger, &now.ledger);
    lines
        .iter()
        .filter(|line| since.is_none_or(|since| line.ledger_version() > since))
        .map(|line| AccountId {
            smart: line.key.smart_account.clone(),
            virtual_: line.key.virtual_account.clone(),
        })
        .collect()
}

/// The version at which a table stood then, if it is the same table, and stands there or later now.
fn version_of(then: &str, now: &str) -> Option<u64> {
    let (table, version) = then.rsplit_once('@')?;
    let (table_now, version_now) = now.rsplit_once('@')?;
    let (version, version_now): (u64, u64) = (version.parse().ok()?, version_now.parse().ok()?);
    (table == table_now && version <= version_now).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_one_of_the_same_table_that_went_on() {
        for (then, now, expected) in [
            ("a@3", "a@3", Some(3)),
            ("a@3", "a@14", Some(3)),
            ("a@3", "a@2", None),
            ("a@3", "b@4", None),
            ("", "a@4", None),
            ("a@3", "", None),
            ("a@x", "a@4", None),
        ] {
            assert_eq!(version_of(then, now), expected, "{then} {now}");
        }
    }
}
