//! The statement as Parquet: the columns of the CSV, with decimals and times as such.

use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::file::properties::WriterProperties;
use arrow::array::{
    ArrayRef, Decimal128Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use schemas::ledger::{Line, STATEMENT_COLUMNS};

/// The file's bytes.
pub fn write(lines: &[Line]) -> anyhow::Result<Vec<u8>> {
    let rows = rows(lines)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        // Nothing of the moment or the machine: the same lines give the same bytes.
        .set_created_by("rumledger".to_owned())
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    writer.close()?;
    Ok(bytes)
}

fn rows(lines: &[Line]) -> anyhow::Result<RecordBatch> {
    let cells: Vec<_> = lines.iter().map(Line::cells).collect();
    let decimal = |of: fn(&Line) -> Option<i128>, scale: i8| -> ArrayRef {
        let values = lines.iter().map(of).collect::<Decimal128Array>();
        Arc::new(values.with_data_type(DataType::Decimal128(38, scale)))
    };
    let columns = STATEMENT_COLUMNS.iter().enumerate().map(|(i, name)| {
        let column: ArrayRef = match *name {
            "segment_start" => {
                let micros = lines.iter().map(|l| l.key.segment_start.saturating_mul(1_000_000));
                let times = TimestampMicrosecondArray::from_iter_values(micros);
                Arc::new(times.with_timezone("UTC"))
            }
            "consumed" => decimal(|l| Some(l.consumed), 6),
            "purchased" => decimal(|l| Some(l.purchased), 6),
            "quantity" => decimal(|l| Some(l.quantity), 6),
            "amount" => decimal(|l| Some(l.amount), 4),
            "verified_share" => decimal(|l| l.verified_share, 6),
            _ => Arc::new(StringArray::from_iter_values(cells.iter().map(|cells| &cells[i]))),
        };
        (*name, column, true)
    });
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}
