//! `serve`: the lake for Grafana, psql and BI tools.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::serve::{Limits, Logins, Metrics, ServeError, Server, Shared, Tls, hash_password};
use anyhow::{Context as _, anyhow};
use datafusion::prelude::{SessionConfig, SessionContext};
use ingest::shell::endpoints::Health;
use reconcile::shell::run::Snapshot;
use schemas::period::EpochSeconds;
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Failure, Outcome, ServeArgs};
use crate::config::Config;
use crate::output;
use crate::served::{self, Computed, Gauges};

const LISTEN: &str = "127.0.0.1:5433";
const HTTP_LISTEN: &str = "127.0.0.1:9465";
/// The login that is made up where none is configured.
const ONLY_LOGIN: &str = "rumledger";
/// Longest password that is read.
const PASSWORD_BYTES_MAX: u64 = 1024;
/// A lake that could not be read for so long makes the server unready: its tables are still served, but
/// another server may have newer ones.
const STALE: Duration = Duration::from_secs(60);
/// What computes rests at least so many times as long as it worked.
const REST: u32 = 3;
/// Queries that run when it is told to stop have so long to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest time that a setting in milliseconds may be: as PostgreSQL's, 24 days.
const MILLIS_MAX: u64 = i32::MAX as u64;

pub fn run(args: &ServeArgs, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    if args.hash_password {
        return hash();
    }
    if args.describe_tables {
        return describe(config, runtime);
    }
    let lake = super::open_lake(config)?;
    let given = &config.serve;
    let address = super::address(args.listen.as_ref().or(given.listen.as_ref()), LISTEN)?;
    let tls = tls(args, config)?;
    let logins_file = args.logins.as_ref().or(given.logins.as_ref());
    refuse_exposure(address, tls.is_some(), logins_file.is_some(), args, config)?;
    let logins = logins(logins_file, config)?;
    let limits = limits(args, config).map_err(Failure::Usage)?;

    let metrics = Metrics::default();
    let gauges = Arc::new(Gauges::new(&metrics.registry)?);
    let health = Health::default();
    listen_http(args, config, &metrics, &health)?;
    let queries = super::lake_threads_to_build(limits.partitions, super::WAITING_OF_READERS)
        .thread_stack_size(super::PLANNING_STACK)
        .build()?;
    let shared = Arc::new(Shared::default());
    let server = Server::new(
        shared.clone(),
        logins,
        limits,
        tls.as_ref(),
        metrics,
        queries.handle().clone(),
    );
    let server = Arc::new(server.map_err(usage)?);

    let stop = Arc::new(AtomicBool::new(false));
    super::stream::watch_signals(runtime, &stop)?;
    let refresh = args.refresh_ms.or(given.refresh_ms).unwrap_or(1000);
    let refresh = millis("refresh_ms", refresh).map_err(Failure::Usage)?;
    let every = args.compute_every_s.or(given.compute_every_s).unwrap_or(60);
    if every > MILLIS_MAX / 1000 {
        return Err(Failure::Usage(anyhow!("compute_every_s: at most {}", MILLIS_MAX / 1000)));
    }
    let background = Background::start((every > 0).then_some(every), config, &gauges)?;
    let fresh =
        Fresh { lake, server: server.clone(), shared, background, gauges, health, every: refresh };
    runtime.block_on(async {
        let listener = Server::bind(address).await?;
        let bound = listener.local_addr()?;
        let encrypted = match tls.as_ref().map(|tls| tls.required) {
            Some(true) => "TLS; from this machine also without",
            Some(false) => "TLS where the client asks",
            None => "no TLS",
        };
        output::note(
            config.quiet,
            &format!("PostgreSQL clients: {bound} ({encrypted}), database rumledger"),
        );
        tracing::info!(address = %bound, encrypted, lake = config.lake, "the tables are served");
        let taking = tokio::spawn(server.clone().run(listener));
        fresh.keep(&stop, &|| config.now()).await;
        taking.abort();
        server.drain(DRAIN).await;
        Ok::<_, Failure>(())
    })?;
    // A query that does not look up from its work ends with the process.
    queries.shutdown_background();
    Ok(Outcome::Done)
}

fn usage(error: ServeError) -> Failure {
    Failure::Usage(anyhow!(error))
}

fn hash() -> Result<Outcome, Failure> {
    let mut password = String::new();
    std::io::stdin()
        .take(PASSWORD_BYTES_MAX)
        .read_to_string(&mut password)
        .context("cannot read the password from standard input")?;
    let hashed = hash_password(password.trim_end_matches(['\r', '\n'])).map_err(usage)?;
    output::text(&format!("{hashed}\n"))?;
    Ok(Outcome::Done)
}

