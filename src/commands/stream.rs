//! `ingest kafka`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use ingest::core::keyring::Keyring;
use ingest::shell::endpoints::Health;
use ingest::shell::kafka::topics::check_topic;
use ingest::shell::kafka::{Ended, ReceiptError, Settings, WorkerError, stream};
use ingest::shell::mediation::Judging;
use ingest::shell::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Failure, Outcome, RECEIPTS_TOPIC, REPORTS_TOPIC, StreamArgs, TRUST_TOPIC};
use crate::config::Config;
use crate::output;

/// Rows of messages wait this long for their commit.
const FLUSH_AGE_MS_MAX: u64 = 1000;
const LISTEN: &str = "127.0.0.1:9464";

pub fn run(args: &StreamArgs, config: &Config) -> Result<Outcome, Failure> {
    let lake = super::open_lake(config)?;
    let connection = config.connection(&args.kafka).map_err(Failure::Usage)?;
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"))?;
    let health = Health::default();
    let runtime = super::lake_threads(2, super::WAITING_OF_A_WRITER)?;
    let asked = args.listen.as_ref().or(config.kafka.listen.as_ref());
    let text = Arc::new({
        let metrics = metrics.clone();
        move || metrics.text()
    });
    super::listen(runtime.handle(), ("--listen", LISTEN), asked, text, &health)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&runtime, &stop)?;

    let topic = |given: &Option<String>, set: &Option<String>, default: &str| {
        given.clone().or_else(|| set.clone()).unwrap_or_else(|| default.to_owned())
    };
    let optional = |name: String| (!name.is_empty()).then_some(name);
    let kafka = &config.kafka;
    let mut rules = config.rules.clone();
    rules.policy = args.signature_policy.unwrap_or(rules.policy);
    let bar = output::spinner(config.quiet, "{spinner} {pos} reports, {per_sec}, {elapsed}");
    let settings = Settings {
        connection,
        group: topic(&args.group, &kafka.group, "rumledger"),
        topic: topic(&args.topic, &kafka.topic, REPORTS_TOPIC),
        trust_topic: optional(topic(&args.trust_topic, &kafka.trust_topic, TRUST_TOPIC)),
        receipts_topic: optional(topic(
            &args.receipts_topic,
            &kafka.receipts_topic,
            RECEIPTS_TOPIC,
        )),
        idle_exit: args.idle_exit.map(Duration::from_secs),
        judging: Judging { limits: config.limits, rules, keyring: Arc::new(Keyring::default()) },
        flush: config.flush(FLUSH_AGE_MS_MAX),
        clock: &|| config.now(),
        stop: &stop,
        metrics,
        health,
        progress: &|reports| bar.set_position(reports),
    };
    let Settings { topic, trust_topic, receipts_topic, .. } = &settings;
    for name in [Some(topic), trust_topic.as_ref(), receipts_topic.as_ref()].into_iter().flatten() {
        check_topic(name).map_err(|why| Failure::Usage(anyhow!(why)))?;
    }
    if settings.group.is_empty() {
        return Err(Failure::Usage(anyhow!("the consumer group has no name; say --group")));
    }
    if [trust_topic, receipts_topic].contains(&&Some(topic.clone()))
        || receipts_topic.is_some() && trust_topic == receipts_topic
    {
        return Err(Failure::Usage(anyhow!(
            "the topics of reports, trust codes and receipts must differ; two are the same"
        )));
    }
    let cache_dir: PathBuf = lake.cache_dir(Path::new(&config.cache_dir));
    let started = Instant::now();
    let streamed = stream(runtime.handle(), &lake, cache_dir, &settings);
    bar.finish_and_clear();
    if let Err(
        error @ (WorkerError::Settings(_) | WorkerError::Receipts(ReceiptError::Client(_))),
    ) = streamed
    {
        return Err(Failure::Usage(error.into()));
    }
    let streamed =
        streamed.context("the worker stopped; what was committed stays, the rest is read again")?;
    super::ingest::print(&streamed.summary, streamed.commits, started.elapsed(), config)?;
    // Whoever stops a worker wants to know that it drained, not what it met.
    let clean = streamed.summary.suspended.is_empty() || streamed.ended == Ended::Stopped;
    Ok(if clean { Outcome::Done } else { Outcome::Found })
}

/// The first signal drains, the second ends at once: what is not committed is read again.
pub fn watch_signals(runtime: &Runtime, stop: &Arc<AtomicBool>) -> anyhow::Result<()> {
    let _guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let stop = Arc::clone(stop);
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        }
    });
    Ok(())
}
