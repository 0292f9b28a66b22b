//! Findings, deadlines and coverage as tables: for the commands, for SQL, for dashboards.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemas::book::Account;
use schemas::journal::timestamp;
use schemas::period::{EpochSeconds, Period, rfc3339};
use schemas::quantity::{QUANTITY_SCALE, decimal_text, divide_half_even, money_text};
use schemas::udi::Udi;

use super::compliance::{
    AccountCoverage, Amount, Compliance, DeadlineAtStake, DueDay, FindingAtStake,
};
use crate::ReconcileError;
use crate::core::coverage::Coverage;

/// Decimal places of an amount in a table.
const AMOUNT_PLACES: i8 = 4;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// UTC.
    Time,
    Count,
    /// In the currency that stands in its own column.
    Money,
    /// From 0 to 1, six places.
    Share,
    /// Licence-seconds: whole, and larger than a count.
    Seconds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Text(String),
    Time(Option<EpochSeconds>),
    Count(Option<i64>),
    Money(Option<(i128, String)>),
    Number(Option<i128>),
}

/// A table whose rows are computed, not stored.
#[derive(Clone, Debug)]
pub struct Computed {
    pub name: &'static str,
    pub columns: &'static [(&'static str, Kind)],
    pub rows: Vec<Vec<Cell>>,
}

pub const FINDINGS: &[(&str, Kind)] = &[
    ("rule", Kind::Text),
    ("severity", Kind::Text),
    ("smart_account", Kind::Text),
    ("virtual_account", Kind::Text),
    ("udi_pid", Kind::Text),
    ("udi_serial", Kind::Text),
    ("entitlement", Kind::Text),
    ("since", Kind::Time),
    ("last_seen", Kind::Time),
    ("licenses", Kind::Count),
    ("amount", Kind::Money),
    ("currency", Kind::Text),
    ("reports", Kind::Count),
    ("report_ids", Kind::Text),
    ("detail", Kind::Text),
    ("what_to_do", Kind::Text),
    ("domain_rules", Kind::Text),
];

pub const DEADLINES: &[(&str, Kind)] = &[
    ("udi_pid", Kind::Text),
    ("udi_serial", Kind::Text),
    ("smart_account", Kind::Text),
    ("virtual_account", Kind::Text),
    ("state", Kind::Text),
    ("days_left", Kind::Count),
    ("report_due", Kind::Time),
    ("report_recommended", Kind::Time),
    ("ack_due", Kind::Time),
    ("last_report", Kind::Time),
    ("last_ack", Kind::Time),
    ("change_at", Kind::Time),
    ("change_due", Kind::Time),
    ("change_reported", Kind::Time),
    ("policy", Kind::Text),
    ("entitlement", Kind::Text),
    ("why", Kind::Text),
    ("exemption", Kind::Text),
    ("mode", Kind::Text),
    ("licenses", Kind::Count),
    ("amount", Kind::Money),
    ("currency", Kind::Text),
];

pub const FORECAST: &[(&str, Kind)] = &[
    ("day", Kind::Text),
    ("product_instances", Kind::Count),
    ("amount", Kind::Money),
    ("currency", Kind::Text),
];

pub const COVERAGE: &[(&str, Kind)] = &[
    ("period", Kind::Text),
    ("udi_pid", Kind::Text),
    ("udi_serial", Kind::Text),
    ("smart_account", Kind::Text),
    ("virtual_account", Kind::Text),
    ("entitlement", Kind::Text),
    ("state", Kind::Text),
    ("expected_seconds", Kind::Count),
    ("covered_seconds", Kind::Count),
    ("uncovered_seconds", Kind::Count),
    ("share", Kind::Share),
    ("uncovered_since", Kind::Time),
    ("unseen_license_seconds", Kind::Seconds),
];

