//! Set work in DataFusion over pinned versions: groups, claims, months, and the tables for SQL.

mod collect;
mod groups;
mod history;
mod since;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{Expr, SessionConfig, SessionContext, col, lit};
use futures::StreamExt as _;
use lake::Table;
use schemas::book::{Book, NamedTable};
use schemas::period::{EpochSeconds, Period};
use schemas::udi::Udi;
use schemas::{document, journal, ledger, trust};
use tokio::task::JoinSet;

use crate::ReconcileError;
use crate::core::claims::{Claims, Part};
use crate::core::coverage::Gap;
use crate::core::groups::Groups;

use collect::{CLAIM_COLUMNS, Collector, Lookup};
pub(crate) use groups::{alone, read_groups};
pub use history::read_history;
pub(crate) use since::read_reporters;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// Memory for sorts and joins; what does not fit goes to temporary files.
const POOL_BYTES: usize = 1 << 30;

/// A session whose memory is bounded.
///
/// # Errors
/// If no temporary folder can be made.
pub fn session() -> Result<SessionContext> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(POOL_BYTES)))
        .build_arc()?;
    let config = SessionConfig::new()
        .with_information_schema(true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Registers a table of the lake, or an empty one of its schema. What an earlier version of rumledger
/// made may lack columns: they are null.
pub(crate) async fn register(
    session: &SessionContext,
    name: &str,
    table: Option<&Table>,
    schema: &SchemaRef,
) -> Result<()> {
    match table {
        Some(table) => {
            let provider = table.provider(session).await?;
            let held = provider.schema();
            let missing: Vec<_> =
                schema.fields().iter().filter(|f| held.index_of(f.name()).is_err()).collect();
            if missing.is_empty() {
                session.register_table(name, provider)?
            } else {
                let mut rows = session.read_table(provider)?;
                for field in missing {
                    let null = lit(ScalarValue::try_new_null(field.data_type())?);
                    rows = rows.with_column(field.name(), null)?;
                }
                session.register_table(name, rows.into_view())?
            }
        }
        None => session
            .register_table(name, Arc::new(MemTable::try_new(schema.clone(), vec![vec![]])?))?,
    };
    Ok(())
}

/// Makes the tables of contract 5 known to a session.
///
/// # Errors
/// If a table cannot be read.
pub async fn register_tables(
    session: &SessionContext,
    journal_table: Option<&Table>,
    ledger_table: Option<&Table>,
    (trust_codes, documents): (Option<&Table>, Option<&Table>),
    book: &[NamedTable],
) -> Result<()> {
    register(session, "stored_journal", journal_table, &journal::SCHEMA).await?;
    register(session, "stored_ledger", ledger_table, &ledger::SCHEMA).await?;
    register(session, trust::TABLE, trust_codes, &trust::SCHEMA).await?;
    register(session, document::TABLE, documents, &document::SCHEMA).await?;
    for (name, query) in [
        ("journal", include_str!("sql/view_journal.sql")),
        ("usage", include_str!("sql/view_usage.sql")),
        ("ledger", include_str!("sql/view_ledger.sql")),
        ("closes", include_str!("sql/view_closes.sql")),
    ] {
        let view = session.sql(query).await?.into_view();
        session.register_table(name, view)?;
    }
    for table in book {
        let rows = MemTable::try_new(table.rows.schema(), vec![vec![table.rows.clone()]])?;
        session.register_table(table.name, Arc::new(rows))?;
    }
    Ok(())
}

/// Claims that are held at once: 768 MiB of them, beside 64 bytes a report.
const CLAIMS_MAX: usize = 24 << 20;
/// Beyond so many parts the bound gives way.
const PARTS_MAX: u64 = 4096;

/// The journal at one version, with the book's groups and items, ready to be asked for claims.
#[derive(Clone)]
pub struct Evidence {
    session: SessionContext,
    lookup: Arc<Lookup>,
    claims_max: usize,
    /// Which reports are read, beside the time.
    only: Option<Expr>,
    /// Suspended reports that are taken as if they were accepted.
    suspended: Option<Expr>,
    /// Usage that is taken as if it had been reported.
    fills: Arc<[Fill]>,
    /// The PIs whose reports are read; `None` for all.
    pis: Option<Arc<HashSet<Udi>>>,
}

/// Time in which usage of a tag is taken to have stayed as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    pub tag: String,
    pub gap: Gap,
}

impl Evidence {
    /// Reads the PI groups of all time (contract 3.1).
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn prepare(journal_table: Option<&Table>, book: &Book) -> Result<Evidence> {
        let mut groups = Groups::new(alone(book));
        if let Some(table) = journal_table {
            groups = read_groups(table, None, groups).await?;
        }
        Evidence::of_groups(journal_table, groups, book).await
    }

