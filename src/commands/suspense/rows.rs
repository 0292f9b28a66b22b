//! Suspended reports as they are shown.

use ::arrow::array::{Array as _, AsArray as _, RecordBatch};
use ::arrow::compute::cast;
use ::arrow::datatypes::{
    DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use ::ingest::shell::suspense::{self as work, Place, id_of};
use anyhow::Context as _;
use futures::StreamExt as _;
use reconcile::core::reference::Reference;
use reconcile::shell::run::Snapshot;
use schemas::book::AccountId;
use schemas::period::{EpochSeconds, rfc3339};
use schemas::udi::Udi;
use tokio::runtime::Runtime;

pub(super) const DAY: EpochSeconds = 86_400;

/// A suspended report.
pub(super) struct Suspended {
    pub(super) id: String,
    pub(super) received_at: EpochSeconds,
    pub(super) reason: String,
    pub(super) udi: Udi,
    pub(super) report_id: String,
    pub(super) source: String,
    pub(super) offset: i64,
    pub(super) detail: String,
    pub(super) collector: String,
    /// Who held the device when the report's usage began, or whom its collector named.
    pub(super) account: Option<AccountId>,
    pub(super) written_off: bool,
    pub(super) acts: Vec<String>,
    pub(super) raw: Vec<u8>,
}

impl Suspended {
    pub(super) fn cells(&self, now: EpochSeconds) -> [String; 12] {
        [
            self.id.clone(),
            rfc3339(self.received_at),
            self.reason.clone(),
            self.udi.pid.clone(),
            self.udi.serial.clone(),
            self.report_id.clone(),
            self.source.clone(),
            self.offset.to_string(),
            self.detail.clone(),
            self.collector.clone(),
            self.account.as_ref().map(ToString::to_string).unwrap_or_default(),
            age(self.received_at, now),
        ]
    }
}

/// Whole days since.
pub(super) fn age(received_at: EpochSeconds, now: EpochSeconds) -> String {
    ((now - received_at) / DAY).max(0).to_string()
}

/// Suspended reports, in the order in which they came.
pub(super) fn read(
    snapshot: &Snapshot,
    with_raw: bool,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Suspended>> {
    // Of a record of Kafka, which may hold several reports, it is part of the id.
    let raw = if with_raw { "raw" } else { "CASE WHEN partition IS NOT NULL THEN raw END" };
    let query = format!(
        "SELECT received_at, reason, udi_pid, udi_serial, report_id, source, \"offset\", detail, {raw}, \
         partition, collector, smart_account, virtual_account, usage_start, acts \
         FROM stored_journal WHERE disposition = 'suspended'"
    );
    let reference = Reference::new(&snapshot.book.book);
    let mut rows = Vec::new();
    let taken = runtime.block_on(async {
        let session = snapshot.sql_session().await?;
        let mut batches = session.sql(&query).await?.execute_stream().await?;
        while let Some(batch) = batches.next().await {
            take(&batch?, &reference, with_raw, &mut rows)?;
        }
        anyhow::Ok(())
    });
    taken.context("cannot read the journal")?;
    rows.sort_by(|a: &Suspended, b| {
        (a.received_at, &a.source, a.offset).cmp(&(b.received_at, &b.source, b.offset))
    });
    Ok(rows)
}

pub(super) fn take(
    batch: &RecordBatch,
    reference: &Reference<'_>,
    with_raw: bool,
    rows: &mut Vec<Suspended>,
) -> anyhow::Result<()> {
    let text =
        |i: usize| anyhow::Ok(cast(batch.column(i), &DataType::Utf8)?.as_string::<i32>().clone());
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let (reason, pid, serial) = (text(1)?, text(2)?, text(3)?);
    let ids = batch.column(4).as_primitive::<Decimal128Type>();
    let (source, detail) = (text(5)?, text(7)?);
    let offsets = batch.column(6).as_primitive::<Int64Type>();
    let raws = cast(batch.column(8), &DataType::Binary)?;
    let raws = raws.as_binary::<i32>();
    let partitions = batch.column(9).as_primitive::<Int32Type>();
    let (collector, smart, virtual_) = (text(10)?, text(11)?, text(12)?);
    let starts = batch.column(13).as_primitive::<TimestampMicrosecondType>();
    let acts = batch.column(14).as_list::<i32>();
    for i in 0..batch.num_rows() {
        let partition = partitions.is_valid(i).then(|| partitions.value(i));
        let udi = Udi::new(pid.value(i), serial.value(i));
        let since = starts.is_valid(i).then(|| starts.value(i).div_euclid(1_000_000));
        let holder = since.and_then(|at| {
            let mut spans = reference.holders(&udi).iter();
            spans.find(|(span, _)| span.contains(at)).map(|(_, account)| *account)
        });
        let account = holder.or_else(|| reference.account(smart.value(i), virtual_.value(i)));
        let raw = if raws.is_valid(i) { raws.value(i) } else { &[] };
        let acts = if acts.is_valid(i) { acts_of(&acts.value(i))? } else { Vec::new() };
        rows.push(Suspended {
            id: id_of(Place {
                received_at: times.value(i),
                source: source.value(i),
                offset: offsets.value(i),
                partition,
                raw,
            }),
            received_at: times.value(i).div_euclid(1_000_000),
            reason: reason.value(i).to_owned(),
            report_id: if ids.is_valid(i) { ids.value(i).to_string() } else { String::new() },
            source: source.value(i).to_owned(),
            offset: offsets.value(i),
            detail: detail.value(i).to_owned(),
            collector: collector.value(i).to_owned(),
            account: account.map(|account| reference.accounts[account].id.clone()),
            written_off: acts.last().is_some_and(|(word, _)| word == work::WRITE_OFF),
            acts: acts.into_iter().map(|(_, text)| text).collect(),
            raw: if with_raw { raw.to_vec() } else { Vec::new() },
            udi,
        });
    }
    Ok(())
}

/// Each act of a row: its word, and a text for a person.
pub(super) fn acts_of(list: &::arrow::array::ArrayRef) -> anyhow::Result<Vec<(String, String)>> {
    let of_row = list.as_struct();
    let at = of_row.column(0).as_primitive::<TimestampMicrosecondType>();
    let text =
        |i: usize| anyhow::Ok(cast(of_row.column(i), &DataType::Utf8)?.as_string::<i32>().clone());
    let (by, act, reason, before) = (text(1)?, text(2)?, text(3)?, text(4)?);
    Ok((0..of_row.len())
        .map(|i| {
            let when = rfc3339(at.value(i).div_euclid(1_000_000));
            let why =
                if reason.is_valid(i) { format!(": {}", reason.value(i)) } else { String::new() };
            let line = format!(
                "{when} {} by {}{why} (was suspended for {})",
                act.value(i),
                by.value(i),
                before.value(i)
            );
            (act.value(i).to_owned(), line)
        })
        .collect())
}
