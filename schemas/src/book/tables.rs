//! The book in force as Arrow tables, for `book_…` in SQL (contract 5).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::*;
use crate::period::rfc3339;

/// A table `book_NAME` and its rows.
pub struct NamedTable {
    pub name: &'static str,
    pub rows: RecordBatch,
}

/// Columns under construction.
#[derive(Default)]
struct Columns {
    fields: Vec<Field>,
    arrays: Vec<ArrayRef>,
}

impl Columns {
    fn push(mut self, name: &str, array: ArrayRef) -> Self {
        self.fields.push(Field::new(name, array.data_type().clone(), true));
        self.arrays.push(array);
        self
    }

    fn text<S: AsRef<str>>(self, name: &str, values: impl Iterator<Item = S>) -> Self {
        self.push(name, Arc::new(StringArray::from_iter_values(values)))
    }

    /// Text that is null where it is blank.
    fn text_or_null<'a>(self, name: &str, values: impl Iterator<Item = &'a str>) -> Self {
        self.push(
            name,
            Arc::new(StringArray::from_iter(values.map(|v| (!v.is_empty()).then_some(v)))),
        )
    }

    fn flag(self, name: &str, values: impl Iterator<Item = bool>) -> Self {
        self.push(name, Arc::new(BooleanArray::from_iter(values.map(Some))))
    }

    fn count(self, name: &str, values: impl Iterator<Item = Option<u64>>) -> Self {
        self.push(name, Arc::new(UInt64Array::from_iter(values)))
    }

    fn small(self, name: &str, values: impl Iterator<Item = Option<u32>>) -> Self {
        self.push(name, Arc::new(UInt32Array::from_iter(values)))
    }

    /// Times; an open end (`i64::MAX`) is null.
    fn time(self, name: &str, values: impl Iterator<Item = EpochSeconds>) -> Self {
        let micros = values.map(|t| (t != i64::MAX).then(|| t.saturating_mul(1_000_000)));
        self.push(name, Arc::new(TimestampMicrosecondArray::from_iter(micros).with_timezone("UTC")))
    }

    /// Decimals with 12 places, as prices have at most.
    fn decimal(self, name: &str, values: impl Iterator<Item = Option<Decimal>>) -> Self {
        let scaled = values.map(|v| {
            let v = v?.normalize();
            v.mantissa().checked_mul(10i128.checked_pow(12u32.checked_sub(v.scale())?)?)
        });
        let array = Decimal128Array::from_iter(scaled).with_data_type(DataType::Decimal128(38, 12));
        self.push(name, Arc::new(array))
    }

    fn udi<'a>(self, values: impl Iterator<Item = &'a Udi> + Clone) -> Self {
        self.text("udi_pid", values.clone().map(|u| &u.pid))
            .text("udi_serial", values.map(|u| &u.serial))
    }

    fn account<'a>(self, values: impl Iterator<Item = &'a AccountId> + Clone) -> Self {
        self.text("smart_account", values.clone().map(|a| &a.smart))
            .text("virtual_account", values.map(|a| &a.virtual_))
    }

    fn finish(self, name: &'static str) -> Result<NamedTable, ArrowError> {
        let rows = RecordBatch::try_new(Arc::new(Schema::new(self.fields)), self.arrays)?;
        Ok(NamedTable { name, rows })
    }
}

/// `book_prices` with `valid_from` as its file has it: a bare date means another instant for each account that is
/// charged.
///
/// # Errors
/// Only if the rows are not those of the book, which would be a bug.
pub fn prices_as_written(book: &Book, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut written = Vec::with_capacity(rows.num_rows());
    for price in &book.prices {
        let from = match price.valid_from {
            Moment::At(instant) => rfc3339(instant),
            Moment::Date(day) => day.to_string(),
        };
        written.extend(std::iter::repeat_n(from, price.tiers.len()));
    }
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(written));
    let place = rows.schema().index_of("valid_from")?;
    let mut fields: Vec<Field> =
        rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[place] = Field::new("valid_from", DataType::Utf8, true);
    let mut columns = rows.columns().to_vec();
    columns[place] = texts;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// All tables of a book. Bare dates are resolved as the contract says; those of `prices.csv`, whose
