//! `suspense`: the suspended reports as a work list. Why each was suspended, its bytes, how long it waits,
//! what it would bill, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::arrow::array::{Array as _, AsArray as _, RecordBatch};
use ::arrow::compute::cast;
use ::arrow::datatypes::{
    DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use ::ingest::shell::index::Index;
use ::ingest::shell::mediation::journal_layout;
use ::ingest::shell::suspense::{self as work, Act, Place, Which, id_of};
use ::ingest::shell::takeup::{Followed, take_up};
use anyhow::{Context as _, anyhow};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::prelude::{Expr, col, lit};
use futures::StreamExt as _;
use reconcile::core::reference::Reference;
use reconcile::shell::run::Snapshot;
use reconcile::shell::suspense::{Amounts, would_bill};
use schemas::book::AccountId;
use schemas::disposition::Reason;
use schemas::journal;
use schemas::period::{EpochSeconds, rfc3339};
use schemas::quantity::money_text;
use schemas::udi::Udi;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Format, Outcome, SuspenseGroup};
use crate::config::Config;
use crate::output::{self, Rows};

const COLUMNS: [&str; 12] = [
    "id",
    "received_at",
    "reason",
    "udi_pid",
    "udi_serial",
    "report_id",
    "source",
    "offset",
    "detail",
    "collector",
    "account",
    "age_days",
];
const DAY: EpochSeconds = 86_400;

/// Which suspended reports are shown.
pub struct Filter {
    reason: Option<Reason>,
    collector: Option<String>,
    account: Option<AccountId>,
    written_off: bool,
}

impl Filter {
    pub fn new(
        reason: Option<&str>,
        collector: Option<String>,
        account: Option<AccountId>,
        written_off: bool,
    ) -> Result<Filter, Failure> {
        Ok(Filter { reason: parse_reason(reason)?, collector, account, written_off })
    }

    fn takes(&self, one: &Suspended) -> bool {
        self.written_off == one.written_off
            && self.reason.is_none_or(|reason| reason.as_str() == one.reason)
            && self.collector.as_ref().is_none_or(|collector| *collector == one.collector)
            && self.account.as_ref().is_none_or(|account| one.account.as_ref() == Some(account))
    }
}

fn parse_reason(reason: Option<&str>) -> Result<Option<Reason>, Failure> {
    let Some(code) = reason else { return Ok(None) };
    let all: Vec<&str> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    match Reason::parse(code) {
        Some(reason) => Ok(Some(reason)),
        None => Err(Failure::Usage(anyhow!("'{code}' is no reason; there are {}", all.join(", ")))),
    }
}

/// A suspended report.
struct Suspended {
    id: String,
    received_at: EpochSeconds,
    reason: String,
    udi: Udi,
    report_id: String,
    source: String,
    offset: i64,
    detail: String,
    collector: String,
    /// Who held the device when the report's usage began, or whom its collector named.
    account: Option<AccountId>,
    written_off: bool,
    acts: Vec<String>,
    raw: Vec<u8>,
}

