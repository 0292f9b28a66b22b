//! What `serve` offers: which tables, whose rows, and how fresh.

mod computed;
mod describe;
mod describe_text;
mod gauges;

use std::sync::Arc;

use ::arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use ::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use anyhow::Context as _;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use reconcile::shell::run::Snapshot;
use schemas::period::EpochSeconds;
use serve::{Catalog, RowsOf};

pub use computed::{Computed, compute, empty};
pub use describe::describe;
pub use gauges::Gauges;

/// When each table's rows were read or computed.
const FRESHNESS: &str = "freshness";

/// Which rows of a table a login with accounts of its own sees.
///
/// Tables with rows of several customers and no account to tell them apart are the operators': so is any
/// table that is added and not named here.
fn rows_of(name: &str, columns: &Schema) -> RowsOf {
    let has = |column: &str| columns.index_of(column).is_ok();
    match name {
        "book_catalog" | FRESHNESS => RowsOf::Everyone,
        "usage" => RowsOf::Device { start: "start", end: "end" },
        // A report's account is what its collector wrote, not whose it is; and its bytes may tell of more.
        "journal" => RowsOf::Operators,
        _ if has("smart_account") && has("virtual_account") => RowsOf::Account,
        _ => RowsOf::Operators,
    }
}

/// All tables of one moment.
pub async fn catalog(
    session: &SessionContext,
    snapshot: &Snapshot,
    computed: &Computed,
    now: EpochSeconds,
) -> anyhow::Result<Catalog> {
    snapshot.register_tables(session).await.context("cannot read the lake's tables")?;
    let mut catalog = Catalog::default();
    let schema = session
        .catalog("datafusion")
        .and_then(|catalog| catalog.schema("public"))
        .context("the session has no schema")?;
    let mut offer = |name: &str, table: Arc<dyn TableProvider>| {
        let rows_of = rows_of(name, &table.schema());
        catalog.offer(name, table, rows_of);
    };
    for name in schema.table_names() {
        // What is stored is shown by the views over it.
        if !name.starts_with("stored_") {
            let table = schema.table(&name).await?.context("a table is gone")?;
            offer(&name, table);
        }
    }
    for (name, rows) in &computed.tables {
        offer(name, in_memory(rows.clone())?);
    }
    offer(FRESHNESS, in_memory(freshness(snapshot, computed, now)?)?);
    Ok(catalog)
}

fn in_memory(rows: RecordBatch) -> anyhow::Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?))
}

fn freshness(
    snapshot: &Snapshot,
    computed: &Computed,
    now: EpochSeconds,
) -> anyhow::Result<RecordBatch> {
    let mut names = Vec::new();
    let mut versions = Vec::new();
    let mut times = Vec::new();
    for (name, version) in versions_of(snapshot) {
        names.push(name);
        versions.push(version);
        times.push(Some(now.saturating_mul(1_000_000)));
    }
    for (name, _) in &computed.tables {
        names.push(name);
        versions.push(None);
        times.push(computed.at.map(|at| at.saturating_mul(1_000_000)));
    }
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Schema::new(vec![
        Field::new("table_name", DataType::Utf8, false),
        Field::new("version", DataType::UInt64, true),
        Field::new("as_of", time, true),
    ]);
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(StringArray::from(names)),
            Arc::new(UInt64Array::from(versions)),
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        ],
    )?)
}

/// The versions of the stored tables; `None` where there is none yet.
fn versions_of(snapshot: &Snapshot) -> [(&'static str, Option<u64>); 5] {
    let version = |table: &Option<lake::Table>| table.as_ref().map(lake::Table::version);
    [
        ("journal", version(&snapshot.journal)),
        ("ledger", version(&snapshot.ledger)),
        ("book", snapshot.book.version),
        ("trust_codes", version(&snapshot.trust_codes)),
        ("documents", version(&snapshot.documents)),
    ]
}
