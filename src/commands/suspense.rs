//! `suspense`: the suspended reports as a work list. Why each was suspended, its bytes, how long it waits,
//! what it would bill, and what becomes of it.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ::ingest::shell::index::Index;
use ::ingest::shell::mediation::journal_layout;
use ::ingest::shell::suspense::{self as work, Act, Which};
use ::ingest::shell::takeup::{Followed, take_up};
use anyhow::{Context as _, anyhow};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::prelude::{Expr, col, lit};
use reconcile::shell::suspense::{Amounts, would_bill};
use schemas::book::AccountId;
use schemas::disposition::Reason;
use schemas::journal;
use schemas::period::{EpochSeconds, rfc3339};
use schemas::quantity::money_text;
use tokio::runtime::Runtime;

use self::rows::{Suspended, age, read};
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

pub fn list(
    filter: &Filter,
    limit: usize,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    super::known_account(&snapshot, filter.account.as_ref())?;
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
    super::known_account(&snapshot, filter.account.as_ref())?;
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
    let lake = super::existing_lake(config, runtime)?;
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
    let lake = super::existing_lake(config, runtime)?;
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
