//! What is computed, not stored: findings, deadlines, coverage, exceptions, and whether the chain holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::arrow::array::{AsArray as _, RecordBatch, StringArray};
use ::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use anyhow::Context as _;
use datafusion::functions_aggregate::expr_fn::{count, min};
use datafusion::prelude::{col, lit};
use reconcile::shell::compliance::Compliance;
use reconcile::shell::compliance_tables as tables;
use reconcile::shell::run::{EXCEPTION_COLUMNS, ExceptionRow, Snapshot, exceptions_of};
use reconcile::shell::verify;
use schemas::period::{EpochSeconds, Period};

use crate::commands::suspense::not_written_off;

/// Tables as of an instant, and what is counted of them.
#[derive(Clone, Debug, Default)]
pub struct Computed {
    /// `None` until they were computed for the first time.
    pub at: Option<EpochSeconds>,
    pub tables: Vec<(&'static str, RecordBatch)>,
    pub counts: Counts,
}

/// For gauges.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By rule and severity.
    pub findings: BTreeMap<(&'static str, &'static str), i64>,
    /// Product instances by the state of their deadline.
    pub deadlines: BTreeMap<&'static str, i64>,
    /// Licence-seconds, by period and reason.
    pub exceptions: BTreeMap<(Period, &'static str), i128>,
    /// Whether each period's chain is broken.
    pub chains: BTreeMap<Period, bool>,
    /// By reason: reports, the oldest one's arrival.
    pub suspended: BTreeMap<String, (i64, EpochSeconds)>,
}

/// The tables before anything was computed: they are there, without rows.
pub fn empty() -> anyhow::Result<Computed> {
    let none = |name, columns| tables::Computed { name, columns, rows: Vec::new() };
    let computed = [
        none("findings", tables::FINDINGS),
        none("deadlines", tables::DEADLINES),
        none("coverage", tables::COVERAGE),
    ];
    let mut tables = Vec::new();
    for table in computed {
        tables.push((table.name, table.batch()?));
    }
    tables.push(("exceptions", exception_rows(&[])?));
    tables.push(("ledger_checks", check_rows(&[])?));
    Ok(Computed { tables, ..Computed::default() })
}

/// Computes everything as of an instant.
pub async fn compute(snapshot: &Snapshot, at: EpochSeconds) -> anyhow::Result<Computed> {
    let mut counts = Counts::default();
    let mut computed = Vec::new();
    {
        let compliance =
            Compliance::read(snapshot, at).await.context("cannot read what was reported")?;
        let findings =
            compliance.findings().await.context("cannot look for breaches of the rules")?;
        for one in &findings {
            let rule = one.finding.rule;
            *counts.findings.entry((rule.as_str(), rule.facts().severity.as_str())).or_default() +=
                1;
        }
        computed.push(tables::findings(&compliance, &findings));
        drop(findings);
        let deadlines = compliance.deadlines().context("cannot compute what is due")?;
        for one in &deadlines {
            *counts.deadlines.entry(one.deadline.state(at)).or_default() += 1;
        }
        computed.push(tables::deadlines(&compliance, &deadlines, at));
        computed.push(tables::all_coverage(&compliance, at));
    }
    let mut tables = Vec::new();
    for table in computed {
        tables.push((table.name, table.batch()?));
    }
    let exceptions = exceptions_of(snapshot, None).await.context("cannot compute exceptions")?;
    for row in &exceptions {
        *counts.exceptions.entry((row.period, row.reason)).or_default() += row.license_seconds;
    }
    tables.push(("exceptions", exception_rows(&exceptions)?));
    let checks = check_chains(snapshot).await?;
    for (period, broken) in &checks {
        counts.chains.insert(*period, broken.is_some());
    }
    tables.push(("ledger_checks", check_rows(&checks)?));
    counts.suspended = suspended(snapshot).await?;
    Ok(Computed { at: Some(at), tables, counts })
}

fn exception_rows(rows: &[ExceptionRow]) -> anyhow::Result<RecordBatch> {
    let text = |cell: fn(&ExceptionRow) -> String| -> ::arrow::array::ArrayRef {
        Arc::new(rows.iter().map(|row| Some(cell(row))).collect::<StringArray>())
    };
    let seconds = rows.iter().map(|row| Some(row.license_seconds));
    let seconds: ::arrow::array::Decimal128Array = seconds.collect();
    let columns = vec![
        text(|row| row.period.to_string()),
        text(|row| row.smart_account.clone()),
        text(|row| row.virtual_account.clone()),
        text(|row| row.subscription_id.clone()),
        text(|row| row.entitlement.clone()),
        text(|row| row.reason.to_owned()),
        Arc::new(seconds.with_precision_and_scale(38, 0)?) as _,
    ];
    let named = EXCEPTION_COLUMNS.into_iter().zip(columns);
    Ok(RecordBatch::try_from_iter_with_nullable(named.map(|(name, column)| (name, column, false)))?)
}

type Check = (Period, Option<verify::Difference>);

async fn check_chains(snapshot: &Snapshot) -> anyhow::Result<Vec<Check>> {
    let Some(ledger) = &snapshot.ledger else { return Ok(Vec::new()) };
    let mut checks = Vec::new();
    for period in verify::periods(ledger).await? {
        checks.push((period, verify::check_chain(ledger, period).await?));
    }
    Ok(checks)
}

fn check_rows(checks: &[Check]) -> anyhow::Result<RecordBatch> {
    let text = |cell: fn(&Check) -> Option<String>| -> ::arrow::array::ArrayRef {
        Arc::new(checks.iter().map(cell).collect::<StringArray>())
    };
    let field = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let schema =
        Schema::new(vec![field("period", false), field("chain", false), field("difference", true)]);
    let holds = |check: &Check| if check.1.is_some() { "broken" } else { "holds" };
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![
            text(|check| Some(check.0.to_string())),
            Arc::new(checks.iter().map(|check| Some(holds(check))).collect::<StringArray>()),
            text(|check| {
                let found = check.1.as_ref()?;
                Some(format!("{}: {} instead of {}", found.place, found.found, found.expected))
            }),
        ],
    )?)
}

/// Those that wait: what was written off is decided.
async fn suspended(snapshot: &Snapshot) -> anyhow::Result<BTreeMap<String, (i64, EpochSeconds)>> {
    let session = snapshot.sql_session().await?;
    let waiting = col("disposition").eq(lit("suspended")).and(not_written_off());
    let of_reason = vec![count(lit(1)), min(col("received_at"))];
    let rows = session.table("journal").await?.filter(waiting)?;
    let rows = rows.aggregate(vec![col("reason")], of_reason)?;
    let mut by_reason = BTreeMap::new();
    for batch in rows.collect().await? {
        let reasons = ::arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        let reports = batch.column(1).as_primitive::<Int64Type>();
        let oldest = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for (i, reason) in reasons.as_string::<i32>().iter().enumerate() {
            let oldest = oldest.value(i).div_euclid(1_000_000);
            by_reason.insert(reason.unwrap_or_default().to_owned(), (reports.value(i), oldest));
        }
    }
    Ok(by_reason)
}