pub const ACCOUNT_COVERAGE: &[(&str, Kind)] = &[
    ("period", Kind::Text),
    ("smart_account", Kind::Text),
    ("virtual_account", Kind::Text),
    ("customer", Kind::Text),
    ("product_instances", Kind::Count),
    ("silent", Kind::Count),
    ("lost", Kind::Count),
    ("expected_seconds", Kind::Count),
    ("covered_seconds", Kind::Count),
    ("share", Kind::Share),
    ("unseen_license_seconds", Kind::Seconds),
    ("would_bill", Kind::Money),
    ("currency", Kind::Text),
];

fn text(text: impl Into<String>) -> Cell {
    Cell::Text(text.into())
}

fn udi_cells(udi: Option<&Udi>) -> [Cell; 2] {
    udi.map_or([text(""), text("")], |udi| [text(&udi.pid), text(&udi.serial)])
}

fn account_cells(account: Option<&Account>) -> [Cell; 2] {
    account.map_or([text(""), text("")], |a| [text(&a.id.smart), text(&a.id.virtual_)])
}

fn money_cells(amount: Option<(i128, String)>) -> [Cell; 2] {
    let currency = amount.as_ref().map(|(_, currency)| currency.clone()).unwrap_or_default();
    [Cell::Money(amount), text(currency)]
}

/// What has a row for each currency has one where there is none, too.
fn one_at_least(amounts: impl Iterator<Item = Amount>) -> Vec<Option<Amount>> {
    let amounts: Vec<Option<Amount>> = amounts.map(Some).collect();
    if amounts.is_empty() { vec![None] } else { amounts }
}

/// As a column `share` has it; blank where nothing is expected.
#[must_use]
pub fn share_text(covered: i64, expected: i64) -> String {
    share(covered, expected).map_or_else(String::new, |n| decimal_text(n, QUANTITY_SCALE))
}

/// The part that is covered, in millionths; `None` where nothing is expected.
fn share(covered: i64, expected: i64) -> Option<i128> {
    divide_half_even(i128::from(covered) * 1_000_000, i128::from(expected)).filter(|_| expected > 0)
}

#[must_use]
pub fn findings(compliance: &Compliance<'_>, all: &[FindingAtStake]) -> Computed {
    let rows = all
        .iter()
        .map(|FindingAtStake { finding, amount }| {
            let facts = finding.rule.facts();
            let ids: Vec<String> = finding.reports.iter().map(ToString::to_string).collect();
            let reports = i64::try_from(finding.reports_total).unwrap_or(i64::MAX);
            let mut row = vec![text(finding.rule.as_str()), text(facts.severity.as_str())];
            row.extend(account_cells(finding.account.map(|a| compliance.account(a))));
            row.extend(udi_cells(finding.udi.as_ref()));
            row.extend([
                text(&finding.entitlement),
                Cell::Time(Some(finding.since)),
                Cell::Time(Some(finding.last)),
                Cell::Count(Some(finding.licenses)),
            ]);
            row.extend(money_cells(amount.clone()));
            row.extend([
                Cell::Count(Some(reports)),
                text(ids.join(" ")),
                text(&finding.detail),
                text(facts.what_to_do),
                text(facts.rules),
            ]);
            row
        })
        .collect();
    Computed { name: "findings", columns: FINDINGS, rows }
}

/// Deadlines; those of which several currencies hang have a row for each.
#[must_use]
pub fn deadlines(
    compliance: &Compliance<'_>,
    all: &[DeadlineAtStake],
    at: EpochSeconds,
) -> Computed {
    let rows = all.iter().flat_map(|DeadlineAtStake { deadline, amounts }| {
        one_at_least(amounts.iter().cloned()).into_iter().map(move |amount| {
            let licenses = deadline.licenses.iter().map(|(_, value)| value).sum();
            let mut row: Vec<Cell> = udi_cells(Some(&deadline.udi)).into();
            row.extend(account_cells(deadline.account.map(|a| compliance.account(a))));
            row.extend([
                text(deadline.state(at)),
                Cell::Count(deadline.days_left(at)),
                Cell::Time(deadline.report_due),
                Cell::Time(deadline.report_recommended),
                Cell::Time(deadline.ack_due),
                Cell::Time(deadline.last_report),
                Cell::Time(deadline.last_ack),
                Cell::Time(deadline.change_at),
                Cell::Time(deadline.change_due),
                Cell::Time(deadline.change_reported),
                text(&deadline.policy),
                text(&deadline.entitlement),
                text(&deadline.why),
                text(deadline.exemption.map_or("", |e| e.as_str())),
                text(if deadline.utility { "utility" } else { "standard" }),
                Cell::Count(Some(licenses)),
            ]);
            row.extend(money_cells(amount));
            row
        })
    });
    Computed { name: "deadlines", columns: DEADLINES, rows: rows.collect() }
}