impl Suspended {
    fn cells(&self, now: EpochSeconds) -> [String; 12] {
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
fn age(received_at: EpochSeconds, now: EpochSeconds) -> String {
    ((now - received_at) / DAY).max(0).to_string()
}

pub fn list(
    filter: &Filter,
    limit: usize,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let now = config.now();
    let all = read(&snapshot, false, runtime)?;
    let mut rows: Vec<_> = all.iter().filter(|one| filter.takes(one)).collect();
    if rows.len() > limit {
        let what = format!("the first {limit} of {}; --limit shows more", rows.len());
        output::note(config.quiet, &what);
        rows.truncate(limit);
    }
    let rows = rows.into_iter().map(|one| one.cells(now).to_vec()).collect();
    output::rows(
        config.format,
        &Rows {
            columns: &COLUMNS,
            rows,
            numbers: &["report_id", "offset", "age_days"],
            hidden: &["udi_pid", "received_at", "collector", "account"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}

/// How many wait, since when, and what the bills would change by.
pub fn count(
    by: SuspenseGroup,
    filter: &Filter,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let now = config.now();
    let mut groups: BTreeMap<String, (u64, EpochSeconds)> = BTreeMap::new();
    for one in read(&snapshot, false, runtime)?.iter().filter(|one| filter.takes(one)) {
        let name = match by {
            SuspenseGroup::Reason => one.reason.clone(),
            SuspenseGroup::Collector => one.collector.clone(),
            SuspenseGroup::Account => {
                one.account.as_ref().map(ToString::to_string).unwrap_or_default()
            }
        };
        let group = groups.entry(name).or_insert((0, EpochSeconds::MAX));
        *group = (group.0 + 1, group.1.min(one.received_at));
    }
    let amounts = |which: Expr| -> anyhow::Result<Amounts> {
        let which = which.and(not_written_off());
        let mut amounts = runtime
            .block_on(would_bill(&snapshot, &which, now))
            .context("cannot compute what they would bill")?;
        amounts.retain(|(account, _), _| filter.account.as_ref().is_none_or(|a| a == account));
        Ok(amounts)
    };
    let filtered = filter_expr(filter);
    let of_all = match by {
        SuspenseGroup::Account => amounts(filtered.clone())?,
        SuspenseGroup::Reason | SuspenseGroup::Collector => Amounts::new(),
    };
    let mut rows = Vec::new();
    for (name, (n, oldest)) in groups {
        let of_group = match by {
            SuspenseGroup::Account => of_all
                .iter()
                .filter(|((account, _), _)| account.to_string() == name)
                .map(|(key, amount)| (key.clone(), *amount))
                .collect(),
            SuspenseGroup::Reason => {
                amounts(filtered.clone().and(col("reason").eq(lit(name.as_str()))))?
            }
            SuspenseGroup::Collector if name.is_empty() => {
                amounts(filtered.clone().and(col("collector").is_null()))?
            }
            SuspenseGroup::Collector => {
                amounts(filtered.clone().and(col("collector").eq(lit(name.as_str()))))?
            }
        };
        rows.push(vec![name, n.to_string(), rfc3339(oldest), age(oldest, now), money(&of_group)]);
    }
    let name = match by {
        SuspenseGroup::Reason => "reason",
        SuspenseGroup::Collector => "collector",
        SuspenseGroup::Account => "account",
    };
    let columns = [name, "reports", "oldest", "oldest_age_days", "would_bill"];
    output::rows(
        config.format,
        &Rows {
            columns: &columns,
            rows,
            numbers: &["reports", "oldest_age_days"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}

fn filter_expr(filter: &Filter) -> Expr {
    let mut all = lit(true);
    if let Some(reason) = filter.reason {
        all = all.and(col("reason").eq(lit(reason.as_str())));
    }
    if let Some(collector) = &filter.collector {
        all = all.and(col("collector").eq(lit(collector.as_str())));
    }
    all
}

/// The last act beside it was not to write it off.
pub fn not_written_off() -> Expr {
    let last = array_element(col("acts"), lit(-1_i64));
    col("acts").is_null().or(get_field(last, "act").not_eq(lit(work::WRITE_OFF)))
}

/// `EUR 12.00, USD 3.00`, over all accounts.
fn money(amounts: &Amounts) -> String {
    let mut totals: BTreeMap<&str, i128> = BTreeMap::new();
    for ((_, currency), amount) in amounts {
        *totals.entry(currency).or_default() += amount;
    }
    let texts: Vec<String> = totals
        .into_iter()
        .map(|(currency, total)| format!("{currency} {}", money_text(total, currency)))
        .collect();
    texts.join(", ")
}

pub fn show(id: &str, raw: bool, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let now = config.now();
    let mut found = read(&snapshot, true, runtime)?;
    found.retain(|one| one.id == id);
    let Some(first) = found.first() else {
        return Err(Failure::Failed(anyhow!(
            "no suspended report has the id '{id}'; `rumledger suspense list` names them"
        )));
    };
    if raw {
        output::bytes(&first.raw)?;
        return Ok(Outcome::Done);
    }
    if config.format != Format::Table {
        let columns = [&COLUMNS[..], &["written_off", "acts", "what_to_do", "raw_bytes"]].concat();
        let rows = found.iter().map(|one| {
            let advice = Reason::ALL.iter().find(|r| r.as_str() == one.reason);
            let mut cells = one.cells(now).to_vec();
            cells.push(one.written_off.to_string());
            cells.push(one.acts.join("; "));
            cells.push(advice.map_or("", |reason| reason.advice()).to_owned());
            cells.push(one.raw.len().to_string());
            cells
        });
        output::rows(
            config.format,
            &Rows {
                columns: &columns,
                rows: rows.collect(),
                numbers: &["report_id", "offset", "age_days", "raw_bytes"],
                flags: &["written_off"],
                ..Rows::default()
            },
        )?;
        return Ok(Outcome::Done);
    }
    for one in &found {
        for (column, cell) in COLUMNS.iter().zip(&one.cells(now)) {
            output::text(&format!("{column:12} {}", cell.escape_debug()))?;
        }
        for act in &one.acts {
            output::text(&format!("{:12} {}", "act", act.escape_debug()))?;
        }
        if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == one.reason) {
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

/// Judges suspended reports again.
pub fn retry(
    reason: Option<&str>,
    ids: Vec<String>,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let which =
        Which { reasons: parse_reason(reason)?.map(|r| BTreeSet::from([r])), ids: by_id(ids) };
    known(&which, config, runtime)?;
    let lake = super::existing_lake(config)?;
    let mut journal = journal_of(&lake, config, runtime)?;
    let judging = super::judging(&lake, config, runtime)?;
    let cache_dir = lake.cache_dir(Path::new(&config.cache_dir));
    let mut index = runtime.block_on(Index::open(&cache_dir, &journal))?;
    let handle = runtime.handle();
    let act = Act {
        at: config.now(),
        by: config.operator.clone(),
        act: work::RETRY,
        reason: String::new(),
    };
    let followed = Followed { marks: &|_| Ok(Vec::new()), changed: &mut |_| () };
    let found =
        take_up(handle, &mut journal, &mut index, &judging, (&which, &act), followed, &|| true)
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
            ..Rows::default()
        },
    )?;
    Ok(if still == 0 { Outcome::Done } else { Outcome::Found })
}

/// Sets suspended reports aside.
pub fn write_off(
    ids: Vec<String>,
    suspended_for: Option<&str>,
    why: &str,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    if why.trim().is_empty() {
        return Err(Failure::Usage(anyhow!("--reason: say why they are written off")));
    }
    let which = Which {
        reasons: parse_reason(suspended_for)?.map(|r| BTreeSet::from([r])),
        ids: by_id(ids),
    };
    known(&which, config, runtime)?;
    let lake = super::existing_lake(config)?;
    let mut journal = journal_of(&lake, config, runtime)?;
    let act = Act {
        at: config.now(),
        by: config.operator.clone(),
        act: work::WRITE_OFF,
        reason: why.to_owned(),
    };
    let n = work::write_off(runtime.handle(), &mut journal, &which, &act)
        .context("the write-off stopped; what was written off stays so, run it again to go on")?;
    output::rows(
        config.format,
        &Rows {
            columns: &["written_off"],
            rows: vec![vec![n.to_string()]],
            numbers: &["written_off"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}

fn by_id(ids: Vec<String>) -> Option<BTreeSet<String>> {
    (!ids.is_empty()).then(|| ids.into_iter().collect())
}

/// An id that names nothing is a mistake of whoever typed it.
fn known(which: &Which, config: &Config, runtime: &Runtime) -> Result<(), Failure> {
    let Some(ids) = &which.ids else { return Ok(()) };
    let snapshot = super::snapshot(config, runtime)?;
    let all: BTreeSet<String> =
        read(&snapshot, false, runtime)?.into_iter().map(|one| one.id).collect();
    match ids.iter().find(|id| !all.contains(*id)) {
        None => Ok(()),
        Some(id) => Err(Failure::Failed(anyhow!(
            "no suspended report has the id '{id}'; nothing was done. `rumledger suspense list` names them"
        ))),
    }
}

/// The journal, with the columns of this version.
fn journal_of(
    lake: &::lake::Lake,
    config: &Config,
    runtime: &Runtime,
) -> Result<::lake::Table, Failure> {
    if runtime.block_on(lake.table(journal::TABLE))?.is_none() {
        return Err(Failure::Failed(anyhow!("the lake {} has no journal yet", config.lake)));
    }
    Ok(runtime.block_on(lake.ensure(journal::TABLE, &journal_layout()))?)
}

/// Suspended reports, in the order in which they came.
fn read(snapshot: &Snapshot, with_raw: bool, runtime: &Runtime) -> anyhow::Result<Vec<Suspended>> {
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

fn take(
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
fn acts_of(list: &::arrow::array::ArrayRef) -> anyhow::Result<Vec<(String, String)>> {
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
