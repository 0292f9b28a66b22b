//! The ledger in the lake: lines to rows and back, posting and closing, each one commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Decimal128Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use lake::{Lake, Layout, Table};
use schemas::journal::timestamp;
use schemas::ledger::{
    Charge, ChargeKey, Kind, Line, Measure, PARTITION_COLUMN, Pool, Posting, RECORD_CLOSE,
    RECORD_LINE, SCHEMA, TABLE,
};
use schemas::merkle::{self, Hash};
use schemas::period::{EpochSeconds, Period};

use crate::{ReconcileError, engine};

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// The versions of its inputs that a run pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    pub journal: Option<u64>,
    pub book: Option<u64>,
}

/// What lines of one run have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub versions: Versions,
    /// The version that its commit makes.
    pub ledger_version: u64,
    /// The account that it is for, or blank for all.
    pub scope: String,
    pub posted_at: EpochSeconds,
}

impl Run {
    /// The run that posted a line.
    #[must_use]
    pub fn of(posting: &Posting) -> Run {
        Run {
            versions: Versions { journal: posting.journal_version, book: posting.book_version },
            ledger_version: posting.ledger_version,
            scope: posting.scope.clone(),
            posted_at: posting.posted_at,
        }
    }
}

/// Opens the ledger, making it if it is not there.
///
/// # Errors
/// If the store fails.
pub async fn ensure(lake: &Lake) -> Result<Table> {
    let layout = Layout {
        schema: SCHEMA.clone(),
        partition_columns: &[PARTITION_COLUMN],
        statistics: &["posted_period", "service_period", "posted_at"],
    };
    Ok(lake.ensure(TABLE, &layout).await?)
}

pub(crate) async fn rows_of(
    session: &SessionContext,
    table: &Table,
    record: &str,
) -> Result<DataFrame> {
    engine::register(session, TABLE, Some(table), &SCHEMA).await?;
    Ok(session.table(TABLE).await?.filter(col("record").eq(lit(record)))?)
}

/// All lines whose `column` (`posted_period` or `service_period`) is a period, in the order of their
/// keys, and of posting within a key.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn lines(table: Option<&Table>, column: &str, period: Period) -> Result<Vec<Line>> {
    let Some(table) = table else { return Ok(Vec::new()) };
    lines_where(table, col(column).eq(lit(period.to_string()))).await
}

/// How many lines of the months before and after a service period, posted before a version of the ledger, have the key
/// of one of these lines: most often none.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn elsewhere(
    table: Option<&Table>,
    of: &[Line],
    before: u64,
) -> Result<BTreeMap<ChargeKey, u64>> {
    let mut counts = BTreeMap::new();
    let starts = || of.iter().map(|line| line.key.segment_start);
    let (Some(table), Some(from), Some(to)) = (table, starts().min(), starts().max()) else {
        return Ok(counts);
    };
    let keys: BTreeSet<&ChargeKey> = of.iter().map(|line| &line.key).collect();
    let periods: BTreeSet<Period> = of
        .iter()
        .flat_map(|line| [line.service_period.previous(), line.service_period.next()])
        .collect();
    let periods = periods.into_iter().map(|period| lit(period.to_string())).collect();
    let which = col("service_period")
        .in_list(periods, false)
        .and(col("segment_start").between(engine::instant(from), engine::instant(to)));
    for line in lines_where(table, which).await? {
        if line.ledger_version() < before && keys.contains(&line.key) {
            *counts.entry(line.key).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The lines of a posted period, as its chain has them.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn posted_into(table: Option<&Table>, period: Period) -> Result<Vec<Line>> {
    let mut lines = lines(table, "posted_period", period).await?;
    lines.sort_by_key(sequence);
    Ok(lines)
}

fn sequence(line: &Line) -> Option<u64> {
    line.posting.as_ref().map(|posting| posting.sequence)
}

/// The lines that a version of the ledger came with, as their chain has them.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn lines_of_version(table: &Table, version: u64) -> Result<Vec<Line>> {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    let mut lines = lines_where(table, col("ledger_version").eq(lit(version))).await?;
    lines.sort_by_key(sequence);
    Ok(lines)
}

/// One line, by its id.
///
/// # Errors
/// If the ledger cannot be read, or has no such line.
pub async fn line(table: &Table, line_id: &str) -> Result<Line> {
    let found = lines_where(table, col("line_id").eq(lit(line_id))).await?.into_iter().next();
    found.ok_or_else(|| ReconcileError::NoLine(line_id.to_owned()))
}

/// The lines of the same key that were posted before one, in their order.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn earlier_lines(table: &Table, line: &Line) -> Result<Vec<Line>> {
    if line.lines_before == 0 {
        return Ok(Vec::new());
    }
    let which = col("service_period")
        .eq(lit(line.service_period.to_string()))
        .and(col("smart_account").eq(lit(line.key.smart_account.as_str())))
        .and(col("virtual_account").eq(lit(line.key.virtual_account.as_str())));
    let mut lines = lines_where(table, which).await?;
    lines.retain(|other| {
        other.key == line.key
            && other.currency == line.currency
            && other.lines_before < line.lines_before
    });
    Ok(lines)
}

/// All lines.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn all_lines(table: &Table) -> Result<Vec<Line>> {
    lines_where(table, lit(true)).await
}

