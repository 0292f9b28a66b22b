//! The lines of a run: what was used, what it comes to, and what the ledger lacks of it.

use std::collections::HashSet;
use std::path::Path;

use jiff::tz::TimeZone;
use lake::Lake;
use schemas::book::AccountId;
use schemas::ledger::Line;
use schemas::period::{EpochSeconds, Period};

use super::groups::groups_of;
use super::ledger;
use super::run::{Reconciled, Snapshot, exception_rows};
use super::since;
use crate::ReconcileError;
use crate::core::adjust::{Ledger, adjust, tell_apart};
use crate::core::attribute::{Usage, UsageKey, Used};
use crate::core::changed::{Affected, Bearing, Named, take_named};
use crate::core::charge::{Charges, Target, charges};
use crate::core::claims::Claims;
use crate::core::groups::Groups;
use crate::core::reference::{Month, Reference};
use crate::core::timeline::{Claim, max_join};
use crate::engine::Evidence;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// Computes the targets of a period from what the snapshot holds.
pub(super) async fn compute(
    evidence: &Evidence,
    reference: &Reference<'_>,
    period: Period,
) -> Result<Charges> {
    let months = reference.months(period);
    let used = usage_of(evidence, reference, (&months, period), None, &mut |_| {}).await?;
    Ok(charges(reference, &months, used.keys, used.exceptions)?)
}

/// What was used of each key in a period; of one key also the reports that count. `seen` is shown all claims
/// on the way, some maybe twice.
pub(super) async fn usage_of(
    evidence: &Evidence,
    reference: &Reference<'_>,
    (months, period): (&[Month], Period),
    kept: Option<&UsageKey>,
    seen: &mut dyn FnMut(&Claims),
) -> Result<Used> {
    let utc = Month::new(period, &TimeZone::UTC).span;
    let (from, to) = span_of(months, period);
    let start = || Usage::new(reference, months, utc).keeping(kept);
    let used = evidence.claims(from, to, start, |usage, claims| {
        seen(&claims);
        attribute(usage, &claims, &start);
    });
    Ok(used.await?.finish())
}

/// From the first to the last instant of a period in any account's zone, and in UTC.
fn span_of(months: &[Month], period: Period) -> (EpochSeconds, EpochSeconds) {
    let utc = Month::new(period, &TimeZone::UTC).span;
    let from = months.iter().map(|m| m.span.start).chain([utc.start]).min().unwrap_or(utc.start);
    let to = months.iter().map(|m| m.span.end).chain([utc.end]).max().unwrap_or(utc.end);
    (from, to)
}

