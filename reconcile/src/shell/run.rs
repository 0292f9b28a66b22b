//! Runs: reconcile, statement, exceptions. Each pins the versions that it reads.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use lake::{Appended, Lake, StoredBook, Table, load_book};
use schemas::book::{AccountId, NamedTable, as_tables};
use schemas::ledger::Line;
use schemas::period::{EpochSeconds, Period};
use schemas::{journal, ledger as ledger_table};

use super::ledger::{self, Run, Versions};
use super::memo::{self, Standing};
use super::plan::{compute, plan, plan_account, plan_anew};
use super::prices;
use crate::ReconcileError;
use crate::core::attribute::Exceptions;
use crate::core::reference::Reference;
use crate::engine::{self, Evidence};

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// What a run reads, all of one moment.
#[derive(Clone)]
pub struct Snapshot {
    pub journal: Option<Table>,
    pub ledger: Option<Table>,
    pub trust_codes: Option<Table>,
    pub documents: Option<Table>,
    pub book: Arc<StoredBook>,
    /// The book's tables, made when they are first asked for: books seldom change.
    pub(super) book_tables: Arc<OnceLock<Vec<NamedTable>>>,
    /// Of the ledger, only what it held before this version.
    pub before: Option<u64>,
}

impl Snapshot {
    /// Pins the newest versions.
    ///
    /// # Errors
    /// If the lake cannot be read.
    pub async fn pin(lake: &Lake) -> Result<Snapshot> {
        Ok(Snapshot {
            // The ledger first: whatever is posted after this moment makes this run's commit stale.
            ledger: lake.table(ledger_table::TABLE).await?,
            book: Arc::new(load_book(lake, None).await?),
            trust_codes: lake.table(schemas::trust::TABLE).await?,
            documents: lake.table(schemas::document::TABLE).await?,
            journal: lake.table(journal::TABLE).await?,
            book_tables: Arc::default(),
            before: None,
        })
    }

    /// What the run of a version of the ledger read.
    ///
    /// # Errors
    /// If the lake cannot be read, or does not hold those versions any more.
    pub async fn of_run(lake: &Lake, ledger: &Table, run: &Run) -> Result<Snapshot> {
        let book = Arc::new(Snapshot::book_of_run(lake, run).await?);
        let journal = Snapshot::journal_of_run(lake, run).await?;
        Ok(Snapshot::for_run(ledger, run, book, journal))
    }

    pub(super) async fn book_of_run(lake: &Lake, run: &Run) -> Result<StoredBook> {
        match run.versions.book {
            Some(version) => Ok(load_book(lake, Some(version)).await?),
            None => Ok(StoredBook::default()),
        }
    }

    pub(super) async fn journal_of_run(lake: &Lake, run: &Run) -> Result<Option<Table>> {
        match run.versions.journal {
            Some(version) => Ok(lake.table_at(journal::TABLE, version).await?),
            None => Ok(None),
        }
    }

    /// Of a run's tables, where they are at hand.
    pub(super) fn for_run(
        ledger: &Table,
        run: &Run,
        book: Arc<StoredBook>,
        journal: Option<Table>,
    ) -> Snapshot {
        Snapshot {
            ledger: Some(ledger.clone()),
            book,
            trust_codes: None,
            documents: None,
            journal,
            book_tables: Arc::default(),
            before: Some(run.ledger_version),
        }
    }

    pub(super) fn versions(&self) -> Versions {
        Versions { journal: self.journal.as_ref().map(Table::version), book: self.book.version }
    }

    pub(super) fn standing(&self) -> Result<Standing> {
        let at = |table: &Option<Table>| table.as_ref().map_or(Ok(String::new()), Table::stands_at);
        Ok(Standing {
            journal: at(&self.journal)?,
            book: self.book.stands_at.clone(),
            ledger: at(&self.ledger)?,
        })
    }

    /// A session in which the tables of contract 5 can be asked.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub async fn sql_session(&self) -> Result<datafusion::prelude::SessionContext> {
        let session = engine::session()?;
        self.register_tables(&session).await?;
        Ok(session)
    }

    /// Makes the tables of contract 5 known to a session.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub async fn register_tables(
        &self,
        session: &datafusion::prelude::SessionContext,
    ) -> Result<()> {
        let book = match self.book_tables.get() {
            Some(tables) => tables,
            None => {
                let tables = as_tables(&self.book.book)?;
                self.book_tables.get_or_init(|| tables)
            }
        };
        engine::register_tables(
            session,
            self.journal.as_ref(),
            self.ledger.as_ref(),
            (self.trust_codes.as_ref(), self.documents.as_ref()),
            book,
        )
        .await
    }

    /// Moves on to the newest versions; tells whether any is newer.
    ///
    /// # Errors
    /// If the lake cannot be read. What was moved on stays so.
    pub async fn refresh(&mut self, lake: &Lake) -> Result<bool> {
        let before = self.standing()?;
        let others_before = self.others();
        for (name, table) in [
            (ledger_table::TABLE, &mut self.ledger),
            (schemas::trust::TABLE, &mut self.trust_codes),
            (schemas::document::TABLE, &mut self.documents),
            (journal::TABLE, &mut self.journal),
        ] {
            let refreshed = match table {
                Some(table) => table.refresh().await.is_ok(),
                None => false,
            };
            // Also of a lake in the place of this one that has no such table.
            if !refreshed {
                *table = lake.table(name).await?;
            }
        }
        if lake::book_stands_at(lake).await? != self.book.stands_at {
            self.book = Arc::new(load_book(lake, None).await?);
            self.book_tables = Arc::default();
        }
        Ok(self.standing()? != before || self.others() != others_before)
    }

    fn others(&self) -> [Option<u64>; 2] {
        [&self.trust_codes, &self.documents].map(|table| table.as_ref().map(Table::version))
    }
}

