//! `suspense list`, `show` and `retry`: what was suspended, why, its bytes, and what becomes of it when it
//! is judged again.

use std::collections::BTreeSet;
use std::path::Path;

use ::arrow::array::{Array as _, AsArray as _, RecordBatch};
use ::arrow::compute::cast;
use ::arrow::datatypes::{
    DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use ::ingest::shell::index::Index;
use ::ingest::shell::takeup::take_up;
use anyhow::{Context as _, anyhow};
use aws_lc_rs::digest::{SHA256, digest};
use schemas::disposition::Reason;
use schemas::journal;
use schemas::period::rfc3339;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

const COLUMNS: [&str; 9] = [
    "id",
    "received_at",
    "reason",
    "udi_pid",
    "udi_serial",
    "report_id",
    "source",
    "offset",
    "detail",
];

struct Suspended {
    cells: [String; 9],
    raw: Vec<u8>,
}

/// Judges suspended reports again.
pub fn retry(reason: Option<&str>, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let reasons = parse_reason(reason)?.map(|reason| BTreeSet::from([reason]));
    let lake = super::open_lake(config)?;
    let Some(mut journal) = runtime.block_on(lake.table(journal::TABLE))? else {
        return Err(Failure::Failed(anyhow!("the lake {} has no journal yet", config.lake)));
    };
    let judging = super::judging(&lake, config, runtime)?;
    let cache_dir = lake.cache_dir(Path::new(&config.cache_dir));
    let mut index = runtime.block_on(Index::open(&cache_dir, &journal))?;
    let handle = runtime.handle();
    let (reasons, mut quietly) = (reasons.as_ref(), |_: &_| ());
    let found =
        take_up(handle, &mut journal, &mut index, &judging, reasons, &mut quietly, &|| true)
            .context("the retry stopped; what was judged again stays, run it again to go on")?;
    let line = |name: &str, n: u64| vec![name.to_owned(), n.to_string()];
    let still = found.judged - found.accepted - found.duplicate;
    output::rows(
        config.format,
        &Rows {
            columns: &["retried", "reports"],
            rows: vec![
                line("judged again", found.judged),
                line("accepted", found.accepted),
                line("duplicate", found.duplicate),
                line("still suspended", still),
            ],
            numbers: &["reports"],
            hidden: &[],
        },
    )?;
    Ok(if still == 0 { Outcome::Done } else { Outcome::Found })
}

fn parse_reason(reason: Option<&str>) -> Result<Option<Reason>, Failure> {
    let Some(code) = reason else { return Ok(None) };
    let all: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    match Reason::parse(code) {
        Some(reason) => Ok(Some(reason)),
        None => Err(Failure::Usage(anyhow!("'{code}' is no reason; there are {}", all.join(", ")))),
    }
}

pub fn list(
    reason: Option<&str>,
    limit: usize,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let reason = parse_reason(reason)?;
    let only = reason.map(|r| format!("AND reason = '{r}'")).unwrap_or_default();
    let rows = read(&only, &format!("LIMIT {limit}"), false, config, runtime)?;
    let rows = rows.into_iter().map(|s| s.cells.to_vec()).collect();
    output::rows(
        config.format,
        &Rows { columns: &COLUMNS, rows, numbers: &["report_id", "offset"], hidden: &["udi_pid"] },
    )?;
    Ok(Outcome::Done)
}

pub fn show(id: &str, raw: bool, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let rows = read("", "", true, config, runtime)?;
    let found: Vec<Suspended> = rows.into_iter().filter(|s| s.cells[0] == id).collect();
    let Some(first) = found.first() else {
        return Err(Failure::Failed(anyhow!(
            "no suspended report has the id '{id}'; `rumledger suspense list` names them"
        )));
    };
    if raw {
        output::bytes(&first.raw)?;
        return Ok(Outcome::Done);
    }
    for one in &found {
        for (column, cell) in COLUMNS.iter().zip(&one.cells) {
            output::text(&format!("{column:12} {}", cell.escape_debug()))?;
        }
        if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == one.cells[2]) {
            output::text(&format!("{:12} {}", "what to do", reason.advice()))?;
        }
        output::text(&format!(
            "{:12} {} bytes, written as they came by --raw",
            "raw",
            one.raw.len()
        ))?;
        let text = String::from_utf8_lossy(&one.raw[..one.raw.len().min(4096)]);
        let shown: String = text
            .chars()
            .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
            .collect();
        output::text(&shown)?;
    }
    Ok(Outcome::Done)
}

/// Suspended rows, in the order in which they came.
fn read(
    filter: &str,
    tail: &str,
    with_raw: bool,
    config: &Config,
    runtime: &Runtime,
) -> anyhow::Result<Vec<Suspended>> {
    let raw = if with_raw { "raw" } else { "NULL" };
    let query = format!(
        "SELECT received_at, reason, udi_pid, udi_serial, report_id, source, \"offset\", detail, {raw}, partition \
         FROM stored_journal WHERE disposition = 'suspended' {filter} \
         ORDER BY received_at, source, \"offset\" {tail}"
    );
    let snapshot = super::snapshot(config, runtime).map_err(|failure| match failure {
        Failure::Usage(error) | Failure::Failed(error) => error,
    })?;
    let batches = runtime.block_on(async {
        let session = snapshot.sql_session().await?;
        anyhow::Ok(session.sql(&query).await?.collect().await?)
    });
    let mut rows = Vec::new();
    for batch in batches.context("cannot read the journal")? {
        take(&batch, &mut rows)?;
    }
    Ok(rows)
}

fn take(batch: &RecordBatch, rows: &mut Vec<Suspended>) -> anyhow::Result<()> {
    let text =
        |i: usize| anyhow::Ok(cast(batch.column(i), &DataType::Utf8)?.as_string::<i32>().clone());
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let (reason, pid, serial) = (text(1)?, text(2)?, text(3)?);
    let ids = batch.column(4).as_primitive::<Decimal128Type>();
    let (source, detail) = (text(5)?, text(7)?);
    let offsets = batch.column(6).as_primitive::<Int64Type>();
    let partitions = batch.column(9).as_primitive::<Int32Type>();
    let raws = cast(batch.column(8), &DataType::Binary)?;
    let raws = raws.as_binary::<i32>();
    for i in 0..batch.num_rows() {
        let received_at = times.value(i);
        let mut place = format!("{received_at}\n{}\n{}", source.value(i), offsets.value(i));
        if partitions.is_valid(i) {
            place.push_str(&format!("\n{}", partitions.value(i)));
        }
        let id: String = digest(&SHA256, place.as_bytes()).as_ref()[..6]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let report_id = if ids.is_valid(i) { ids.value(i).to_string() } else { String::new() };
        rows.push(Suspended {
            cells: [
                id,
                rfc3339(received_at.div_euclid(1_000_000)),
                reason.value(i).to_owned(),
                pid.value(i).to_owned(),
                serial.value(i).to_owned(),
                report_id,
                source.value(i).to_owned(),
                offsets.value(i).to_string(),
                detail.value(i).to_owned(),
            ],
            raw: if raws.is_valid(i) { raws.value(i).to_vec() } else { Vec::new() },
        });
    }
    Ok(())
}