/// A forecast: a row for each day and currency.
#[must_use]
pub fn forecast(by_day: &std::collections::BTreeMap<EpochSeconds, DueDay>) -> Computed {
    let mut rows = Vec::new();
    for (day, due) in by_day {
        let date = rfc3339(*day).chars().take(10).collect::<String>();
        let pis = i64::try_from(due.pis).unwrap_or(i64::MAX);
        let amounts = due.amounts.iter().map(|(currency, amount)| (*amount, currency.clone()));
        for amount in one_at_least(amounts) {
            let mut row = vec![text(&date), Cell::Count(Some(pis))];
            row.extend(money_cells(amount));
            rows.push(row);
        }
    }
    Computed { name: "forecast", columns: FORECAST, rows }
}

#[must_use]
pub fn coverage(compliance: &Compliance<'_>, all: &[Coverage], period: Period) -> Computed {
    let rows = all.iter().map(|one| {
        let mut row = vec![text(period.to_string())];
        row.extend(udi_cells(Some(&one.udi)));
        row.extend(account_cells(one.account.map(|a| compliance.account(a))));
        row.extend([
            text(&one.entitlement),
            text(one.state),
            Cell::Count(Some(one.expected)),
            Cell::Count(Some(one.covered)),
            Cell::Count(Some(one.uncovered())),
            Cell::Number(share(one.covered, one.expected)),
            Cell::Time(one.gaps.first().map(|gap| gap.span.start)),
            Cell::Number(Some(one.unseen())),
        ]);
        row
    });
    Computed { name: "coverage", columns: COVERAGE, rows: rows.collect() }
}

/// Coverage of every month in which anything was reported, up to the one of an instant.
#[must_use]
pub fn all_coverage(compliance: &Compliance<'_>, at: EpochSeconds) -> Computed {
    let mut all = Computed { name: "coverage", columns: COVERAGE, rows: Vec::new() };
    let periods = compliance.months_up_to(at);
    for (period, of_period) in periods.iter().zip(compliance.coverage_of(&periods)) {
        all.rows.extend(coverage(compliance, &of_period, *period).rows);
    }
    all
}

/// Coverage by account: a row for each currency that its gaps would bill.
#[must_use]
pub fn account_coverage(
    compliance: &Compliance<'_>,
    all: &std::collections::BTreeMap<Option<usize>, AccountCoverage>,
    period: Period,
) -> Computed {
    let mut rows = Vec::new();
    for (account, of) in all {
        let count = |n: u64| Cell::Count(Some(i64::try_from(n).unwrap_or(i64::MAX)));
        let account = account.map(|a| compliance.account(a));
        let amounts = of.would_bill.iter().map(|(currency, amount)| (*amount, currency.clone()));
        for amount in one_at_least(amounts) {
            let mut row = vec![text(period.to_string())];
            row.extend(account_cells(account));
            row.push(text(account.map(|a| a.customer.clone()).unwrap_or_default()));
            row.extend([
                count(of.pis),
                count(of.silent),
                count(of.lost),
                Cell::Count(Some(of.expected)),
                Cell::Count(Some(of.covered)),
                Cell::Number(share(of.covered, of.expected)),
                Cell::Number(Some(of.unseen)),
            ]);
            row.extend(money_cells(amount));
            rows.push(row);
        }
    }
    Computed { name: "account_coverage", columns: ACCOUNT_COVERAGE, rows }
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Text => DataType::Utf8,
            Kind::Time => timestamp(),
            Kind::Count => DataType::Int64,
            Kind::Money => DataType::Decimal128(38, AMOUNT_PLACES),
            Kind::Share => DataType::Decimal128(7, 6),
            Kind::Seconds => DataType::Decimal128(38, 0),
        }
    }
}

