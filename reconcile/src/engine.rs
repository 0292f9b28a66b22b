//! Set work in DataFusion over pinned versions: groups, claims, months, and the tables for SQL.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, ListArray, PrimitiveArray, RecordBatch,
    StringArray, UInt64Array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use lake::Table;
use schemas::book::{Book, ManagedBy};
use schemas::period::{EpochSeconds, Period};
use schemas::udi::Udi;
use schemas::{journal, ledger, trust};

use crate::ReconcileError;
use crate::core::groups::Groups;
use crate::core::timeline::{Claim, ReportFacts};

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

/// Registers a table of the lake, or an empty one of its schema.
async fn register(
    session: &SessionContext,
    name: &str,
    table: Option<&Table>,
    schema: &SchemaRef,
) -> Result<()> {
    match table {
        Some(table) => session.register_table(name, table.provider(session).await?)?,
        None => session
            .register_table(name, Arc::new(MemTable::try_new(schema.clone(), vec![vec![]])?))?,
    };
    Ok(())
}

fn register_rows(
    session: &SessionContext,
    name: &str,
    columns: Vec<(&str, ArrayRef)>,
) -> Result<()> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let rows = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|(_, array)| array).collect(),
    )?;
    session.register_table(name, Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))?;
    Ok(())
}

/// A session in which the tables of contract 5 can be asked.
///
/// # Errors
/// If a table cannot be read.
pub async fn sql_session(
    journal_table: Option<&Table>,
    ledger_table: Option<&Table>,
    trust_codes: Option<&Table>,
    book: &Book,
) -> Result<SessionContext> {
    let session = session()?;
    register(&session, "stored_journal", journal_table, &journal::SCHEMA).await?;
    register(&session, "stored_ledger", ledger_table, &ledger::SCHEMA).await?;
    register(&session, trust::TABLE, trust_codes, &trust::SCHEMA).await?;
    for (name, query) in [
        ("journal", include_str!("sql/view_journal.sql")),
        ("usage", include_str!("sql/view_usage.sql")),
        ("ledger", include_str!("sql/view_ledger.sql")),
        ("closes", include_str!("sql/view_closes.sql")),
    ] {
        let view = session.sql(query).await?.into_view();
        session.register_table(name, view)?;
    }
    for table in schemas::book::as_tables(book)? {
        let rows = MemTable::try_new(table.rows.schema(), vec![vec![table.rows]])?;
        session.register_table(table.name, Arc::new(rows))?;
    }
    Ok(session)
}

/// The journal at one version, with the book's groups and items, ready to be asked for claims.
pub struct Claims {
    session: SessionContext,
}

impl Claims {
    /// Reads the PI groups of all time (contract 3.1), and arranges items and groups for the join.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn prepare(journal_table: Option<&Table>, book: &Book) -> Result<Claims> {
        let session = session()?;
        register(&session, "journal", journal_table, &journal::SCHEMA).await?;
        let members = read_groups(&session, book).await?.finish();
        register_rows(
            &session,
            "group_of_pi",
            vec![
                (
                    "udi_pid",
                    Arc::new(StringArray::from_iter_values(members.iter().map(|(u, _)| &u.pid))),
                ),
                (
                    "udi_serial",
                    Arc::new(StringArray::from_iter_values(members.iter().map(|(u, _)| &u.serial))),
                ),
                (
                    "group_number",
                    Arc::new(UInt64Array::from_iter_values(members.iter().map(|(_, n)| *n))),
                ),
            ],
        )?;
        let grouped = || book.catalog.iter().filter(|c| !c.equivalence.is_empty());
        register_rows(
            &session,
            "item_of_tag",
            vec![
                (
                    "entitlement_tag",
                    Arc::new(StringArray::from_iter_values(grouped().map(|c| &c.tag))),
                ),
                (
                    "item",
                    Arc::new(StringArray::from_iter_values(grouped().map(|c| &c.equivalence))),
                ),
            ],
        )?;
        Ok(Claims { session })
    }

    /// Calls `each` with the claims of one group and item after another, all that touch `[from, to)`.
    ///
    /// # Errors
    /// If the journal cannot be read, or `each` fails.
    pub async fn for_each(
        &self,
        from: EpochSeconds,
        to: EpochSeconds,
        mut each: impl FnMut(&str, &[Claim], &[ReportFacts]),
    ) -> Result<()> {
        let instant = |seconds: EpochSeconds| {
            ScalarValue::TimestampMicrosecond(
                Some(seconds.saturating_mul(1_000_000)),
                Some("UTC".into()),
            )
        };
        let query = self.session.sql(include_str!("sql/claims.sql")).await?;
        let query = query.with_param_values(vec![("from", instant(from)), ("to", instant(to))])?;
        let mut rows = query.execute_stream().await?;
        let mut group = GroupOfClaims::default();
        while let Some(batch) = rows.next().await {
            let batch = ClaimColumns::new(&batch?)?;
            for i in 0..batch.len() {
                if !group.is(batch.group.value(i), batch.item.value(i)) {
                    group.hand_on(&mut each);
                    group.start(batch.group.value(i), batch.item.value(i));
                }
                group.push(&batch, i);
            }
        }
        group.hand_on(&mut each);
        Ok(())
    }

    /// The months in which any account may have usage, in the order of time.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn months_with_usage(&self) -> Result<BTreeSet<Period>> {
        const DAY: EpochSeconds = 86_400;
        let utc = jiff::tz::TimeZone::UTC;
        let mut months = BTreeSet::new();
        for batch in self.session.sql(include_str!("sql/usage_months.sql")).await?.collect().await?
        {
            let (first, last) = (seconds_of(batch.column(0))?, seconds_of(batch.column(1))?);
            for (first, last) in first.iter().zip(&last) {
                // A month may have begun, or may still go on, in other zones.
                let first = Period::containing(first - DAY, &utc);
                let last = Period::containing(last + DAY, &utc).map(Period::next);
                let (Some(mut period), Some(last)) = (first, last) else { continue };
                while period < last && months.insert(period) {
                    period = period.next();
                }
                while period < last {
                    months.insert(period);
                    period = period.next();
                }
            }
        }
        Ok(months)
    }
}