fn describe(config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    // The tables are what they are, whether or not there is a lake.
    let snapshot = super::pinned(&super::open_lake(config)?, runtime)?;
    let page = runtime.block_on(async {
        let session = SessionContext::new();
        let catalog = served::catalog(&session, &snapshot, &served::empty()?, config.now()).await?;
        served::describe(&catalog)
    })?;
    output::text(&page)?;
    Ok(Outcome::Done)
}

fn tls(args: &ServeArgs, config: &Config) -> Result<Option<Tls>, Failure> {
    let of = |flag: &Option<PathBuf>, set: &Option<PathBuf>| flag.clone().or_else(|| set.clone());
    let certificate = of(&args.tls_certificate, &config.serve.tls_certificate);
    let key = of(&args.tls_key, &config.serve.tls_key);
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let required = !args.allow_plaintext.unwrap_or(config.serve.allow_plaintext);
            Ok(Some(Tls { certificate, key, required }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::Usage(anyhow!(
            "there is a certificate and no key of it: say --tls-key too (tls_key in [serve])"
        ))),
        (None, Some(_)) => Err(Failure::Usage(anyhow!(
            "there is a key and no certificate of it: say --tls-certificate too (tls_certificate in [serve])"
        ))),
    }
}

/// What leaves this machine is encrypted, and asked for by a configured login.
fn refuse_exposure(
    address: SocketAddr,
    encrypted: bool,
    has_logins: bool,
    args: &ServeArgs,
    config: &Config,
) -> Result<(), Failure> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    if !has_logins {
        return Err(Failure::Usage(anyhow!(
            "{address} can be reached from elsewhere: configure logins (--logins), or listen on 127.0.0.1"
        )));
    }
    if !encrypted && !args.allow_plaintext.unwrap_or(config.serve.allow_plaintext) {
        return Err(Failure::Usage(anyhow!(
            "{address} can be reached from elsewhere: configure --tls-certificate and --tls-key, or say --allow-plaintext"
        )));
    }
    Ok(())
}

fn logins(file: Option<&PathBuf>, config: &Config) -> Result<Logins, Failure> {
    if let Some(path) = file {
        return Logins::read(path).map_err(usage);
    }
    let (logins, password) = Logins::of_one(ONLY_LOGIN)?;
    output::note(
        config.quiet,
        &format!("login {ONLY_LOGIN}, password {password} (until this ends)"),
    );
    Ok(logins)
}

/// A time of at least a millisecond, and at most what PostgreSQL's own settings hold (24 days).
fn millis(name: &str, given: u64) -> anyhow::Result<Duration> {
    if !(1..=MILLIS_MAX).contains(&given) {
        return Err(anyhow!("{name}: from 1 to {MILLIS_MAX}, in milliseconds"));
    }
    Ok(Duration::from_millis(given))
}

fn limits(args: &ServeArgs, config: &Config) -> anyhow::Result<Limits> {
    let given = &config.serve;
    let count =
        |name: &str, flag: Option<usize>, set: Option<usize>, (default, most): (_, usize)| {
            match flag.or(set).unwrap_or(default) {
                0 => Err(anyhow!("{name}: a limit of 0 lets nothing through")),
                n if n > most => Err(anyhow!("{name}: at most {most}")),
                n => Ok(n),
            }
        };
    let timeout = args.statement_timeout_ms.or(given.statement_timeout_ms).unwrap_or(30_000);
    let memory = count("memory_mb", args.memory_mb, given.memory_mb, (512, 1 << 24))?;
    let (connections, queries) = (given.connections_max, given.queries_at_once);
    Ok(Limits {
        connections_max: count("connections_max", args.connections_max, connections, (64, 65_535))?,
        queries_at_once: count("queries_at_once", args.queries_at_once, queries, (4, 1_024))?,
        statement_timeout: millis("statement_timeout_ms", timeout)?,
        rows_max: count("rows_max", args.rows_max, given.rows_max, (1_000_000, usize::MAX))?,
        text_bytes_max: 256 << 10,
        memory_bytes: memory.saturating_mul(1 << 20),
        spill_bytes: 1 << 30,
        partitions: std::thread::available_parallelism().map_or(2, usize::from),
    })
}

