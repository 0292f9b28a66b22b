//! `docs/tables.md`, made from the tables themselves.

use std::fmt::Write as _;

use ::arrow::datatypes::DataType;
use anyhow::bail;
use serve::{Catalog, RowsOf};

use super::describe_text as text;

/// All tables and their columns, as Markdown.
pub fn describe(catalog: &Catalog) -> anyhow::Result<String> {
    let mut page = text::INTRODUCTION.to_owned();
    for (name, offer) in &catalog.tables {
        let Some((_, about)) = text::TABLES.iter().find(|(table, _)| table == name) else {
            bail!("the table {name} is not described");
        };
        let rows_of = match offer.rows_of {
            RowsOf::Everyone => "all rows",
            RowsOf::Account => "the rows of its accounts",
            RowsOf::Device { .. } => "the rows of its accounts' devices, while they were theirs",
            RowsOf::Operators => "not there",
        };
        writeln!(page, "\n## `{name}`\n{about} For a login with accounts: {rows_of}.\n")?;
        writeln!(page, "| column | type | what it holds |\n| --- | --- | --- |")?;
        for field in offer.table.schema().fields() {
            let column = field.name().as_str();
            let of_table = text::COLUMNS.iter().find(|(c, _)| *c == format!("{name}.{column}"));
            let Some((_, about)) =
                of_table.or_else(|| text::COLUMNS.iter().find(|(c, _)| *c == column))
            else {
                bail!("the column {column} of {name} is not described");
            };
            writeln!(page, "| `{column}` | {} | {about} |", sql_type(field.data_type()))?;
        }
    }
    Ok(page)
}

/// The PostgreSQL type that a client sees.
fn sql_type(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int32 => "int4".to_owned(),
        DataType::Int64 | DataType::UInt32 => "int8".to_owned(),
        DataType::UInt64 => "numeric(20)".to_owned(),
        DataType::Decimal128(digits, 0) => format!("numeric({digits})"),
        DataType::Decimal128(digits, scale) => format!("numeric({digits},{scale})"),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => match item.data_type() {
            DataType::Struct(fields) => {
                let inner: Vec<String> = fields
                    .iter()
                    .map(|f| format!("`{}` {}", f.name(), sql_type(f.data_type())))
                    .collect();
                format!("list of ({})", inner.join(", "))
            }
            other => format!("{}[]", sql_type(other)),
        },
        DataType::Dictionary(_, value) => sql_type(value),
        other => other.to_string(),
    }
}