async fn lines_where(table: &Table, which: Expr) -> Result<Vec<Line>> {
    let session = engine::session()?;
    let rows = rows_of(&session, table, RECORD_LINE).await?.filter(which)?;
    let mut lines = Vec::new();
    for batch in rows.collect().await? {
        read_lines(&batch, &mut lines)?;
    }
    lines.sort_by(|a, b| {
        (&a.key, a.service_period, &a.currency, a.lines_before).cmp(&(
            &b.key,
            b.service_period,
            &b.currency,
            b.lines_before,
        ))
    });
    Ok(lines)
}

/// The periods that are closed, with the versions of the ledger that closed them.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn closed(table: Option<&Table>) -> Result<BTreeMap<Period, u64>> {
    let Some(table) = table else { return Ok(BTreeMap::new()) };
    let session = engine::session()?;
    let rows = rows_of(&session, table, RECORD_CLOSE).await?;
    let rows = rows.select_columns(&["posted_period", "ledger_version"])?;
    let mut periods = BTreeMap::new();
    for batch in rows.collect().await? {
        let texts = cast(batch.column(0), &DataType::Utf8)?;
        let versions = cast(batch.column(1), &DataType::Int64)?;
        let versions = versions.as_primitive::<Int64Type>();
        for (i, period) in texts.as_string::<i32>().iter().enumerate() {
            let version = if versions.is_valid(i) { versions.value(i) } else { 0 };
            let period = period.unwrap_or_default().parse().map_err(ReconcileError::Ledger)?;
            periods.insert(period, u64::try_from(version).unwrap_or(0));
        }
    }
    Ok(periods)
}

/// The periods that lines were posted into.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn posted_periods(table: &Table) -> Result<Vec<Period>> {
    let session = engine::session()?;
    let rows = rows_of(&session, table, RECORD_LINE).await?;
    let mut periods = Vec::new();
    for batch in rows.select_columns(&["posted_period"])?.distinct()?.collect().await? {
        for period in engine::text(batch.column(0))?.iter().flatten() {
            periods.push(period.parse().map_err(ReconcileError::Ledger)?);
        }
    }
    Ok(periods)
}

/// The manifest of a period's close.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn manifest(table: &Table, period: Period) -> Result<Option<String>> {
    let session = engine::session()?;
    let rows = rows_of(&session, table, RECORD_CLOSE).await?;
    let rows = rows
        .filter(col("posted_period").eq(lit(period.to_string())))?
        .select_columns(&["manifest"])?;
    for batch in rows.collect().await? {
        let texts = cast(batch.column(0), &DataType::Utf8)?;
        if let Some(Some(manifest)) = texts.as_string::<i32>().iter().next() {
            return Ok(Some(manifest.to_owned()));
        }
    }
    Ok(None)
}