/// zone depends on the account that is charged, are given at midnight UTC.
///
/// # Errors
/// Only if Arrow refuses the columns, which would be a bug.
pub fn as_tables(book: &Book) -> Result<Vec<NamedTable>, ArrowError> {
    let owner = |index: usize| &book.accounts[index].id;
    let new = Columns::default;
    let utc = TimeZone::UTC;
    let (accounts, devices, catalog) = (&book.accounts, &book.devices, &book.catalog);
    let (subscriptions, purchases) = (&book.subscriptions, &book.purchases);
    let (codes, policies) = (&book.trust_codes, &book.policies);
    let (authorizations, acks) = (&book.authorizations, &book.acks);
    let tiers: Vec<(&Price, &Tier)> =
        book.prices.iter().flat_map(|p| p.tiers.iter().map(move |t| (p, t))).collect();
    Ok(vec![
        new()
            .account(accounts.iter().map(|a| &a.id))
            .text("customer", accounts.iter().map(|a| &a.customer))
            .text("currency", accounts.iter().map(|a| &a.currency))
            .text("time_zone", accounts.iter().map(|a| &a.zone_name))
            .finish("book_accounts")?,
        new()
            .udi(devices.iter().map(|d| &d.udi))
            .account(devices.iter().map(|d| owner(d.account)))
            .time("valid_from", devices.iter().map(|d| d.valid.start))
            .time("valid_to", devices.iter().map(|d| d.valid.end))
            .text("managed_by", devices.iter().map(|d| d.managed_by.as_str()))
            .text("license_model", devices.iter().map(|d| d.license_model.as_str()))
            .text("transport", devices.iter().map(|d| &d.transport))
            .text("channel", devices.iter().map(|d| &d.channel))
            .finish("book_devices")?,
        new()
            .text("entitlement_tag", catalog.iter().map(|c| &c.tag))
            .text("name", catalog.iter().map(|c| &c.name))
            .text("enforcement", catalog.iter().map(|c| c.enforcement.as_str()))
            .text("duration", catalog.iter().map(|c| c.duration.as_str()))
            .flag("postpaid_allowed", catalog.iter().map(|c| c.postpaid_allowed))
            .text_or_null("equivalence", catalog.iter().map(|c| c.equivalence.as_str()))
            .finish("book_catalog")?,
        new()
            .text("subscription_id", subscriptions.iter().map(|s| &s.id))
            .account(subscriptions.iter().map(|s| owner(s.account)))
            .text("entitlement_tag", subscriptions.iter().map(|s| &s.tag))
            .text("billing_model", subscriptions.iter().map(|s| s.billing_model.as_str()))
            .count(
                "committed_quantity",
                subscriptions.iter().map(|s| {
                    (s.billing_model == BillingModel::Committed).then_some(s.committed_quantity)
                }),
            )
            .text_or_null("price_plan", subscriptions.iter().map(|s| s.price_plan.as_str()))
            .time("start", subscriptions.iter().map(|s| s.valid.start))
            .time("end", subscriptions.iter().map(|s| s.valid.end))
            .finish("book_subscriptions")?,
        new()
            .text("purchase_id", purchases.iter().map(|p| &p.id))
            .account(purchases.iter().map(|p| owner(p.account)))
            .text("entitlement_tag", purchases.iter().map(|p| &p.tag))
            .count("quantity", purchases.iter().map(|p| Some(p.quantity)))
            .time("start", purchases.iter().map(|p| p.valid.start))
            .time("end", purchases.iter().map(|p| p.valid.end))
            .text_or_null("price_plan", purchases.iter().map(|p| p.price_plan.as_str()))
            .finish("book_purchases")?,
        new()
            .text("price_plan", tiers.iter().map(|(p, _)| &p.plan))
            .text("entitlement_tag", tiers.iter().map(|(p, _)| &p.item))
            .text("charge", tiers.iter().map(|(p, _)| p.charge.as_str()))
            .time("valid_from", tiers.iter().map(|(p, _)| p.valid_from.resolve(&utc)))
            .text("measure", tiers.iter().map(|(p, _)| p.measure.as_str()))
            .text("tier_mode", tiers.iter().map(|(p, _)| p.tier_mode.as_str()))
            .decimal("tier_up_to", tiers.iter().map(|(_, t)| t.up_to))
            .decimal("unit_price", tiers.iter().map(|(_, t)| Some(t.unit_price)))
            .decimal("package_size", tiers.iter().map(|(p, _)| p.package_size))
            .text("currency", tiers.iter().map(|(p, _)| &p.currency))
            .finish("book_prices")?,
        new()
            .udi(codes.iter().map(|c| &c.udi))
            .text("origin", codes.iter().map(|c| c.origin.as_str()))
            .text("algorithm", codes.iter().map(|c| c.algorithm.as_str()))
            .text("public_key", codes.iter().map(|c| &c.public_key))
            .time("valid_from", codes.iter().map(|c| c.valid_from))
            .time("valid_to", codes.iter().map(|c| c.valid_to.unwrap_or(i64::MAX)))
            .finish("book_trust_codes")?,
        new()
            .text("scope", policies.iter().map(|p| p.scope.as_str()))
            .text("scope_id", policies.iter().map(|p| &p.scope_id))
            .text_or_null(
                "enforcement",
                policies.iter().map(|p| p.enforcement.map_or("", Enforcement::as_str)),
            )
            .text_or_null(
                "duration",
                policies.iter().map(|p| p.duration.map_or("", Duration::as_str)),
            )
            .flag("ack_required", policies.iter().map(|p| p.ack_required))
            .small("first_report_days", policies.iter().map(|p| Some(p.first_report_days)))
            .small(
                "reporting_frequency_days",
                policies.iter().map(|p| Some(p.reporting_frequency_days)),
            )
            .small("report_on_change_days", policies.iter().map(|p| Some(p.report_on_change_days)))
            .finish("book_policies")?,
        new()
            .udi(authorizations.iter().map(|a| &a.udi))
            .text("kind", authorizations.iter().map(|a| a.kind.as_str()))
            .text_or_null("entitlement_tag", authorizations.iter().map(|a| a.tag.as_str()))
            .small("code_version", authorizations.iter().map(|a| a.code_version))
            .time("installed_at", authorizations.iter().map(|a| a.installed_at))
            .time("returned_at", authorizations.iter().map(|a| a.returned_at.unwrap_or(i64::MAX)))
            .finish("book_authorizations")?,
        new()
            .udi(acks.iter().map(|a| &a.udi))
            .count("report_id", acks.iter().map(|a| Some(a.report_id)))
            .time("acked_at", acks.iter().map(|a| a.acked_at))
            .time("installed_at", acks.iter().map(|a| a.installed_at.unwrap_or(i64::MAX)))
            .finish("book_acks")?,
        new()
            .text("pool", book.gl_accounts.iter().map(|a| a.pool.map_or("", Pool::as_str)))
            .text("charge", book.gl_accounts.iter().map(|a| a.charge.map_or("", Charge::as_str)))
            .text("debit_account", book.gl_accounts.iter().map(|a| &a.debit_account))
            .text("credit_account", book.gl_accounts.iter().map(|a| &a.credit_account))
            .finish("book_gl_accounts")?,
    ])
}