/// Probes are answered by a thread of their own: a server whose queries take every core is busy, not dead.
fn listen_http(
    args: &ServeArgs,
    config: &Config,
    metrics: &Metrics,
    health: &Health,
) -> Result<(), Failure> {
    let asked = args.http_listen.as_ref().or(config.serve.http_listen.as_ref());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let metrics = metrics.clone();
    let text = Arc::new(move || metrics.text());
    super::listen(runtime.handle(), ("--http-listen", HTTP_LISTEN), asked, text, health)?;
    std::thread::Builder::new()
        .name("probes".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(())
}

/// What is shown, kept as new as the lake.
struct Fresh {
    lake: lake::Lake,
    server: Arc<Server>,
    shared: Arc<Shared>,
    background: Background,
    gauges: Arc<Gauges>,
    health: Health,
    every: Duration,
}

impl Fresh {
    /// Until it is told to stop.
    async fn keep(&self, stop: &AtomicBool, now: &dyn Fn() -> EpochSeconds) {
        let mut snapshot = None;
        let mut shown = None;
        let mut succeeded = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            self.health.turn();
            match self.look(&mut snapshot, &mut shown, now()).await {
                Ok(()) => {
                    succeeded = Instant::now();
                    self.health.set_ready(None);
                }
                Err(error) => {
                    self.gauges.refresh_failures.inc();
                    tracing::warn!(error = format!("{error:#}"), "the lake could not be looked at");
                    if snapshot.is_none() || succeeded.elapsed() > STALE {
                        self.health.set_ready(Some(format!("{error:#}")));
                    }
                }
            }
            self.pause(stop).await;
        }
    }

    /// A signal is seen within a moment, however long the pause.
    async fn pause(&self, stop: &AtomicBool) {
        let until = Instant::now() + self.every;
        while !stop.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(Duration::from_millis(100))).await;
        }
    }

    async fn look(
        &self,
        snapshot: &mut Option<Snapshot>,
        shown: &mut Option<u64>,
        now: EpochSeconds,
    ) -> anyhow::Result<()> {
        let changed = match snapshot {
            Some(snapshot) => snapshot.refresh(&self.lake).await?,
            None => {
                *snapshot = Some(Snapshot::pin(&self.lake).await?);
                true
            }
        };
        let Some(snapshot) = snapshot else { return Ok(()) };
        if changed {
            self.background.offer(snapshot);
        }
        let (number, computed) = self.background.result();
        if changed || *shown != Some(number) {
            // A later look does it again where this one fails half-way.
            *shown = None;
            let config = SessionConfig::new()
                .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
            let session = SessionContext::new_with_config_rt(config, self.server.runtime());
            let catalog = served::catalog(&session, snapshot, &computed, now).await?;
            self.shared.replace(catalog).await;
            *shown = Some(number);
        }
        self.gauges.refreshed(snapshot, now);
        Ok(())
    }
}

/// The newest snapshot that was offered; older ones are not waited for.
type Newest = (Mutex<Option<Snapshot>>, Condvar);

/// A thread that computes what is not stored, again and again, and rests in between.
struct Background {
    newest: Option<Arc<Newest>>,
    /// How often it was computed, and what came of it.
    result: Arc<Mutex<(u64, Arc<Computed>)>>,
}

impl Background {
    fn start(
        every_s: Option<u64>,
        config: &Config,
        gauges: &Arc<Gauges>,
    ) -> anyhow::Result<Background> {
        let result = Arc::new(Mutex::new((0, Arc::new(served::empty()?))));
        let Some(every) = every_s.map(Duration::from_secs) else {
            return Ok(Background { newest: None, result });
        };
        let newest: Arc<Newest> = Arc::default();
        let offered = newest.clone();
        let (results, gauges) = (result.clone(), gauges.clone());
        let clock = config.clock();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("compute".to_owned()).spawn(move || {
            loop {
                let snapshot = {
                    let slot = offered.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let slot = offered.1.wait_while(slot, |newest| newest.is_none());
                    slot.unwrap_or_else(PoisonError::into_inner).clone()
                };
                let Some(snapshot) = snapshot else { continue };
                let began = Instant::now();
                match runtime.block_on(served::compute(&snapshot, clock())) {
                    Ok(computed) => {
                        gauges.computed(&computed);
                        let mut result = results.lock().unwrap_or_else(PoisonError::into_inner);
                        *result = (result.0 + 1, Arc::new(computed));
                    }
                    Err(error) => {
                        gauges.compute_failures.inc();
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "findings, deadlines and checks could not be computed"
                        );
                    }
                }
                std::thread::sleep(every.max(began.elapsed() * REST));
            }
        })?;
        Ok(Background { newest: Some(newest), result })
    }

    fn offer(&self, snapshot: &Snapshot) {
        if let Some(newest) = &self.newest {
            *newest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
            newest.1.notify_one();
        }
    }

    fn result(&self) -> (u64, Arc<Computed>) {
        self.result.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