/// The versions of journal and book that lines and closes stand on.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn pinned_versions(table: &Table) -> Result<Vec<Versions>> {
    let session = engine::session()?;
    engine::register(&session, TABLE, Some(table), &SCHEMA).await?;
    let rows = session.table(TABLE).await?;
    let rows = rows.select_columns(&["journal_version", "book_version"])?.distinct()?;
    let mut versions = Vec::new();
    for batch in rows.collect().await? {
        let column = |i: usize| cast(batch.column(i), &DataType::Int64);
        let (journal, book) = (column(0)?, column(1)?);
        let at = |column: &ArrayRef, i: usize| {
            let column = column.as_primitive::<Int64Type>();
            column.is_valid(i).then(|| column.value(i)).and_then(|v| u64::try_from(v).ok())
        };
        versions.extend(
            (0..batch.num_rows())
                .map(|i| Versions { journal: at(&journal, i), book: at(&book, i) }),
        );
    }
    Ok(versions)
}

/// Gives lines that are about to be posted their places in the chain of their period, after the lines
/// that it has.
pub fn chain(lines: &mut [Line], before: &[Line], run: &Run) {
    let last = before.iter().filter_map(|line| line.posting.as_ref()).max_by_key(|p| p.sequence);
    let first = last.map_or(0, |posting| posting.sequence + 1);
    let mut link: Hash = last.and_then(|p| p.chain.parse().ok()).unwrap_or_default();
    for (sequence, line) in (first..).zip(lines.iter_mut()) {
        line.posting = Some(Posting {
            sequence,
            posted_at: run.posted_at,
            journal_version: run.versions.journal,
            book_version: run.versions.book,
            ledger_version: run.ledger_version,
            scope: run.scope.clone(),
            chain: String::new(),
        });
        link = merkle::link(&link, &line.leaf().unwrap_or_default());
        if let Some(posting) = &mut line.posting {
            posting.chain = link.to_string();
        }
    }
}

