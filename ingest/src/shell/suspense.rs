//! Suspended reports as a work list: which ones, and what was done to them.
//!
//! Nothing is deleted: an act is an entry beside the row (`acts`), in the commit that carries it out.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{Field, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use aws_lc_rs::digest::{SHA256, digest};
use lake::{Appended, Table};
use schemas::disposition::{Disposition, Reason};
use schemas::hex::hex;
use schemas::journal::{self, ACT, SCHEMA};
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;

use super::takeup::{TakeUpError, column, read_file};

type Result<T, E = TakeUpError> = std::result::Result<T, E>;

/// Words of `acts[].act`.
pub const RETRY: &str = "retry";
pub const WRITE_OFF: &str = "write-off";

/// What somebody does to suspended reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub at: EpochSeconds,
    pub by: String,
    pub act: &'static str,
    /// Why, or blank.
    pub reason: String,
}

/// Which suspended reports are meant; of `None`, all. Those that were written off are meant only by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    pub reasons: Option<BTreeSet<Reason>>,
    pub ids: Option<BTreeSet<String>>,
}

/// Where a suspended report was received, and of a record of Kafka, which may hold several, what it is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// In microseconds.
    pub received_at: i64,
    pub source: &'a str,
    pub offset: i64,
    pub partition: Option<i32>,
    /// Its bytes; of a report from a file they may be left out.
    pub raw: &'a [u8],
}

/// The id by which people speak of a suspended report: it follows from where it was received, so it stays.
#[must_use]
pub fn id_of(report: Place<'_>) -> String {
    let Place { received_at, source, offset, partition, raw } = report;
    let mut place = format!("{received_at}\n{source}\n{offset}");
    if let Some(partition) = partition {
        place.push_str(&format!("\n{partition}\n{}", hex(digest(&SHA256, raw).as_ref())));
    }
    hex(&digest(&SHA256, place.as_bytes()).as_ref()[..6])
}

/// The ids of rows of the journal.
///
/// # Errors
/// If a column is missing or of another type.
pub fn ids_of(rows: &RecordBatch) -> Result<Vec<String>, ArrowError> {
    let received = column(rows, "received_at")?.as_primitive::<TimestampMicrosecondType>();
    let sources = column(rows, "source")?.as_string::<i32>();
    let offsets = column(rows, "offset")?.as_primitive::<Int64Type>();
    let partitions = column(rows, "partition")?.as_primitive::<Int32Type>();
    let raws = column(rows, "raw")?.as_binary::<i32>();
    Ok((0..rows.num_rows())
        .map(|i| {
            id_of(Place {
                received_at: received.value(i),
                source: sources.value(i),
                offset: offsets.value(i),
                partition: partitions.is_valid(i).then(|| partitions.value(i)),
                raw: if raws.is_valid(i) { raws.value(i) } else { &[] },
            })
        })
        .collect())
}

impl Which {
    /// Those of some reasons.
    #[must_use]
    pub fn of_reasons(reasons: BTreeSet<Reason>) -> Which {
        Which { reasons: Some(reasons), ids: None }
    }

    /// Which rows are meant.
    ///
    /// # Errors
    /// If a column is missing.
    pub fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let codes = column(rows, "reason")?.as_string::<i32>();
        let ids = self.ids.as_ref().map(|_| ids_of(rows)).transpose()?;
        let written_off = written_off(rows)?;
        Ok((0..rows.num_rows())
            .map(|i| {
                let reason = Reason::parse(codes.value(i));
                let of_reason = self
                    .reasons
                    .as_ref()
                    .is_none_or(|all| reason.is_some_and(|reason| all.contains(&reason)));
                let of_id = match (&self.ids, &ids) {
                    (Some(wanted), Some(ids)) => wanted.contains(&ids[i]),
                    _ => !written_off[i],
                };
                Some(of_reason && of_id)
            })
            .collect())
    }
}

/// Of each row whether the last act was to write it off.
///
/// # Errors
/// If the column is missing.
pub fn written_off(rows: &RecordBatch) -> Result<Vec<bool>, ArrowError> {
    let acts = column(rows, "acts")?.as_list::<i32>();
    Ok((0..rows.num_rows())
        .map(|i| {
            let of_row = acts.value(i);
            let words = of_row.as_struct().column(2).as_string::<i32>();
            acts.is_valid(i) && !words.is_empty() && words.value(words.len() - 1) == WRITE_OFF
        })
        .collect())
}

