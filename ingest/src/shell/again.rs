//! Rows that were judged before, judged again from their own bytes.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use schemas::disposition::Reason;
use schemas::period::EpochSeconds;

use super::index::Index;
use super::mediation::{Batch, Gathered, Judging, MediationError};
use crate::core::decode::decode;
use crate::core::mediate::Probe;
use crate::core::report::{Arrival, Delivery, Position, RawReport};

type Result<T, E = MediationError> = std::result::Result<T, E>;

/// Reports that are judged again in one go.
const JUDGED_AGAIN_TOGETHER: usize = 4096;

impl Batch {
    /// Judges the rows again, if the index knows reports now that it did not know when they were
    /// judged, and some are among these, or bore on the commit by which these were judged. True if they were.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn judge_again(&mut self, judging: &Judging, index: &Index) -> Result<bool> {
        if self.judged_by == index.foreign() {
            return Ok(false);
        }
        let touched = self.leans || self.is_known_to(index)?;
        if touched {
            let mut gathered = Gathered::default();
            let all = self.places.iter().map(Vec::len).sum();
            for from in (0..all).step_by(JUDGED_AGAIN_TOGETHER) {
                gathered.take(&self.arrivals(from, judging)?, judging, index, None)?;
            }
            *self = gathered.finish()?;
        }
        self.judged_by = index.foreign();
        Ok(touched)
    }

    /// True if the index knows some of those that were accepted.
    fn is_known_to(&self, index: &Index) -> Result<bool> {
        let fresh: Vec<_> = self.fresh.iter().map(|(key, digest)| (*key, *digest)).collect();
        Ok(index.probe(&fresh)?.iter().any(|probe| *probe != Probe::New))
    }

    /// Some reports from a place on, in the order in which they came: of two copies, the first that can be accepted
    /// is, whatever became of them before.
    fn arrivals(&self, from: usize, judging: &Judging) -> Result<Vec<Arrival>> {
        let until = from + JUDGED_AGAIN_TOGETHER;
        let mut arrivals = Vec::with_capacity(JUDGED_AGAIN_TOGETHER);
        for (rows, places) in self.rows.iter().zip(&self.places) {
            let first = places.partition_point(|place| *place < from);
            let behind = places.partition_point(|place| *place < until);
            let of_part = arrivals_of(&rows.slice(first, behind - first), judging)?;
            arrivals.extend(places[first..behind].iter().zip(of_part));
        }
        arrivals.sort_by_key(|(place, _)| **place);
        Ok(arrivals.into_iter().map(|(_, arrival)| arrival).collect())
    }
}

/// Rows of the journal as the reports that they were, to be judged anew.
///
/// # Errors
/// If the rows are not the journal's own.
pub fn arrivals_of(rows: &RecordBatch, judging: &Judging) -> Result<Vec<Arrival>> {
    let wrong = MediationError::NotAJournal;
    let column = |name: &'static str| rows.column_by_name(name).ok_or(wrong(name));
    let text = |name: &'static str| column(name)?.as_string_opt::<i32>().ok_or(wrong(name));
    let bytes = |name: &'static str| column(name)?.as_binary_opt::<i32>().ok_or(wrong(name));
    let (reasons, details) = (text("reason")?, text("detail")?);
    let (sources, collectors) = (text("source")?, text("collector")?);
    let (smart, virtual_) = (text("smart_account")?, text("virtual_account")?);
    let (versions, collections) = (text("collector_version")?, text("collection")?);
    let transports = text("transport")?;
    let (raw, context) = (bytes("raw")?, bytes("context")?);
    let number = |name| column(name)?.as_primitive_opt::<Int64Type>().ok_or(wrong(name));
    let offsets = number("offset")?;
    let partitions =
        column("partition")?.as_primitive_opt::<Int32Type>().ok_or(wrong("partition"))?;
    let received = column("received_at")?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or(wrong("received_at"))?;
    let owned = |array: &arrow::array::StringArray, i: usize| {
        array.is_valid(i).then(|| array.value(i).to_owned())
    };
    let mut deliveries: HashMap<Delivery, Arc<Delivery>> = HashMap::new();
    (0..rows.num_rows())
        .map(|i| {
            let delivery = Delivery {
                collector: owned(collectors, i),
                smart_account: owned(smart, i),
                virtual_account: owned(virtual_, i),
                collector_version: owned(versions, i),
                collection: owned(collections, i),
                transport: owned(transports, i),
            };
            let delivery = match deliveries.get(&delivery) {
                Some(shared) => Arc::clone(shared),
                None => {
                    let shared = Arc::new(delivery.clone());
                    deliveries.insert(delivery, Arc::clone(&shared));
                    shared
                }
            };
            let received_at = seconds(received.value(i));
            let reason = owned(reasons, i).and_then(|r| Reason::parse(&r));
            let refused = reason
                .filter(|reason| refused_by_carrier(*reason, raw.value(i), received_at, judging))
                .map(|reason| (reason, owned(details, i).unwrap_or_default()));
            Ok(Arrival {
                raw: RawReport {
                    position: Position {
                        source: Arc::from(if sources.is_valid(i) { sources.value(i) } else { "" }),
                        offset: u64::try_from(offsets.value(i)).unwrap_or_default(),
                    },
                    text: raw.value(i).to_vec().into(),
                    refused,
                    context: if context.is_valid(i) {
                        context.value(i).to_vec()
                    } else {
                        Vec::new()
                    },
                },
                delivery,
                partition: partitions.is_valid(i).then(|| partitions.value(i)),
                received_at,
            })
        })
        .collect()
}

/// True if it was not decoding that found the reason: the bytes are no report, but what the carrier
/// kept of an input.
fn refused_by_carrier(
    reason: Reason,
    raw: &[u8],
    received_at: EpochSeconds,
    judging: &Judging,
) -> bool {
    let found = || decode(raw, &judging.limits.report, received_at).err().map(|e| e.reason);
    match reason {
        Reason::Malformed => found() != Some(Reason::Malformed),
        // Of a report that is whole, limits that are others by now may find nothing, or something behind it.
        Reason::TooLarge | Reason::TooDeep => {
            matches!(found(), Some(Reason::Malformed | Reason::MissingField))
        }
        _ => false,
    }
}

fn seconds(micros: i64) -> EpochSeconds {
    micros.div_euclid(1_000_000)
}
