//! The journal: one row for each report received (contract 5).
//!
//! Delta Lake has no unsigned 64-bit type. A report id may need all 64 bits, so it is stored as
//! `decimal(20, 0)`; counts are at most 2^53 and are stored as `bigint`. The views that `sql` and
//! `serve` offer cast both to unsigned 64-bit.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

/// Name of the Delta table.
pub const TABLE: &str = "journal";
/// The column by which the table is partitioned.
pub const PARTITION_COLUMN: &str = "disposition";
/// Metric that counts as usage; any other is kept and never billed (contract 1.2).
pub const ENTITLEMENT_METRIC: &str = "ENTITLEMENT";

/// UTC, microseconds.
#[must_use]
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A 64-bit unsigned id, as Delta can hold it.
#[must_use]
pub fn stored_id() -> DataType {
    DataType::Decimal128(20, 0)
}

/// Fields of one element of `measurements`.
pub static MEASUREMENT: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("metric", DataType::Utf8, true),
        Field::new("start", timestamp(), true),
        Field::new("end", timestamp(), true),
        Field::new("value", DataType::Int64, true),
    ])
});

/// Fields of one element of `ha_udi`.
pub static UDI: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("udi_pid", DataType::Utf8, true),
        Field::new("udi_serial", DataType::Utf8, true),
    ])
});

/// Fields of one element of `acts`: what a person did to a suspended report.
pub static ACT: LazyLock<Fields> = LazyLock::new(|| {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Fields::from(vec![
        Field::new("at", timestamp(), true),
        text("by"),
        text("act"),
        text("reason"),
        text("before"),
    ])
});

/// Fields of one element of `sub_devices`: a UDI that a measurement adds to those under the PI, or removes.
pub static SUB_DEVICE: LazyLock<Fields> = LazyLock::new(|| {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Fields::from(vec![
        Field::new("measurement", DataType::Int32, true),
        text("change"),
        text("udi_pid"),
        text("udi_serial"),
    ])
});

/// Fields of one element of `clock_changes`: by how many seconds the PI's clock was set in a measurement.
pub static CLOCK_CHANGE: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("measurement", DataType::Int32, true),
        Field::new("seconds", DataType::Int64, true),
    ])
});

fn list_of(fields: &Fields) -> DataType {
    list_of_type(DataType::Struct(fields.clone()))
}

fn list_of_type(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", element, true)))
}

/// The columns of the journal, as stored.
///
/// Beside those of the contract: `detail` (what exactly was wrong, and where), `subscription_id`,
/// `smart_account` and `virtual_account` (what the report and its collector name), `ha_udi`,
/// `usage_start` and `usage_end` (the span of the report's usage, so that files can be skipped),
/// `context` (elements beside the report in its document, kept as evidence), and `acts` (when, by whom,
/// what and why a suspended report was retried or written off, and what it was before);
/// `collector_version`, `collection` and `transport` (as the collector says), `ha_roles` (beside `ha_udi`),
/// `sub_devices` and `clock_changes` (by the number of the measurement): what the rules of the programme
/// ask for.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("disposition", DataType::Utf8, false),
        text("reason"),
        text("detail"),
        text("udi_pid"),
        text("udi_serial"),
        Field::new("report_id", stored_id(), true),
        text("payload_sha256"),
        Field::new("layout", DataType::Int32, true),
        text("entitlement_tag"),
        Field::new("utility", DataType::Boolean, true),
        text("software_version"),
        text("subscription_id"),
        text("signature"),
        text("collector"),
        text("smart_account"),
        text("virtual_account"),
        Field::new("received_at", timestamp(), false),
        Field::new("usage_start", timestamp(), true),
        Field::new("usage_end", timestamp(), true),
        text("source"),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        Field::new("ha_udi", list_of(&UDI), true),
        Field::new("measurements", list_of(&MEASUREMENT), true),
        Field::new("raw", DataType::Binary, true),
        Field::new("context", DataType::Binary, true),
        Field::new("acts", list_of(&ACT), true),
        text("collector_version"),
        text("collection"),
        text("transport"),
        Field::new("ha_roles", list_of_type(DataType::Utf8), true),
        Field::new("sub_devices", list_of(&SUB_DEVICE), true),
        Field::new("clock_changes", list_of(&CLOCK_CHANGE), true),
    ]))
});
