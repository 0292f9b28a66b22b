//! Suspended reports, judged again: after a trust code came (R7.4), or because somebody asks.
//!
//! A report that gets another disposition changes its row: the file that holds it is exchanged in one
//! commit for its other rows and the changed ones, so that `received = accepted + duplicate +
//! suspended` holds in every version. The bytes, the place and the time of receipt stay; the version
//! before stays in the table's log.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray as _, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext, col, lit};
use futures::StreamExt as _;
use lake::{Appended, LakeError, Table};
use schemas::disposition::Disposition;
use schemas::journal::{self, SCHEMA};
use tokio::runtime::Handle;

use super::again::arrivals_of;
use super::index::Index;
use super::mediation::{Gathered, Judging, MediationError};
use super::suspense::{Act, Which, bears, replace_acts, with_act};

/// What judging again came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenUp {
    /// Reports that were judged again.
    pub judged: u64,
    pub accepted: u64,
    pub duplicate: u64,
    /// Suspended still, for another reason.
    pub other_reason: u64,
}

impl TakenUp {
    /// Reports whose disposition or reason changed.
    #[must_use]
    pub fn changed(&self) -> u64 {
        self.accepted + self.duplicate + self.other_reason
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TakeUpError {
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Mediation(#[from] MediationError),
    #[error(transparent)]
    Index(#[from] super::index::IndexError),
    #[error("cannot read suspended reports")]
    Read(#[source] Box<datafusion::error::DataFusionError>),
    #[error("suspended reports do not fit the journal's columns")]
    Columns(#[from] ArrowError),
}

type Result<T, E = TakeUpError> = std::result::Result<T, E>;

/// Counters of the journal's log by name, and what they are moved to.
pub type Marks = Vec<(String, i64)>;

/// Who follows exchanges of rows.
pub struct Followed<'a> {
    /// Gives the counters that an exchange moves with it, on the version that it stands on.
    pub marks: &'a dyn Fn(&Table) -> Result<Marks, LakeError>,
    /// Told of rows that have another disposition or reason, when that is durable.
    pub changed: &'a mut dyn FnMut(&RecordBatch),
}

/// Files that are looked at in one reading.
const FILES_TOGETHER: usize = 64;

/// Judges suspended reports again. Those whose disposition or reason changes carry the act from then on;
/// where they are named one by one, all do.
///
/// No commit of this process may be under way on the journal. `go_on` is asked between files.
///
/// # Errors
/// If the store or the index fails; what was exchanged stays.
pub fn take_up(
    runtime: &Handle,
    journal: &mut Table,
    index: &mut Index,
    judging: &Judging,
    (which, act): (&Which, &Act),
    followed: Followed<'_>,
    go_on: &dyn Fn() -> bool,
) -> Result<TakenUp> {
    let mut total = TakenUp::default();
    let suspended = format!("{}={}/", journal::PARTITION_COLUMN, Disposition::Suspended.as_str());
    let mut done: BTreeSet<String> = BTreeSet::new();
    // After every commit, of ours or another's, the files are those of a newer version.
    'version: loop {
        // Of two with one id, the one that came first is judged first.
        let mut files = runtime.block_on(journal.files_by("received_at"))?;
        files.retain(|file| file.starts_with(&suspended) && !done.contains(file));
        for together in files.chunks(FILES_TOGETHER) {
            if !go_on() {
                return Ok(total);
            }
            // Most of them keep every reason that they have, and one reading tells.
            let unchanged = judge_together(journal, together, index, judging, (which, act));
            if let Some(judged) = runtime.block_on(unchanged)? {
                total.judged += judged;
                done.extend(together.iter().cloned());
                continue;
            }
            for file in together {
                if !go_on() {
                    return Ok(total);
                }
                let rows = runtime.block_on(read_file(journal, file))?;
                let Some(exchange) = judge_rows(&rows, index, judging, (which, act), &mut total)?
                else {
                    done.insert(file.clone());
                    continue;
                };
                let marks = (followed.marks)(journal)?;
                let file = std::slice::from_ref(file);
                let exchanged =
                    runtime.block_on(journal.exchange(file, &[exchange.rows], &marks))?;
                if matches!(exchanged, Appended::Committed(_)) {
                    index.record(exchange.fresh.into_iter(), journal)?;
                    // Rows that wait for a commit were judged without these reports.
                    index.learned();
                    // What stays suspended comes round again, and is counted then, if it is still meant.
                    total.judged += exchange.settled;
                    total.accepted += exchange.found.accepted;
                    total.duplicate += exchange.found.duplicate;
                    total.other_reason += exchange.found.other_reason;
                    (followed.changed)(&exchange.changed);
                } else {
                    runtime.block_on(journal.refresh())?;
                    runtime.block_on(index.catch_up(journal))?;
                }
                continue 'version;
            }
        }
        return Ok(total);
    }
}

/// How many reports of some files were judged again, if none of them comes to anything else than
/// before; `None` at the first that does.
async fn judge_together(
    journal: &Table,
    files: &[String],
    index: &Index,
    judging: &Judging,
    (which, act): (&Which, &Act),
) -> Result<Option<u64>> {
    let mut rows = rows_of(journal, files).await?;
    if let Some(reasons) = &which.reasons {
        let words = reasons.iter().map(|reason| lit(reason.as_str())).collect();
        rows = rows.filter(col("reason").in_list(words, false)).map_err(unread)?;
    }
    let mut rows = rows.execute_stream().await.map_err(unread)?;
    let mut judged = TakenUp::default();
    while let Some(batch) = rows.next().await {
        let batch = in_types_of(&SCHEMA, &batch.map_err(unread)?)?;
        if judge_rows(&batch, index, judging, (which, act), &mut judged)?.is_some() {
            return Ok(None);
        }
    }
    Ok(Some(judged.judged))
}

struct Exchange {
    rows: RecordBatch,
    /// Those of them that have another disposition or reason now.
    changed: RecordBatch,
    fresh: super::mediation::Fresh,
    found: TakenUp,
    /// Rows that do not come round again.
    settled: u64,
}

/// What takes the place of rows, or `None` if nothing changes.
fn judge_rows(
    rows: &RecordBatch,
    index: &Index,
    judging: &Judging,
    (which, act): (&Which, &Act),
    total: &mut TakenUp,
) -> Result<Option<Exchange>> {
    let wanted = which.mask(rows)?;
    let (wanted_at, others_at): (Vec<u32>, Vec<u32>) =
        (0..).take(rows.num_rows()).partition(|&i| wanted.value(i as usize));
    let judged_at = UInt32Array::from(in_order_of_arrival(rows, wanted_at)?);
    let others_at = UInt32Array::from(others_at);
    let before = take_record_batch(rows, &judged_at)?;
    let mut gathered = Gathered::in_order();
    gathered.take(&arrivals_of(&before, judging)?, judging, index, None)?;
    let after = gathered.finish()?;
    let judged = &after.rows[0];
    let mut found = TakenUp::default();
    let dispositions = column(judged, "disposition")?.as_string::<i32>();
    let (old, new) = (column(&before, "reason")?, column(judged, "reason")?);
    let (old, new) = (old.as_string::<i32>(), new.as_string::<i32>());
    let mut differs = Vec::with_capacity(judged.num_rows());
    for (i, disposition) in dispositions.iter().enumerate() {
        let count = match disposition {
            Some("accepted") => Some(&mut found.accepted),
            Some("duplicate") => Some(&mut found.duplicate),
            _ if old.value(i) != new.value(i) => Some(&mut found.other_reason),
            _ => None,
        };
        differs.push(count.is_some());
        if let Some(count) = count {
            *count += 1;
        }
    }
    let acted: Vec<bool> = match &which.ids {
        // Those that were looked at come round again, in the file that took the place of theirs.
        Some(_) => bears(&before, act)?.into_iter().map(|bears| !bears).collect(),
        None => differs.clone(),
    };
    if !acted.contains(&true) {
        total.judged += before.num_rows() as u64;
        return Ok(None);
    }
    let acts = with_act(&before, &acted, act)?;
    let after_rows = replace_acts(judged, acts)?;
    // Each row stays where it was: their order is that in which the reports came.
    let mut taken_from = vec![0; rows.num_rows()];
    for (from, &at) in (0..).zip(judged_at.values().iter().chain(others_at.values())) {
        taken_from[at as usize] = from;
    }
    let others = take_record_batch(rows, &others_at)?;
    let rows = concat_batches(&SCHEMA, [&after_rows, &others])?;
    let rows = take_record_batch(&rows, &UInt32Array::from(taken_from))?;
    let changed = filter_record_batch(&after_rows, &BooleanArray::from(differs))?;
    let meant = which.mask(&after_rows)?;
    let suspended = Disposition::Suspended.as_str();
    let comes_again = |i: usize| dispositions.value(i) == suspended && meant.value(i);
    let again = (0..before.num_rows()).filter(|&i| comes_again(i)).count();
    let settled = (before.num_rows() - again) as u64;
    Ok(Some(Exchange { rows, changed, fresh: after.fresh, found, settled }))
}

/// Places of rows in the order in which they were received. A file has those of one commit in that order; one that several were
/// merged to may have them in another, but for those of one second.
fn in_order_of_arrival(rows: &RecordBatch, mut at: Vec<u32>) -> Result<Vec<u32>, ArrowError> {
    let received = column(rows, "received_at")?.as_primitive::<TimestampMicrosecondType>();
    at.sort_by_key(|&i| received.value(i as usize));
    Ok(at)
}

pub(super) fn column<'a>(
    rows: &'a RecordBatch,
    name: &str,
) -> Result<&'a arrow::array::ArrayRef, ArrowError> {
    rows.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("no column {name}")))
}

/// All rows of one file, in the journal's own types.
pub(super) async fn read_file(journal: &Table, file: &String) -> Result<RecordBatch> {
    let rows = rows_of(journal, std::slice::from_ref(file)).await?;
    let batches = rows.collect().await.map_err(unread)?;
    let batches =
        batches.iter().map(|batch| in_types_of(&SCHEMA, batch)).collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&SCHEMA, &batches)?)
}

/// The rows of some files, all columns in their order.
async fn rows_of(journal: &Table, files: &[String]) -> Result<DataFrame> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let provider = journal.provider_of_files(&session, files.to_vec()).await?;
    let names: Vec<&str> = SCHEMA.fields().iter().map(|f| f.name().as_str()).collect();
    session.read_table(provider).and_then(|rows| rows.select_columns(&names)).map_err(unread)
}

pub(super) fn unread(error: datafusion::error::DataFusionError) -> TakeUpError {
    TakeUpError::Read(Box::new(error))
}

/// A reader may give texts and bytes in another layout (views, dictionaries).
pub(super) fn in_types_of(
    schema: &SchemaRef,
    batch: &RecordBatch,
) -> Result<RecordBatch, ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, ArrowError>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}