/// Of each row whether this very act was the last.
pub(super) fn bears(rows: &RecordBatch, act: &Act) -> Result<Vec<bool>, ArrowError> {
    let acts = column(rows, "acts")?.as_list::<i32>();
    Ok((0..rows.num_rows())
        .map(|i| {
            let of_row = acts.value(i);
            let of_row = of_row.as_struct();
            let Some(last) = of_row.len().checked_sub(1).filter(|_| acts.is_valid(i)) else {
                return false;
            };
            let at = of_row.column(0).as_primitive::<TimestampMicrosecondType>().value(last);
            let text = |column: usize| of_row.column(column).as_string::<i32>().value(last);
            at == act.at.saturating_mul(1_000_000) && text(1) == act.by && text(2) == act.act
        })
        .collect())
}

/// The acts of rows, with one more where `add` says so.
pub(super) fn with_act(
    rows: &RecordBatch,
    add: &[bool],
    act: &Act,
) -> Result<ArrayRef, ArrowError> {
    let held = column(rows, "acts")?.as_list::<i32>();
    let reasons = column(rows, "reason")?.as_string::<i32>();
    let (mut times, mut offsets, mut valid) = (Vec::new(), vec![0i32], Vec::new());
    let mut texts: [Vec<Option<String>>; 4] = Default::default();
    for (i, add) in add.iter().enumerate() {
        if held.is_valid(i) {
            let of_row = held.value(i);
            let of_row = of_row.as_struct();
            let at = of_row.column(0).as_primitive::<TimestampMicrosecondType>();
            times.extend(at.iter());
            for (texts, column) in texts.iter_mut().zip(&of_row.columns()[1..]) {
                texts.extend(column.as_string::<i32>().iter().map(|t| t.map(str::to_owned)));
            }
        }
        if *add {
            times.push(Some(act.at.saturating_mul(1_000_000)));
            let before = reasons.is_valid(i).then(|| reasons.value(i).to_owned());
            let reason = (!act.reason.is_empty()).then(|| act.reason.clone());
            let values = [Some(act.by.clone()), Some(act.act.to_owned()), reason, before];
            for (texts, value) in texts.iter_mut().zip(values) {
                texts.push(value);
            }
        }
        let end =
            i32::try_from(times.len()).map_err(|_| ArrowError::OffsetOverflowError(times.len()))?;
        valid.push(offsets.last() != Some(&end));
        offsets.push(end);
    }
    let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
    columns.extend(texts.map(|texts| Arc::new(StringArray::from(texts)) as ArrayRef));
    let values = StructArray::try_new(ACT.clone(), columns, None)?;
    let element =
        Arc::new(Field::new("element", arrow::datatypes::DataType::Struct(ACT.clone()), true));
    let nulls = Some(NullBuffer::from(valid));
    Ok(Arc::new(ListArray::try_new(
        element,
        OffsetBuffer::new(offsets.into()),
        Arc::new(values),
        nulls,
    )?))
}

/// Rows with other acts.
pub(super) fn replace_acts(rows: &RecordBatch, acts: ArrayRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = rows.columns().to_vec();
    columns[SCHEMA.index_of("acts")?] = acts;
    RecordBatch::try_new(SCHEMA.clone(), columns)
}

/// Writes suspended reports off: they stay where they are, suspended, with the act beside them. Gives how
/// many; those that are written off already are left as they are.
///
/// No commit of this process may be under way on the journal.
///
/// # Errors
/// If the store fails; what was written off before stays so.
pub fn write_off(runtime: &Handle, journal: &mut Table, which: &Which, act: &Act) -> Result<u64> {
    let suspended = format!("{}={}/", journal::PARTITION_COLUMN, Disposition::Suspended.as_str());
    let mut total = 0;
    let mut done: BTreeSet<String> = BTreeSet::new();
    // After every commit, of ours or another's, the files are those of a newer version.
    'version: loop {
        let mut files = runtime.block_on(journal.files())?;
        files.retain(|file| file.starts_with(&suspended) && !done.contains(file));
        for file in files {
            let rows = runtime.block_on(read_file(journal, &file))?;
            let (meant, off) = (which.mask(&rows)?, written_off(&rows)?);
            let add: Vec<bool> = meant.values().iter().zip(off).map(|(m, off)| m && !off).collect();
            let n = add.iter().filter(|add| **add).count() as u64;
            if n == 0 {
                done.insert(file);
                continue;
            }
            let rows = replace_acts(&rows, with_act(&rows, &add, act)?)?;
            let exchanged = runtime.block_on(journal.exchange(&[file], &[rows], &[]))?;
            match exchanged {
                Appended::Committed(_) => total += n,
                Appended::Stale | Appended::Overtaken => runtime.block_on(journal.refresh())?,
            }
            continue 'version;
        }
        return Ok(total);
    }
}