/// Posted lines as rows of the table.
///
/// # Errors
/// Only if the columns do not fit the schema, which would be a bug.
pub fn line_rows(lines: &[Line]) -> Result<RecordBatch> {
    let n = lines.len();
    let text = |of: fn(&Line) -> String| {
        Arc::new(StringArray::from_iter_values(lines.iter().map(of))) as ArrayRef
    };
    let decimal = |of: fn(&Line) -> Option<i128>, scale: i8| -> ArrayRef {
        Arc::new(
            lines
                .iter()
                .map(of)
                .collect::<Decimal128Array>()
                .with_data_type(DataType::Decimal128(38, scale)),
        )
    };
    let number = |of: fn(&Posting) -> Option<u64>| -> ArrayRef {
        let of =
            |line: &Line| line.posting.as_ref().and_then(of).and_then(|v| i64::try_from(v).ok());
        Arc::new(lines.iter().map(of).collect::<Int64Array>())
    };
    let columns: Vec<ArrayRef> = vec![
        text(|_| RECORD_LINE.to_owned()),
        text(|l| l.line_id.clone()),
        text(|l| l.posted_period.to_string()),
        text(|l| l.service_period.to_string()),
        times(lines.iter().map(|l| Some(l.key.segment_start))),
        text(|l| l.key.smart_account.clone()),
        text(|l| l.key.virtual_account.clone()),
        text(|l| l.customer.clone()),
        text(|l| l.key.pool.as_str().to_owned()),
        text(|l| l.key.subscription_id.clone()),
        text(|l| l.key.item.clone()),
        text(|l| l.key.charge.as_str().to_owned()),
        text(|l| l.kind.as_str().to_owned()),
        text(|l| l.measure.as_str().to_owned()),
        decimal(|l| Some(l.consumed), 6),
        decimal(|l| Some(l.purchased), 6),
        decimal(|l| Some(l.quantity), 6),
        decimal(|l| Some(l.amount), 4),
        text(|l| l.currency.clone()),
        text(|l| l.price_plan.clone()),
        decimal(|l| l.verified_share, 6),
        text(|l| l.evidence_root.clone()),
        Arc::new(Int64Array::from_iter_values(
            lines.iter().map(|l| i64::try_from(l.lines_before).unwrap_or(i64::MAX)),
        )),
        times(lines.iter().map(|line| line.posting.as_ref().map(|p| p.posted_at))),
        number(|p| p.journal_version),
        number(|p| p.book_version),
        Arc::new(StringArray::new_null(n)),
        times(lines.iter().map(|line| Some(line.segment_end))),
        decimal(|l| Some(l.quantity_before), 6),
        decimal(|l| Some(l.amount_before), 4),
        text(|l| l.cause.clone()),
        text(|l| l.usage_root.clone()),
        text(|l| l.terms_leaf.clone()),
        text(|l| l.purchased_leaf.clone()),
        number(|p| Some(p.sequence)),
        number(|p| Some(p.ledger_version)),
        text(|l| l.posting.as_ref().map(|p| p.scope.clone()).unwrap_or_default()),
        text(|l| l.posting.as_ref().map(|p| p.chain.clone()).unwrap_or_default()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

/// The close of a period as a row of the table.
///
/// # Errors
/// Only if the columns do not fit the schema, which would be a bug.
pub fn close_row(
    period: Period,
    manifest: &str,
    versions: Versions,
    ledger_version: u64,
    closed_at: EpochSeconds,
) -> Result<RecordBatch> {
    let columns = SCHEMA
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            let text =
                |value: &str| Arc::new(StringArray::from(vec![value.to_owned()])) as ArrayRef;
            let version = |v: Option<u64>| {
                Arc::new(Int64Array::from(vec![v.and_then(|v| i64::try_from(v).ok())])) as ArrayRef
            };
            match field.name().as_str() {
                "record" => text(RECORD_CLOSE),
                "posted_period" => text(&period.to_string()),
                "posted_at" => times(std::iter::once(Some(closed_at))),
                "journal_version" => version(versions.journal),
                "book_version" => version(versions.book),
                "ledger_version" => version(Some(ledger_version)),
                "manifest" => text(manifest),
                _ => arrow::array::new_null_array(field.data_type(), 1),
            }
        })
        .collect();
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

fn times(values: impl Iterator<Item = Option<EpochSeconds>>) -> ArrayRef {
    let micros = values.map(|t| t.map(|t| t.saturating_mul(1_000_000)));
    Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn read_lines(batch: &RecordBatch, lines: &mut Vec<Line>) -> Result<()> {
    let column = |name: &str, to: &DataType| -> Result<ArrayRef> {
        let column = batch
            .column_by_name(name)
            .ok_or_else(|| ReconcileError::Ledger(format!("there is no column {name}")))?;
        Ok(cast(column, to)?)
    };
    let text = |name| column(name, &DataType::Utf8).map(|c| c.as_string::<i32>().clone());
    let decimal = |name, scale| {
        column(name, &DataType::Decimal128(38, scale))
            .map(|c| c.as_primitive::<Decimal128Type>().clone())
    };
    let ids = text("line_id")?;
    let (posted, service) = (text("posted_period")?, text("service_period")?);
    let starts =
        column("segment_start", &timestamp())?.as_primitive::<TimestampMicrosecondType>().clone();
    let ends =
        column("segment_end", &timestamp())?.as_primitive::<TimestampMicrosecondType>().clone();
    let (smart, virtual_, customer) =
        (text("smart_account")?, text("virtual_account")?, text("customer")?);
    let (pool, subscription, item) =
        (text("pool")?, text("subscription_id")?, text("entitlement")?);
    let (charge, kind, measure) = (text("charge")?, text("kind")?, text("measure")?);
    let (consumed, purchased) = (decimal("consumed", 6)?, decimal("purchased", 6)?);
    let (quantity, amount) = (decimal("quantity", 6)?, decimal("amount", 4)?);
    let (currency, plan) = (text("currency")?, text("price_plan")?);
    let (share, root) = (decimal("verified_share", 6)?, text("evidence_root")?);
    let number =
        |name| column(name, &DataType::Int64).map(|c| c.as_primitive::<Int64Type>().clone());
    let (before, sequence) = (number("lines_before")?, number("sequence")?);
    let (journal_version, book_version) = (number("journal_version")?, number("book_version")?);
    let posted_at =
        column("posted_at", &timestamp())?.as_primitive::<TimestampMicrosecondType>().clone();
    let (quantity_before, amount_before) =
        (decimal("quantity_before", 6)?, decimal("amount_before", 4)?);
    let (ledger_version, scope) = (number("ledger_version")?, text("scope")?);
    let (cause, usage_root) = (text("cause")?, text("usage_root")?);
    let (terms, purchased_leaf, chain) =
        (text("terms_leaf")?, text("purchased_leaf")?, text("chain")?);
    let version = |column: &Int64Array, i: usize| {
        column.is_valid(i).then(|| column.value(i)).and_then(|v| u64::try_from(v).ok())
    };
    for i in 0..batch.num_rows() {
        let word =
            |what: &str, value: &str| ReconcileError::Ledger(format!("'{value}' is no {what}"));
        lines.push(Line {
            line_id: ids.value(i).to_owned(),
            posted_period: posted.value(i).parse().map_err(ReconcileError::Ledger)?,
            service_period: service.value(i).parse().map_err(ReconcileError::Ledger)?,
            key: ChargeKey {
                smart_account: smart.value(i).to_owned(),
                virtual_account: virtual_.value(i).to_owned(),
                pool: Pool::parse(pool.value(i)).ok_or_else(|| word("pool", pool.value(i)))?,
                subscription_id: subscription.value(i).to_owned(),
                item: item.value(i).to_owned(),
                charge: Charge::parse(charge.value(i))
                    .ok_or_else(|| word("charge", charge.value(i)))?,
                segment_start: starts.value(i).div_euclid(1_000_000),
            },
            customer: customer.value(i).to_owned(),
            kind: Kind::parse(kind.value(i)).ok_or_else(|| word("kind", kind.value(i)))?,
            measure: Measure::parse(measure.value(i))
                .ok_or_else(|| word("measure", measure.value(i)))?,
            consumed: consumed.value(i),
            purchased: purchased.value(i),
            quantity: quantity.value(i),
            amount: amount.value(i),
            currency: currency.value(i).to_owned(),
            price_plan: plan.value(i).to_owned(),
            verified_share: share.is_valid(i).then(|| share.value(i)),
            evidence_root: root.value(i).to_owned(),
            segment_end: ends.value(i).div_euclid(1_000_000),
            lines_before: u64::try_from(before.value(i)).unwrap_or(0),
            quantity_before: quantity_before.value(i),
            amount_before: amount_before.value(i),
            cause: cause.value(i).to_owned(),
            usage_root: usage_root.value(i).to_owned(),
            terms_leaf: terms.value(i).to_owned(),
            purchased_leaf: purchased_leaf.value(i).to_owned(),
            posting: Some(Posting {
                sequence: version(&sequence, i).unwrap_or(0),
                posted_at: posted_at.value(i).div_euclid(1_000_000),
                journal_version: version(&journal_version, i),
                book_version: version(&book_version, i),
                ledger_version: version(&ledger_version, i).unwrap_or(0),
                scope: scope.value(i).to_owned(),
                chain: chain.value(i).to_owned(),
            }),
        });
    }
    Ok(())
}
