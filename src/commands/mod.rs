//! One file a command.

mod book;
mod compliance;
mod demo;
mod erp;
mod explain;
mod fleet;
mod ingest;
mod lake;
mod ledger;
mod manual;
mod requests;
mod serve;
mod sql;
mod stream;
pub mod suspense;
mod vendor;
mod verify;

use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::time::Duration;

use ::ingest::shell::endpoints::{self, Health, MetricsText};
use ::ingest::shell::mediation::Judging;
use ::lake::Lake;
use anyhow::{Context as _, anyhow};
use reconcile::ReconcileError;
use reconcile::shell::run::Snapshot;
use schemas::book::AccountId;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::cli::{
    BookCommand, Command, ExportCommand, Failure, FleetCommand, IngestCommand, LakeCommand,
    Outcome, SuspenseCommand,
};
use crate::config::Config;

pub fn run(command: Command, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    if config.format.is_file() && !matches!(command, Command::Statement { .. }) {
        return Err(Failure::Usage(anyhow!(
            "only `statement` has this format; the others have table, json and csv"
        )));
    }
    match command {
        Command::Demo => demo::run(config, runtime),
        Command::Fleet(FleetCommand::Generate(args)) => fleet::generate(&args, config, runtime),
        Command::Book(BookCommand::Import { dir, correct }) => {
            book::import(&dir, correct.as_deref(), config, runtime)
        }
        Command::Book(BookCommand::Show { table }) => book::show(table.as_deref(), config, runtime),
        Command::Ingest(IngestCommand::Files { paths, signature_policy, delivery }) => {
            ingest::files(&paths, signature_policy, delivery, config, runtime)
        }
        Command::Ingest(IngestCommand::Kafka(args)) => stream::run(&args, config),
        Command::Lake(LakeCommand::Optimize { target_mb, cluster }) => {
            lake::optimize(target_mb, cluster, config, runtime)
        }
        Command::Lake(LakeCommand::Vacuum { keep_hours, dry_run }) => {
            lake::vacuum(keep_hours, dry_run, config, runtime)
        }
        Command::Suspense(SuspenseCommand::Retry { reason, ids }) => {
            suspense::retry(reason.as_deref(), ids, config, runtime)
        }
        Command::Suspense(SuspenseCommand::List {
            reason,
            collector,
            account,
            written_off,
            limit,
            by,
        }) => {
            let filter = suspense::Filter::new(reason.as_deref(), collector, account, written_off)?;
            match by {
                Some(by) => suspense::count(by, &filter, config, runtime),
                None => suspense::list(&filter, limit, config, runtime),
            }
        }
        Command::Suspense(SuspenseCommand::WriteOff { ids, suspended_for, reason }) => {
            suspense::write_off(ids, suspended_for.as_deref(), &reason, config, runtime)
        }
        Command::Suspense(SuspenseCommand::Show { id, raw }) => {
            suspense::show(&id, raw, config, runtime)
        }
        Command::Reconcile { as_of: Some(version), .. } => ledger::as_of(version, config, runtime),
        Command::Reconcile { period, current: _, dry_run, account, as_of: None } => {
            let periods =
                period.map_or_else(|| ledger::current(config), |period| Ok(vec![period]))?;
            ledger::reconcile(&periods, account.as_ref(), dry_run, config, runtime)
        }
        Command::Explain { line } => explain::run(&line, config, runtime),
        Command::Export(ExportCommand::Proof { line }) => explain::proof(&line, config, runtime),
        Command::Export(ExportCommand::Ledger { period }) => erp::ledger(period, config, runtime),
        Command::Match { period, vendor, mapping } => {
            vendor::run(period, &vendor, &mapping, config, runtime)
        }
        Command::Verify { period } => verify::run(period, config, runtime),
        Command::Close { period } => ledger::close(period, config, runtime),
        Command::Statement { period, out, customer } => {
            ledger::statement(period, out.as_deref(), customer.as_deref(), config, runtime)
        }
        Command::Exceptions { period } => ledger::exceptions(period, config, runtime),
        Command::Findings { as_of, severity, rule, account } => {
            let filter = compliance::Filter { severity, rule, account };
            compliance::findings(as_of, &filter, config, runtime)
        }
        Command::Deadlines { as_of, within, forecast } => {
            compliance::deadlines(as_of, within, forecast, config, runtime)
        }
        Command::Requests { open } => requests::run(open, config, runtime),
        Command::Coverage { period, as_of, by } => {
            compliance::coverage(period, as_of, by, config, runtime)
        }
        Command::Sql { query } => sql::run(&query, config, runtime),
        Command::Serve(args) => serve::run(&args, config, runtime),
        Command::Completions { shell } => manual::completions(shell),
        Command::Manual { dir } => manual::pages(&dir),
    }
}