    /// As [`Evidence::prepare`], with groups that are known.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn of_groups(
        journal_table: Option<&Table>,
        groups: Groups,
        book: &Book,
    ) -> Result<Evidence> {
        let session = session()?;
        register(&session, "journal", journal_table, &journal::SCHEMA).await?;
        let groups = groups.finish().into_iter().collect();
        let grouped = book.catalog.iter().filter(|c| !c.equivalence.is_empty());
        let items = grouped.map(|c| (c.tag.clone(), c.equivalence.clone())).collect();
        let lookup = Arc::new(Lookup { groups, items });
        Ok(Evidence {
            session,
            lookup,
            claims_max: CLAIMS_MAX,
            only: None,
            suspended: None,
            fills: Arc::default(),
            pis: None,
        })
    }

    /// Takes only what was received up to an instant.
    #[must_use]
    pub fn received_by(self, at: EpochSeconds) -> Evidence {
        let received = col("received_at").lt_eq(instant(at));
        let only = self.only.map_or(received.clone(), |only| only.and(received));
        Evidence { only: Some(only), ..self }
    }

    /// Takes usage to have stayed as it was in some time that no report covers.
    #[must_use]
    pub fn with_fills(self, fills: Vec<Fill>) -> Evidence {
        Evidence { fills: fills.into(), ..self }
    }

    /// Holds at most so many claims at once.
    #[must_use]
    pub fn with_claims_max(self, claims_max: usize) -> Evidence {
        Evidence { claims_max, ..self }
    }

    /// Takes some of the suspended reports as if they were accepted.
    #[must_use]
    pub fn with_suspended(self, which: Expr) -> Evidence {
        Evidence { suspended: Some(which), ..self }
    }

    /// The months in which some of the suspended reports have usage.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn months_of_suspended(&self, which: Expr) -> Result<BTreeSet<Period>> {
        let rows = self.session.table("journal").await?;
        let rows = rows.filter(is("suspended").and(which).and(col("usage_start").is_not_null()))?;
        let rows = rows.select_columns(&["usage_start", "usage_end"])?.distinct()?;
        months_of(&rows.collect().await?)
    }

    /// Reads only what can bear on an account: the reports of the PIs that it ever held, or whose reports
    /// name it, and of the groups that these belong to.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn of_account(self, book: &Book, account: usize) -> Result<Evidence> {
        let of_account = &book.accounts[account].id;
        let mut pis: BTreeSet<Udi> = book
            .devices
            .iter()
            .filter(|device| device.account == account)
            .map(|device| device.udi.clone())
            .collect();
        let named = self
            .session
            .table("journal")
            .await?
            .filter(
                col("smart_account")
                    .eq(lit(of_account.smart.as_str()))
                    .and(col("virtual_account").eq(lit(of_account.virtual_.as_str()))),
            )?
            .select_columns(&["udi_pid", "udi_serial"])?
            .distinct()?;
        for batch in named.collect().await? {
            let (pids, serials) = (text(batch.column(0))?, text(batch.column(1))?);
            let known = (0..batch.num_rows()).filter(|&i| pids.is_valid(i) && serials.is_valid(i));
            pis.extend(known.map(|i| Udi::new(pids.value(i), serials.value(i))));
        }
        let groups: HashSet<u64> =
            pis.iter().filter_map(|udi| self.lookup.groups.get(udi).copied()).collect();
        let mates = self.lookup.groups.iter().filter(|(_, group)| groups.contains(group));
        pis.extend(mates.map(|(udi, _)| udi.clone()));
        Ok(self.of_pis(pis.into_iter().collect()))
    }

    /// Reads only the reports of some PIs; of the PI groups that matter these are all members.
    #[must_use]
    pub fn of_pis(self, pis: HashSet<Udi>) -> Evidence {
        let serials: BTreeSet<&str> = pis.iter().map(|udi| udi.serial.as_str()).collect();
        let serials = serials.into_iter().map(lit).collect();
        let of_serials = col("udi_serial").in_list(serials, false);
        let only = self.only.map_or(of_serials.clone(), |only| only.and(of_serials));
        Evidence { only: Some(only), pis: Some(Arc::new(pis)), ..self }
    }

    /// Calls `each` with all claims that touch `[from, to)`, the groups whole. Where they are too many
    /// to be held at once, they come in parts, and `start` is called when it begins anew.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn claims<S>(
        &self,
        from: EpochSeconds,
        to: EpochSeconds,
        start: impl Fn() -> S,
        mut each: impl FnMut(&mut S, Claims),
    ) -> Result<S> {
        let mut of = 1;
        loop {
            let mut state = start();
            if self.in_parts(of, from, to, |claims| each(&mut state, claims)).await? {
                return Ok(state);
            }
            of *= 2;
            tracing::debug!(of, "the claims are too many to be held at once");
        }
    }

    /// Calls `each` with one of so many parts after another; false if one is too large.
    async fn in_parts(
        &self,
        of: u64,
        from: EpochSeconds,
        to: EpochSeconds,
        mut each: impl FnMut(Claims),
    ) -> Result<bool> {
        for number in 0..of {
            match self.part(from, to, Part { number, of }).await? {
                Some(claims) => each(claims),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// One part of the claims, read on all cores; `None` if they are too many.
    async fn part(
        &self,
        from: EpochSeconds,
        to: EpochSeconds,
        part: Part,
    ) -> Result<Option<Claims>> {
        let accepted = is("accepted");
        let mut which = match &self.suspended {
            Some(which) => accepted.or(is("suspended").and(which.clone())),
            None => accepted,
        };
        if let Some(only) = &self.only {
            which = which.and(only.clone());
        }
        let touches = col("usage_end").gt(instant(from)).and(col("usage_start").lt(instant(to)));
        let rows = self.session.table("journal").await?.filter(which.and(touches))?;
        let query = rows.select_columns(&CLAIM_COLUMNS)?;
        let held = Arc::new(AtomicUsize::new(0));
        // A group cannot be cut: in so many parts, what is large is one group.
        let claims_max = if part.of < PARTS_MAX { self.claims_max } else { usize::MAX };
        let mut running = JoinSet::new();
        for mut rows in query.execute_stream_partitioned().await? {
            let (lookup, held) = (Arc::clone(&self.lookup), Arc::clone(&held));
            let only = self.pis.clone();
            running.spawn(async move {
                let mut collector = Collector { lookup, only, from, to, part, pis: Vec::new() };
                let mut claims = Claims::default();
                while let Some(batch) = rows.next().await {
                    let more = collector.take(&batch?, &mut claims)?;
                    if held.fetch_add(more, Ordering::Relaxed) + more > claims_max {
                        return Ok(None);
                    }
                }
                Ok::<_, ReconcileError>(Some(claims))
            });
        }
        let mut all = Claims::default();
        while let Some(claims) = running.join_next().await {
            match claims?? {
                Some(claims) => all.merge(claims),
                None => return Ok(None),
            }
        }
        for fill in self.fills.iter() {
            let group = self.lookup.groups.get(&fill.gap.udi).copied();
            if part.holds(&fill.gap.udi, group) {
                let item = self.lookup.items.get(&fill.tag).unwrap_or(&fill.tag);
                all.fill(group, (&fill.tag, item), &fill.gap);
            }
        }
        Ok(Some(all))
    }

    /// The months in which any account may have usage, in the order of time.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn months_with_usage(&self) -> Result<BTreeSet<Period>> {
        let query = self.session.sql(include_str!("sql/usage_months.sql")).await?;
        months_of(&query.collect().await?)
    }
}

fn is(disposition: &str) -> Expr {
    col("disposition").eq(lit(disposition))
}

/// The months that spans of usage touch: their starts and ends are the first two columns.
fn months_of(batches: &[RecordBatch]) -> Result<BTreeSet<Period>> {
    const DAY: EpochSeconds = 86_400;
    let utc = jiff::tz::TimeZone::UTC;
    let mut months = BTreeSet::new();
    for batch in batches {
        let (first, last) = (seconds_of(batch.column(0))?, seconds_of(batch.column(1))?);
        for (first, last) in first.iter().zip(&last) {
            // A month may have begun, or may still go on, in other zones.
            let first = Period::containing(first - DAY, &utc);
            let last = Period::containing(last + DAY, &utc).map(Period::next);
            let (Some(mut period), Some(last)) = (first, last) else { continue };
            while period < last {
                months.insert(period);
                period = period.next();
            }
        }
    }
    Ok(months)
}

fn moment(seconds: EpochSeconds) -> ScalarValue {
    let micros = Some(seconds.saturating_mul(1_000_000));
    ScalarValue::TimestampMicrosecond(micros, Some("UTC".into()))
}

/// An instant in a query.
pub(crate) fn instant(seconds: EpochSeconds) -> Expr {
    lit(moment(seconds))
}

pub(crate) fn text(column: &ArrayRef) -> Result<StringArray> {
    Ok(arrow::compute::cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn text_at(texts: &StringArray, i: usize) -> Option<&str> {
    texts.is_valid(i).then(|| texts.value(i))
}

fn seconds_of(column: &ArrayRef) -> Result<Vec<EpochSeconds>> {
    let micros = arrow::compute::cast(column, &journal::timestamp())?;
    Ok(micros
        .as_primitive::<TimestampMicrosecondType>()
        .values()
        .iter()
        .map(|t| t.div_euclid(1_000_000))
        .collect())
}
