//! Trust codes that came over Kafka: one row for each, and one for each message that is none.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::book::TABLES;
use crate::journal::timestamp;

/// Name of the Delta table, and in SQL.
pub const TABLE: &str = "trust_codes";

/// The columns of `trust_codes.csv` (contract 2), in their order.
#[must_use]
pub fn columns() -> &'static [&'static str] {
    TABLES.iter().find(|t| t.name == TABLE).map_or(&[], |t| t.columns)
}

/// The columns as stored: those of the book as text, `fault` (why a message is no trust code), when
/// and where it came, and the message itself.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let mut fields: Vec<Field> = columns().iter().map(|name| text(name)).collect();
    fields.extend([
        text("fault"),
        Field::new("received_at", timestamp(), false),
        text("source"),
        Field::new("partition", DataType::Int32, true),
        Field::new("offset", DataType::Int64, true),
        text("raw"),
    ]);
    Arc::new(Schema::new(fields))
});
