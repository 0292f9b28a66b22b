//! Documents without a report, kept in the lake as evidence: ACKs, policies. A document that came before,
//! by whatever way, is kept once.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray as _, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::prelude::SessionContext;
use lake::{Appended, Lake, LakeError, Layout, Table};
use schemas::document::{SCHEMA, TABLE};
use schemas::merkle;
use schemas::period::EpochSeconds;

use crate::core::requests::elements;

/// A document, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub received_at: EpochSeconds,
    pub source: String,
    pub collector: String,
    pub bytes: Vec<u8>,
}

/// Appends the documents that the lake does not have; gives how many.
///
/// # Errors
/// If the store fails.
pub async fn keep(lake: &Lake, documents: &[Document]) -> Result<usize, LakeError> {
    if documents.is_empty() {
        return Ok(0);
    }
    let layout =
        Layout { schema: SCHEMA.clone(), partition_columns: &[], statistics: &["received_at"] };
    let mut table = lake.ensure(TABLE, &layout).await?;
    loop {
        let mut known = digests(&table).await?;
        let new: Vec<(&Document, String)> = documents
            .iter()
            .map(|document| (document, merkle::digest(&document.bytes).to_string()))
            .filter(|(_, digest)| known.insert(digest.clone()))
            .collect();
        if new.is_empty() {
            return Ok(0);
        }
        let rows = rows_of(&new).map_err(misfit)?;
        match table.append_once(&[rows]).await? {
            Appended::Committed(_) => return Ok(new.len()),
            Appended::Stale | Appended::Overtaken => table.refresh().await?,
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn misfit(error: arrow::error::ArrowError) -> LakeError {
    LakeError::Layout { table: TABLE.to_owned(), why: error.to_string() }
}

async fn digests(table: &Table) -> Result<HashSet<String>, LakeError> {
    let read = |source| LakeError::Query { table: TABLE.to_owned(), source: Box::new(source) };
    let session = SessionContext::new();
    let rows = session.read_table(table.provider(&session).await?).map_err(read)?;
    let rows = rows.select_columns(&["sha256"]).map_err(read)?;
    let mut all = HashSet::new();
    for batch in rows.collect().await.map_err(read)? {
        let texts = cast(batch.column(0), &DataType::Utf8).map_err(misfit)?;
        all.extend(texts.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(all)
}

fn rows_of(documents: &[(&Document, String)]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let of = || documents.iter().map(|(document, _)| *document);
    let times = of().map(|d| Some(d.received_at.saturating_mul(1_000_000)));
    let times: TimestampMicrosecondArray = times.collect();
    let first = |d: &Document| elements(&d.bytes).into_iter().next();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(times.with_timezone("UTC")),
        Arc::new(of().map(|d| Some(d.source.as_str())).collect::<StringArray>()),
        Arc::new(of().map(|d| Some(d.collector.as_str())).collect::<StringArray>()),
        Arc::new(of().map(first).collect::<StringArray>()),
        Arc::new(documents.iter().map(|(_, digest)| Some(digest)).collect::<StringArray>()),
        Arc::new(of().map(|d| Some(d.bytes.as_slice())).collect::<BinaryArray>()),
    ];
    RecordBatch::try_new(SCHEMA.clone(), columns)
}
