//! `ingest files`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use ingest::core::keyring::Keyring;
use ingest::core::report::Delivery;
use ingest::shell::files::list;
use ingest::shell::mediation::{Judging, Summary};
use ingest::shell::runner::{Settings, Taken, ingest_files};
use ingest::shell::trust;
use lake::Lake;
use schemas::disposition::SignaturePolicy;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::cli::{DeliveryArgs, Failure, Format, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// Rows of files wait this long for their commit.
const FLUSH_AGE_MS_MAX: u64 = 10_000;

pub fn files(
    paths: &[PathBuf],
    policy: Option<SignaturePolicy>,
    delivery: DeliveryArgs,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::open_lake(config)?;
    let started = Instant::now();
    let taken = take_in(paths, policy, delivery, &lake, config, runtime)?;
    print(&taken.summary, taken.commits, started.elapsed(), config)?;
    Ok(if taken.summary.suspended.is_empty() { Outcome::Done } else { Outcome::Found })
}

/// All trust codes: of the book, and those that came over Kafka. Of the book, only they are held while
/// reports come.
pub fn keyring(lake: &Lake, runtime: &Runtime) -> anyhow::Result<Keyring> {
    let (keyring, _) =
        runtime.block_on(trust::load_keyring(lake)).context("cannot read the keys")?;
    Ok(keyring)
}

/// Takes in all files under the paths.
pub fn take_in(
    paths: &[PathBuf],
    policy: Option<SignaturePolicy>,
    delivery: DeliveryArgs,
    lake: &Lake,
    config: &Config,
    runtime: &Runtime,
) -> anyhow::Result<Taken> {
    let files = list(paths).map_err(|(path, error)| {
        anyhow!(error).context(format!("cannot read {}", path.display()))
    })?;
    let keyring = keyring(lake, runtime)?;
    let mut rules = config.rules.clone();
    rules.policy = policy.unwrap_or(rules.policy);
    let bar = output::progress(
        config.quiet,
        files.len() as u64,
        "{wide_bar} {pos}/{len} files, {msg} reports, {elapsed}",
    );
    let settings = Settings {
        judging: Judging { limits: config.limits, rules, keyring: Arc::new(keyring) },
        flush: config.flush(FLUSH_AGE_MS_MAX),
        delivery: Delivery {
            collector: Some(delivery.collector.unwrap_or_else(|| config.collector.clone())),
            smart_account: delivery.account.as_ref().map(|id| id.smart.clone()),
            virtual_account: delivery.account.map(|id| id.virtual_),
            collector_version: delivery.collector_version,
            collection: delivery.collection,
            transport: delivery.transport,
        },
        clock: &|| config.now(),
        progress: &|reports, files| {
            bar.set_position(files);
            bar.set_message(reports.to_string());
        },
        ignored: &|source, what| output::note(config.quiet, &format!("ignored: {source}: {what}")),
    };
    let cache_dir: PathBuf = lake.cache_dir(Path::new(&config.cache_dir));
    // One thread for commits: each keeps the memory of the largest commit it made.
    let commits = super::lake_threads(1, super::WAITING_OF_A_WRITER)?;
    let taken = ingest_files(commits.handle(), lake, &cache_dir, &files, &settings);
    bar.finish_and_clear();
    taken.context("the ingest stopped; what was committed stays, run it again to go on")
}

/// Reports a second, to the unit.
fn rate(reports: u64, elapsed: Duration) -> u64 {
    u64::try_from(u128::from(reports) * 1_000_000 / elapsed.as_micros().max(1)).unwrap_or(u64::MAX)
}

/// The counts of a run.
pub fn print(
    summary: &Summary,
    commits: u64,
    elapsed: Duration,
    config: &Config,
) -> anyhow::Result<()> {
    let seconds = format!("{}.{:03}", elapsed.as_secs(), elapsed.subsec_millis());
    if config.format == Format::Json {
        let suspended: serde_json::Map<String, serde_json::Value> =
            summary.suspended.iter().map(|(reason, n)| (reason.to_string(), json!(n))).collect();
        return output::text(
            &json!({
                "received": summary.received,
                "accepted": summary.accepted,
                "duplicate": summary.duplicate,
                "suspended": suspended,
                "verified": summary.verified,
                "unverifiable": summary.unverifiable,
                "seconds": seconds.parse::<serde_json::Number>()?,
            })
            .to_string(),
        );
    }
    output::rows(config.format, &balance(summary))?;
    output::note(
        config.quiet,
        &format!(
            "{seconds} s, {} reports a second, {} commits",
            rate(summary.received, elapsed),
            commits
        ),
    );
    Ok(())
}

/// received = accepted + duplicate + suspended, by reason.
pub fn balance(summary: &Summary) -> Rows<'static> {
    let line = |name: &str, n: u64| vec![name.to_owned(), n.to_string()];
    let mut rows = vec![
        line("received", summary.received),
        line("accepted", summary.accepted),
        line("  verified", summary.verified),
        line("  unverifiable", summary.unverifiable),
        line("duplicate", summary.duplicate),
        line("suspended", summary.suspended_total()),
    ];
    rows.extend(summary.suspended.iter().map(|(reason, n)| line(&format!("  {reason}"), *n)));
    Rows { columns: &["disposition", "reports"], rows, numbers: &["reports"], ..Rows::default() }
}