/// One exception of a period (contract 3.10, 4).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExceptionRow {
    pub period: Period,
    pub smart_account: String,
    pub virtual_account: String,
    pub subscription_id: String,
    pub entitlement: String,
    pub reason: &'static str,
    pub license_seconds: i128,
}

/// The columns of `exceptions --format csv`.
pub const EXCEPTION_COLUMNS: [&str; 7] = [
    "period",
    "smart_account",
    "virtual_account",
    "subscription_id",
    "entitlement",
    "reason",
    "license_seconds",
];

impl ExceptionRow {
    #[must_use]
    pub fn cells(&self) -> [String; 7] {
        [
            self.period.to_string(),
            self.smart_account.clone(),
            self.virtual_account.clone(),
            self.subscription_id.clone(),
            self.entitlement.clone(),
            self.reason.to_owned(),
            self.license_seconds.to_string(),
        ]
    }
}

pub(super) fn exception_rows(
    exceptions: &Exceptions,
    reference: &Reference<'_>,
    period: Period,
    speaks_of: impl Fn(Option<usize>) -> bool,
) -> Vec<ExceptionRow> {
    let mut rows: Vec<ExceptionRow> = exceptions
        .iter()
        .filter(|(key, seconds)| **seconds > 0 && speaks_of(key.account))
        .map(|(key, seconds)| {
            let account = key.account.map(|a| reference.accounts[a].id.clone());
            ExceptionRow {
                period,
                smart_account: account.as_ref().map(|a| a.smart.clone()).unwrap_or_default(),
                virtual_account: account.map(|a| a.virtual_).unwrap_or_default(),
                subscription_id: key.subscription_id.clone(),
                entitlement: key.item.clone(),
                reason: key.reason.as_str(),
                license_seconds: *seconds,
            }
        })
        .collect();
    rows.sort();
    rows
}

/// What a reconcile run came to.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Posted, or in a dry run to be posted.
    pub lines: Vec<Line>,
    pub exceptions: Vec<ExceptionRow>,
    /// The version of the ledger that holds them.
    pub posted_as: Option<u64>,
}

/// Computes targets and posts the difference; a dry run does all but the posting. What a run over all
/// accounts found is kept in `cache_dir`: where nothing has changed since, the next one reads the
/// tables' logs only, and where little has, it computes only the accounts that this bears on.
///
/// # Errors
/// If the lake fails, an amount does not fit, or the account is not in the book.
pub async fn reconcile(
    lake: &Lake,
    cache_dir: &Path,
    period: Period,
    account: Option<&AccountId>,
    dry_run: bool,
    clock: &(dyn Fn() -> EpochSeconds + Sync),
) -> Result<Reconciled> {
    if account.is_none()
        && let Some(exceptions) = memo::recall(lake, cache_dir, period).await?
    {
        return Ok(Reconciled { exceptions, ..Reconciled::default() });
    }
    loop {
        let mut snapshot = Snapshot::pin(lake).await?;
        if !dry_run && snapshot.ledger.is_none() {
            snapshot.ledger = Some(ledger::ensure(lake).await?);
        }
        let mut is_settled = true;
        if let Some(ledger) = &snapshot.ledger
            && prices::is_unsettled(ledger, &snapshot.book).await?
        {
            if !dry_run {
                prices::settle(lake).await?;
                continue;
            }
            is_settled = false;
            snapshot.book = prices::to_be_in_force(lake, ledger, &snapshot.book).await?;
        }
        let (mut reconciled, bearing) = match account {
            Some(id) => (plan_account(&snapshot, cache_dir, period, id).await?, None),
            None => {
                let (reconciled, bearing) = plan(lake, cache_dir, &snapshot, period).await?;
                (reconciled, Some(bearing))
            }
        };
        let keep = |standing, exceptions: &[ExceptionRow]| {
            // What is remembered keeps the next run from ending the import.
            if let Some(bearing) = bearing.filter(|_| is_settled) {
                memo::keep(cache_dir, period, standing, &snapshot.book.book, exceptions, bearing);
            }
        };
        if reconciled.lines.is_empty() {
            keep(snapshot.standing()?, &reconciled.exceptions);
            return Ok(reconciled);
        }
        if dry_run {
            return Ok(reconciled);
        }
        let run = Run {
            versions: snapshot.versions(),
            ledger_version: snapshot.ledger.as_ref().map_or(0, Table::version) + 1,
            scope: account.map(ToString::to_string).unwrap_or_default(),
            posted_at: clock(),
        };
        chain(&snapshot, &mut reconciled.lines, &run).await?;
        let rows = ledger::line_rows(&reconciled.lines)?;
        // An import that saw no line at a price may have changed it since.
        if lake::book_stands_at(lake).await? != snapshot.book.stands_at {
            tracing::info!("the book changed meanwhile; the run starts anew");
            continue;
        }
        let marks = snapshot.book.version.and_then(|version| i64::try_from(version).ok());
        let marks: Vec<(String, i64)> =
            marks.into_iter().map(|version| (prices::MARK.to_owned(), version)).collect();
        if let Some(mut table) = snapshot.ledger.clone()
            && let written = table.write(&[rows]).await?
            && let Appended::Committed(version) = table.commit_once(&written, &[], &marks).await?
        {
            reconciled.posted_as = Some(version);
            tracing::info!(version, lines = reconciled.lines.len(), "lines posted");
            let standing = Standing { ledger: table.stands_at()?, ..snapshot.standing()? };
            keep(standing, &reconciled.exceptions);
            return Ok(reconciled);
        }
        tracing::info!("the ledger changed meanwhile; the run starts anew");
    }
}