/// Adds the usage of claims, on all cores: sums do not depend on the order.
fn attribute<'r, 'b: 'r>(
    usage: &mut Usage<'r, 'b>,
    claims: &Claims,
    start: &(impl Fn() -> Usage<'r, 'b> + Sync),
) {
    let groups = claims.groups();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let of_groups = |part: &[(&str, &[Claim])]| {
        let mut usage = start();
        for (item, of_group) in part {
            let won = max_join(of_group, &claims.facts, &claims.names);
            usage.add(item, &won, &claims.facts, &claims.names);
        }
        usage
    };
    let of_groups = &of_groups;
    std::thread::scope(|scope| {
        let parts = groups.chunks(groups.len().div_ceil(cores).max(1));
        let running: Vec<_> = parts.map(|part| scope.spawn(move || of_groups(part))).collect();
        for part in running {
            match part.join() {
                Ok(part) => usage.merge(part),
                // A bug: what it printed is all that can be said.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
}

/// What the ledger holds of a service period.
struct Held {
    lines: Vec<Line>,
    ledger: Ledger,
}

impl Held {
    async fn read(snapshot: &Snapshot, period: Period) -> Result<Held> {
        let table = snapshot.ledger.as_ref();
        let mut ledger = Ledger::default();
        let before = snapshot.before.unwrap_or(u64::MAX);
        for (period, version) in ledger::closed(table).await? {
            if version < before {
                ledger.closed.insert(period);
            }
        }
        let mut lines = ledger::lines(table, "service_period", period).await?;
        lines.retain(|line| line.ledger_version() < before);
        for line in &lines {
            ledger.take(line);
        }
        Ok(Held { lines, ledger })
    }

    /// The lines that bring it to the targets of some accounts.
    async fn adjust(
        &self,
        targets: Vec<Target>,
        snapshot: &Snapshot,
        period: Period,
        speaks_of: impl Fn(&AccountId) -> bool,
    ) -> Result<Vec<Line>> {
        let correction = &snapshot.book.import.corrects;
        let mut lines = adjust(targets, &self.ledger, period, correction, |key| {
            let (smart, virtual_) = (key.smart_account.clone(), key.virtual_account.clone());
            speaks_of(&AccountId { smart, virtual_ })
        });
        let before = snapshot.before.unwrap_or(u64::MAX);
        let elsewhere = ledger::elsewhere(snapshot.ledger.as_ref(), &lines, before).await?;
        tell_apart(&mut lines, &elsewhere);
        Ok(lines)
    }
}

/// The lines that would bring the ledger to the targets of all accounts, and what these stand on.
pub(super) async fn plan(
    lake: &Lake,
    cache_dir: &Path,
    snapshot: &Snapshot,
    period: Period,
) -> Result<(Reconciled, Bearing)> {
    let book = &snapshot.book.book;
    let reference = Reference::new(book);
    let months = reference.months(period);
    let held = Held::read(snapshot, period).await?;
    let groups = groups_now(snapshot, cache_dir).await?;
    let members = groups.clone().members();
    let span = span_of(&months, period);
    let since =
        since::look(lake, cache_dir, snapshot, (period, span), &members, &held.lines).await?;
    let evidence = Evidence::of_groups(snapshot.journal.as_ref(), groups, book).await?;
    let of_month = (&months[..], period);
    let Some(since) = since else {
        let mut named = Named::new();
        let seen = &mut |claims: &Claims| take_named(&mut named, claims);
        let Used { keys, exceptions, unattributed } =
            usage_of(&evidence, &reference, of_month, None, seen).await?;
        let charges = charges(&reference, &months, keys, exceptions)?;
        let exceptions = exception_rows(&charges.exceptions, &reference, period, |_| true);
        let lines = held.adjust(charges.targets, snapshot, period, |_| true).await?;
        let bearing = Bearing { groups: members, named, unattributed };
        return Ok((Reconciled { lines, exceptions, posted_as: None }, bearing));
    };
    let Affected { accounts, pis } = since.affected;
    let mut bearing = since.bearing;
    if accounts.is_empty() && pis.is_empty() {
        let exceptions = since.exceptions;
        return Ok((Reconciled { exceptions, ..Reconciled::default() }, bearing));
    }
    let evidence = evidence.of_pis(pis);
    let mut used = usage_of(&evidence, &reference, of_month, None, &mut |_| {}).await?;
    // PIs that are read for one account may use something of another, of which not all is read.
    let is_affected = |account: usize| accounts.contains(&reference.accounts[account].id);
    used.keys.retain(|key, _| is_affected(key.account));
    let charges = charges(&reference, &months, used.keys, used.exceptions)?;
    let lines = held.adjust(charges.targets, snapshot, period, |id| accounts.contains(id)).await?;
    let mut exceptions = exception_rows(&charges.exceptions, &reference, period, |account| {
        account.is_none_or(is_affected)
    });
    exceptions.extend(since.exceptions.into_iter().filter(|row| {
        let (smart, virtual_) = (row.smart_account.clone(), row.virtual_account.clone());
        !smart.is_empty() && !accounts.contains(&AccountId { smart, virtual_ })
    }));
    exceptions.sort();
    bearing.unattributed = used.unattributed;
    Ok((Reconciled { lines, exceptions, posted_as: None }, bearing))
}

/// The lines that would bring the ledger to the targets of one account, from what bears on it.
pub(super) async fn plan_account(
    snapshot: &Snapshot,
    cache_dir: &Path,
    period: Period,
    id: &AccountId,
) -> Result<Reconciled> {
    let book = &snapshot.book.book;
    let reference = Reference::new(book);
    let held = Held::read(snapshot, period).await?;
    let Some(account) = account_of(&reference, &held, id)? else {
        // The book does not have it any more: nothing is due.
        let lines = held.adjust(Vec::new(), snapshot, period, |of| of == id).await?;
        return Ok(Reconciled { lines, ..Reconciled::default() });
    };
    let months = reference.months(period);
    let groups = groups_now(snapshot, cache_dir).await?;
    let evidence = Evidence::of_groups(snapshot.journal.as_ref(), groups, book).await?;
    let evidence = evidence.of_account(book, account).await?;
    let mut used = usage_of(&evidence, &reference, (&months, period), None, &mut |_| {}).await?;
    used.keys.retain(|key, _| key.account == account);
    let charges = charges(&reference, &months, used.keys, used.exceptions)?;
    let lines = held.adjust(charges.targets, snapshot, period, |of| of == id).await?;
    let exceptions =
        exception_rows(&charges.exceptions, &reference, period, |of| of == Some(account));
    Ok(Reconciled { lines, exceptions, posted_as: None })
}

/// An account of the book; `None` if only lines still name it.
fn account_of(reference: &Reference<'_>, held: &Held, id: &AccountId) -> Result<Option<usize>> {
    let named = |line: &Line| {
        (&line.key.smart_account, &line.key.virtual_account) == (&id.smart, &id.virtual_)
    };
    match reference.account_of(id) {
        None if !held.lines.iter().any(named) => Err(ReconcileError::NoAccount(id.clone())),
        account => Ok(account),
    }
}

/// The lines of a run, computed from everything that its versions hold.
pub(super) async fn plan_anew(
    snapshot: &Snapshot,
    period: Period,
    account: Option<&AccountId>,
) -> Result<Vec<Line>> {
    let reference = Reference::new(&snapshot.book.book);
    let evidence = Evidence::prepare(snapshot.journal.as_ref(), &snapshot.book.book).await?;
    let charges = compute(&evidence, &reference, period).await?;
    let held = Held::read(snapshot, period).await?;
    if let Some(id) = account {
        account_of(&reference, &held, id)?;
    }
    held.adjust(charges.targets, snapshot, period, |of| account.is_none_or(|id| of == id)).await
}

async fn groups_now(snapshot: &Snapshot, cache_dir: &Path) -> Result<Groups> {
    match &snapshot.journal {
        Some(journal) => groups_of(journal, &snapshot.book.book, cache_dir).await,
        None => Ok(Groups::new(HashSet::new())),
    }
}