async fn read_groups(session: &SessionContext, book: &Book) -> Result<Groups> {
    let alone: HashSet<Udi> = book
        .devices
        .iter()
        .filter(|d| d.managed_by == ManagedBy::Vmanage)
        .map(|d| d.udi.clone())
        .collect();
    let mut groups = Groups::new(alone);
    let mut rows = session.sql(include_str!("sql/ha_groups.sql")).await?.execute_stream().await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (pids, serials) = (text(batch.column(0))?, text(batch.column(1))?);
        let lists: &ListArray = batch.column(2).as_list();
        for i in 0..batch.num_rows() {
            let members = lists.value(i);
            let members = members.as_struct();
            let (member_pids, member_serials) =
                (text(members.column(0))?, text(members.column(1))?);
            let udis: Vec<Udi> = (0..members.len())
                .map(|j| Udi::new(member_pids.value(j), member_serials.value(j)))
                .collect();
            groups.join(&Udi::new(pids.value(i), serials.value(i)), &udis);
        }
    }
    Ok(groups)
}

fn text(column: &ArrayRef) -> Result<StringArray> {
    Ok(arrow::compute::cast(column, &DataType::Utf8)?.as_string::<i32>().clone())
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

/// The columns of `claims.sql`.
struct ClaimColumns {
    group: StringArray,
    item: StringArray,
    pid: StringArray,
    serial: StringArray,
    report_id: PrimitiveArray<Decimal128Type>,
    tag: StringArray,
    utility: BooleanArray,
    signature: StringArray,
    subscription_id: StringArray,
    smart_account: StringArray,
    virtual_account: StringArray,
    start: Vec<EpochSeconds>,
    end: Vec<EpochSeconds>,
    value: PrimitiveArray<Int64Type>,
}

impl ClaimColumns {
    fn new(batch: &RecordBatch) -> Result<ClaimColumns> {
        let column = |i: usize| text(batch.column(i));
        Ok(ClaimColumns {
            group: column(0)?,
            item: column(1)?,
            pid: column(2)?,
            serial: column(3)?,
            report_id: batch.column(4).as_primitive().clone(),
            tag: column(5)?,
            utility: batch.column(6).as_boolean().clone(),
            signature: column(7)?,
            subscription_id: column(8)?,
            smart_account: column(9)?,
            virtual_account: column(10)?,
            start: seconds_of(batch.column(11))?,
            end: seconds_of(batch.column(12))?,
            value: batch.column(13).as_primitive().clone(),
        })
    }

    fn len(&self) -> usize {
        self.start.len()
    }

    fn facts(&self, i: usize, report_id: u64) -> ReportFacts {
        let optional = |array: &StringArray| array.is_valid(i).then(|| array.value(i).to_owned());
        ReportFacts {
            udi: Udi::new(self.pid.value(i), self.serial.value(i)),
            report_id,
            tag: self.tag.value(i).to_owned(),
            utility: self.utility.is_valid(i) && self.utility.value(i),
            verified: self.signature.is_valid(i) && self.signature.value(i) == "verified",
            subscription_id: optional(&self.subscription_id).unwrap_or_default(),
            header_account: optional(&self.smart_account).zip(optional(&self.virtual_account)),
        }
    }
}

/// Claims of one group and item under construction. Each report's facts are held once.
#[derive(Default)]
struct GroupOfClaims {
    group: String,
    item: String,
    claims: Vec<Claim>,
    facts: Vec<ReportFacts>,
    by_report: HashMap<(String, String, u64), usize>,
}

impl GroupOfClaims {
    fn is(&self, group: &str, item: &str) -> bool {
        self.group == group && self.item == item
    }

    fn start(&mut self, group: &str, item: &str) {
        group.clone_into(&mut self.group);
        item.clone_into(&mut self.item);
    }

    fn push(&mut self, rows: &ClaimColumns, i: usize) {
        let report_id = u64::try_from(rows.report_id.value(i)).unwrap_or(u64::MAX);
        let last = self.claims.last().map(|c| c.report).filter(|&last| {
            let facts = &self.facts[last];
            facts.report_id == report_id
                && facts.udi.serial == rows.serial.value(i)
                && facts.udi.pid == rows.pid.value(i)
        });
        let report = last.unwrap_or_else(|| {
            let key = (rows.pid.value(i).to_owned(), rows.serial.value(i).to_owned(), report_id);
            *self.by_report.entry(key).or_insert_with(|| {
                self.facts.push(rows.facts(i, report_id));
                self.facts.len() - 1
            })
        });
        self.claims.push(Claim {
            start: rows.start[i],
            end: rows.end[i],
            value: rows.value.value(i),
            report,
        });
    }

    fn hand_on(&mut self, each: &mut impl FnMut(&str, &[Claim], &[ReportFacts])) {
        if !self.claims.is_empty() {
            each(&self.item, &self.claims, &self.facts);
        }
        self.claims.clear();
        self.facts.clear();
        self.by_report.clear();
    }
}