/// Gives lines of one run their places after what their period holds.
async fn chain(snapshot: &Snapshot, lines: &mut [Line], run: &Run) -> Result<()> {
    let Some(first) = lines.first() else { return Ok(()) };
    let mut before =
        ledger::lines(snapshot.ledger.as_ref(), "posted_period", first.posted_period).await?;
    before.retain(|line| line.ledger_version() < run.ledger_version);
    ledger::chain(lines, &before, run);
    Ok(())
}

/// The lines of a run, as it posted them, and as they come out when they are computed again from the
/// versions that it pinned.
#[derive(Debug)]
pub struct Reproduced {
    pub service_period: Period,
    pub posted: Vec<Line>,
    pub again: Vec<Line>,
}

/// Computes a run again: the one that made a version of the ledger.
///
/// # Errors
/// If that version is no run's, or the lake cannot be read.
pub async fn reproduce(lake: &Lake, ledger: &Table, ledger_version: u64) -> Result<Reproduced> {
    let posted = ledger::lines_of_version(ledger, ledger_version).await?;
    let run = posted.first().and_then(|line| Some((line, line.posting.as_ref()?)));
    let Some((first, posting)) = run else {
        return Err(ReconcileError::NoRun(ledger_version));
    };
    let service_period = first.service_period;
    let run = Run::of(posting);
    let account: Option<AccountId> = if run.scope.is_empty() {
        None
    } else {
        Some(run.scope.parse().map_err(ReconcileError::Ledger)?)
    };
    let snapshot = Snapshot::of_run(lake, ledger, &run).await?;
    let mut again = plan_anew(&snapshot, service_period, account.as_ref()).await?;
    chain(&snapshot, &mut again, &run).await?;
    Ok(Reproduced { service_period, posted, again })
}

/// What was posted into a period.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn statement(lake: &Lake, period: Period) -> Result<Vec<Line>> {
    let table = lake.table(ledger_table::TABLE).await?;
    ledger::lines(table.as_ref(), "posted_period", period).await
}

/// Usage that could not be priced, of one period or of all, as things stand now.
///
/// # Errors
/// If the lake cannot be read.
pub async fn exceptions(lake: &Lake, period: Option<Period>) -> Result<Vec<ExceptionRow>> {
    exceptions_of(&Snapshot::pin(lake).await?, period).await
}

/// As [`exceptions`], as a snapshot has them.
///
/// # Errors
/// If the lake cannot be read.
pub async fn exceptions_of(
    snapshot: &Snapshot,
    period: Option<Period>,
) -> Result<Vec<ExceptionRow>> {
    let reference = Reference::new(&snapshot.book.book);
    let evidence = Evidence::prepare(snapshot.journal.as_ref(), &snapshot.book.book).await?;
    let periods = match period {
        Some(period) => std::iter::once(period).collect(),
        None => evidence.months_with_usage().await?,
    };
    let mut rows = Vec::new();
    for period in periods {
        let charges = compute(&evidence, &reference, period).await?;
        rows.extend(exception_rows(&charges.exceptions, &reference, period, |_| true));
    }
    Ok(rows)
}
