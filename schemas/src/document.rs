//! Documents without a report: ACKs, policies, system information. Kept as evidence, one row each.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::journal::timestamp;

/// Name of the Delta table, and in SQL.
pub const TABLE: &str = "documents";

/// `element`: the name of the first element of the document's content; `raw`: the elements, or as much as is
/// kept of them; `sha256`: of those bytes, in hexadecimal.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("received_at", timestamp(), false),
        text("source"),
        text("collector"),
        text("element"),
        text("sha256"),
        Field::new("raw", DataType::Binary, true),
    ]))
});