fn open_lake(config: &Config) -> Result<Lake, Failure> {
    static TOLD: Once = Once::new();
    let lake = Lake::open(&config.lake).map_err(|error| Failure::Usage(error.into()))?;
    // Whoever reads it would take an empty answer for one.
    if !config.lake_is_named && !std::path::Path::new(&config.lake).exists() {
        TOLD.call_once(|| {
            let what = format!("there is no lake at {} yet", lake.location());
            crate::output::note(config.quiet, &what);
        });
    }
    Ok(lake)
}

/// A lake that is there, if somebody said where: whoever reads or closes one that is not has mistyped its name, as a
/// rule, and would take what it says for an answer. Where nobody did, nothing was taken in yet.
fn existing_lake(config: &Config, runtime: &Runtime) -> Result<Lake, Failure> {
    let lake = open_lake(config)?;
    if config.lake_is_named && runtime.block_on(lake.is_absent())? {
        return Err(Failure::Failed(anyhow!(
            "there is no lake at {}; `book import` and `ingest` make one",
            lake.location()
        )));
    }
    Ok(lake)
}

/// By what reports are looked at again.
fn judging(lake: &Lake, config: &Config, runtime: &Runtime) -> Result<Judging, Failure> {
    let keyring = Arc::new(ingest::keyring(lake, runtime)?);
    Ok(Judging { limits: config.limits, rules: config.rules.clone(), keyring })
}

/// Threads that may wait for files, of whoever commits: there is one commit at a time, and a table or two is read
/// beside it. Delta, where it reads fifty versions of a log, starts as many as it may.
const WAITING_OF_A_WRITER: usize = 12;
/// The same, of whoever answers many at once.
const WAITING_OF_READERS: usize = 64;
/// A thread that waits for files ends when it had nothing to do for so long. Each keeps memory of its own, some MiB,
/// and starting one costs microseconds; with the usual ten seconds all of them stay for ever, since each next file
/// is read by another one. It is less than the time between two commits, a tenth of a second on two fast cores.
const WAITING_KEPT: Duration = Duration::from_millis(20);

/// The stack of a thread that plans or runs queries: they are trees that are visited by recursion. Memory is taken for
/// what is used of it.
pub const PLANNING_STACK: usize = 256 << 20;

/// Threads for work on the lake beside a command's own.
///
/// Delta reads its log on threads that wait for files read on other ones, one or two for each table that is read:
/// with too few of them, two such reads wait for each other for ever.
fn lake_threads(workers: usize, waiting: usize) -> anyhow::Result<Runtime> {
    let mut threads = lake_threads_to_build(workers, waiting);
    threads.build().context("cannot start threads for the lake")
}

fn lake_threads_to_build(workers: usize, waiting: usize) -> Builder {
    let mut threads = Builder::new_multi_thread();
    threads
        .worker_threads(workers)
        .max_blocking_threads(waiting)
        .thread_keep_alive(WAITING_KEPT)
        .enable_all();
    threads
}

fn address(given: Option<&String>, default: &str) -> Result<SocketAddr, Failure> {
    let text = given.map_or(default, String::as_str);
    text.parse().map_err(|_| {
        Failure::Usage(anyhow!("'{text}' is no address; write IP:PORT, such as {default}"))
    })
}

/// Serves `/metrics`, `/healthz` and `/readyz` on the address that was asked for, or else on a default one if
/// that is free; `off` serves none.
fn listen(
    runtime: &Handle,
    (flag, default): (&str, &str),
    asked: Option<&String>,
    metrics: MetricsText,
    health: &Health,
) -> Result<(), Failure> {
    if asked.is_some_and(|address| address == "off") {
        return Ok(());
    }
    let address = address(asked, default)?;
    match endpoints::serve(runtime, address, metrics, health.clone()) {
        Ok(bound) => tracing::info!(address = %bound, "metrics and health are served"),
        // Nobody asked for this one, and another process on this machine may have it.
        Err(error) if asked.is_none() => {
            tracing::warn!(%error, %address, "metrics are not served; choose an address with {flag}");
        }
        Err(error) => {
            return Err(Failure::Failed(
                anyhow!(error).context(format!("cannot listen on {address}")),
            ));
        }
    }
    Ok(())
}

/// A snapshot of everything that a command reads.
fn snapshot(config: &Config, runtime: &Runtime) -> Result<Snapshot, Failure> {
    pinned(&existing_lake(config, runtime)?, runtime)
}

/// An account that nobody has is a mistake of whoever typed it, and no empty answer.
fn known_account(snapshot: &Snapshot, account: Option<&AccountId>) -> Result<(), Failure> {
    let Some(id) = account else { return Ok(()) };
    if snapshot.book.book.accounts.iter().any(|account| account.id == *id) {
        return Ok(());
    }
    Err(Failure::Usage(ReconcileError::NoAccount(id.clone()).into()))
}

fn pinned(lake: &Lake, runtime: &Runtime) -> Result<Snapshot, Failure> {
    let pinned = runtime.block_on(Snapshot::pin(lake));
    Ok(pinned.with_context(|| format!("cannot read the lake {}", lake.location()))?)
}