impl Computed {
    /// The same without some columns.
    #[must_use]
    pub fn without(mut self, columns: &[&str]) -> (Vec<&'static str>, Vec<Vec<String>>) {
        let all = self.columns;
        let is_kept = |i: usize| !columns.contains(&all[i].0);
        let rows = std::mem::take(&mut self.rows);
        let texts = Computed { rows, ..self }.into_texts();
        let kept = |row: Vec<String>| {
            row.into_iter().enumerate().filter(|(i, _)| is_kept(*i)).map(|(_, cell)| cell).collect()
        };
        let names = all.iter().map(|(name, _)| *name).filter(|name| !columns.contains(name));
        (names.collect(), texts.into_iter().map(kept).collect())
    }

    /// The rows as CSV has them.
    #[must_use]
    pub fn into_texts(self) -> Vec<Vec<String>> {
        let kinds: Vec<Kind> = self.columns.iter().map(|(_, kind)| *kind).collect();
        let cell = |(cell, kind): (Cell, &Kind)| match cell {
            Cell::Text(text) => text,
            Cell::Time(at) => at.map(rfc3339).unwrap_or_default(),
            Cell::Count(count) => count.map(|n| n.to_string()).unwrap_or_default(),
            Cell::Money(amount) => {
                amount.map(|(amount, c)| money_text(amount, &c)).unwrap_or_default()
            }
            Cell::Number(number) => number.map_or_else(String::new, |n| match kind {
                Kind::Share => decimal_text(n, QUANTITY_SCALE),
                _ => n.to_string(),
            }),
        };
        self.rows.into_iter().map(|row| row.into_iter().zip(&kinds).map(cell).collect()).collect()
    }

    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let field = |(name, kind): &(&str, Kind)| Field::new(*name, kind.data_type(), true);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The rows as SQL has them.
    ///
    /// # Errors
    /// If a value does not fit its column, which would be a bug.
    pub fn batch(&self) -> Result<RecordBatch, ReconcileError> {
        let schema = self.schema();
        let column = |i: usize| -> ArrayRef {
            let cells = || self.rows.iter().map(move |row| &row[i]);
            match self.columns[i].1 {
                Kind::Text => Arc::new(
                    cells()
                        .map(|c| match c {
                            Cell::Text(text) => Some(text.as_str()),
                            _ => None,
                        })
                        .collect::<StringArray>(),
                ),
                Kind::Time => {
                    let micros = cells().map(|c| match c {
                        Cell::Time(at) => at.map(|at| at.saturating_mul(1_000_000)),
                        _ => None,
                    });
                    let times: TimestampMicrosecondArray = micros.collect();
                    Arc::new(times.with_timezone("UTC"))
                }
                Kind::Count => Arc::new(
                    cells()
                        .map(|c| match c {
                            Cell::Count(count) => *count,
                            _ => None,
                        })
                        .collect::<Int64Array>(),
                ),
                Kind::Money | Kind::Share | Kind::Seconds => {
                    let numbers = cells().map(|c| match c {
                        Cell::Money(amount) => amount.as_ref().map(|(amount, _)| *amount),
                        Cell::Number(number) => *number,
                        _ => None,
                    });
                    let numbers: Decimal128Array = numbers.collect();
                    Arc::new(numbers.with_data_type(schema.field(i).data_type().clone()))
                }
            }
        };
        let columns = (0..self.columns.len()).map(column).collect();
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
