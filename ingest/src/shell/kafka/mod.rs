//! The streaming worker: Kafka records into the journal, each exactly once.
//!
//! One loop: read a chunk of messages, make rows of it, tell the state machine
//! ([`crate::core::worker`]) what happened, carry out what it wants. Which message counts is decided by
//! the fences of the journal's own commits; the group only says which worker reads what.

pub mod client;
mod commits;
mod flow;
mod follower;
pub mod load;
mod messages;
mod owed;
mod receipts;
mod surroundings;
pub mod topics;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use lake::{Lake, LakeError, failpoint};
use prometheus::HistogramTimer;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use schemas::journal;
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;

use self::client::{Connection, Context, Rebalanced, SettingsError};
use self::flow::Flow;
use self::follower::Follower;
use self::owed::Owed;
pub use self::receipts::ReceiptError;
use self::receipts::Receipts;
use self::topics::{TopicError, positions_behind, source_of};
use super::endpoints::Health;
use super::index::{Index, IndexError};
use super::mediation::{Gathered, Judging, MediationError, Summary, journal_layout};
use super::metrics::Metrics;
use super::takeup::TakeUpError;
use super::writer::{JournalWriter, WriteError};
use crate::core::carrier::Block;
use crate::core::worker::{Event, FlushLimits, Intention, Offset, Partition, Worker};

/// How often the topic of trust codes, and how often the book, is looked at.
const TRUST_EVERY: Duration = Duration::from_millis(250);
const BOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a topic may be missing when the worker starts.
const TOPIC_WAIT_MAX: Duration = Duration::from_secs(30);
/// An idle worker that was given no partition ends after this, or its own limit if that is longer.
const UNASSIGNED_MAX: Duration = Duration::from_secs(60);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Everything a worker is told.
pub struct Settings<'a> {
    pub connection: Connection,
    pub group: String,
    pub topic: String,
    /// `None`: trust codes come from the book alone.
    pub trust_topic: Option<String>,
    /// `None`: no receipts.
    pub receipts_topic: Option<String>,
    /// Ends when nothing came for so long.
    pub idle_exit: Option<Duration>,
    /// Its keyring is replaced by what the lake holds.
    pub judging: Judging,
    pub flush: FlushLimits,
    /// Seconds since 1970, UTC.
    pub clock: &'a dyn Fn() -> EpochSeconds,
    /// Set from outside when the worker is to drain and end.
    pub stop: &'a AtomicBool,
    pub metrics: Metrics,
    pub health: Health,
    /// Told of the reports that are durable.
    pub progress: &'a dyn Fn(u64),
}

/// Why a worker that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Idle,
    Stopped,
}

/// What a worker came to.
#[derive(Clone, Debug)]
pub struct Streamed {
    pub summary: Summary,
    pub commits: u64,
    pub ended: Ended,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("kafka failed")]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(
        "messages of {topic}[{partition}] are gone: the journal holds it up to offset {held}, the broker has it from {first} to {next} only; if the messages between are lost for good and this is known, make the topic anew under the same name, or let the worker read another"
    )]
    Gone { topic: String, partition: Partition, held: String, first: Offset, next: Offset },
    #[error(
        "the topic '{topic}' was deleted and made anew while it was read (its id was {from} and is {to}); start the worker again to read the new one from its first message"
    )]
    MadeAnew { topic: String, from: String, to: String },
    #[error("the broker refuses this worker: {0}")]
    Refused(RDKafkaErrorCode),
    #[error(transparent)]
    Receipts(#[from] ReceiptError),
    #[error(transparent)]
    Lake(#[from] LakeError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Mediation(#[from] MediationError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    TakeUp(#[from] TakeUpError),
    #[error("trust codes do not fit the lake's columns")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("stopped while the lake was out of reach; what was not committed is read again")]
    StoppedWaiting(#[source] Box<WorkerError>),
}

impl WorkerError {
    /// True if the world is to blame and the same may succeed later.
    fn retry(&self) -> bool {
        match self {
            WorkerError::Lake(error)
            | WorkerError::Index(IndexError::Lake(error))
            | WorkerError::TakeUp(TakeUpError::Lake(error)) => error.retry(),
            WorkerError::Write(error) => error.retry(),
            WorkerError::Receipts(ReceiptError::Refused { .. }) => true,
            _ => false,
        }
    }
}

type Result<T, E = WorkerError> = std::result::Result<T, E>;

/// Streams until it is stopped, or nothing came for as long as it was told. Blocks; run it off the
/// runtime's own threads.
///
/// # Errors
/// If messages are gone, the broker refuses the worker, or the lake or the index fails for good. What
/// was committed stays; the rest is read again.
pub fn stream(
    runtime: &Handle,
    lake: &Lake,
    cache_dir: PathBuf,
    settings: &Settings<'_>,
) -> Result<Streamed> {
    let Some(mut shell) = Shell::open(runtime, lake, cache_dir, settings)? else {
        return Ok(Streamed { summary: Summary::default(), commits: 0, ended: Ended::Stopped });
    };
    let ended = shell.run()?;
    Ok(Streamed { summary: shell.summary.clone(), commits: shell.writer.commits(), ended })
}

/// Why a worker has to end, once the rows in its hand are durable: nobody can read their messages again.
enum Halt {
    /// Messages are gone, of one of these partitions.
    Gone(Vec<Partition>),
    For(WorkerError),
}

struct Shell<'a> {
    runtime: Handle,
    lake: &'a Lake,
    settings: &'a Settings<'a>,
    judging: Judging,
    consumer: BaseConsumer<Context>,
    topic_id: String,
    machine: Worker,
    writer: JournalWriter,
    flow: Flow,
    gathered: Gathered,
    block: Block,
    receipts: Option<Receipts>,
    owed: Option<Owed>,
    /// Rows of the commit that was made last, until their receipts are sent.
    committed: Vec<RecordBatch>,
    /// Last offset that the journal holds of each partition.
    durable: BTreeMap<Partition, Offset>,
    /// Offsets up to which the broker has the receipts.
    receipted: BTreeMap<Partition, Offset>,
    trust: Option<Follower>,
    trust_seen: Instant,
    book_seen: Instant,
    book_version: Option<u64>,
    /// Suspended reports are to be judged again when so many commits are made.
    take_up_after: Option<u64>,
    commit_timer: Option<HistogramTimer>,
    retry_at: Option<Instant>,
    backoff: Duration,
    started: Instant,
    /// When a message or an assignment came last.
    active: Instant,
    assigned_once: bool,
    halt: Option<Halt>,
    leave: bool,
    summary: Summary,
}

/// However the worker ends, the group gets its answer: the client would wait for it for ever.
impl Drop for Shell<'_> {
    fn drop(&mut self) {
        self.consumer.context().close();
        while let Some(rebalanced) = self.consumer.context().next_rebalance() {
            let answered = match rebalanced {
                Rebalanced::Assigned(p) => self.consumer.incremental_assign(&self.list(&p)),
                Rebalanced::Revoked(p) => self.consumer.incremental_unassign(&self.list(&p)),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "the group was left in disorder");
            }
        }
        if let Ok(assigned) = self.consumer.assignment()
            && assigned.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&assigned)
        {
            tracing::debug!(%error, "the group was left in disorder");
        }
    }
}

impl<'a> Shell<'a> {
    /// `None` if it was stopped before it found its topic.
    fn open(
        runtime: &Handle,
        lake: &'a Lake,
        cache_dir: PathBuf,
        settings: &'a Settings<'a>,
    ) -> Result<Option<Shell<'a>>> {
        let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout()))?;
        let index = runtime.block_on(Index::open(&cache_dir, &journal))?;
        let Some(topic_id) = wait_for_topic(settings)? else { return Ok(None) };
        let receipts = match &settings.receipts_topic {
            Some(topic) => Some(Receipts::open(&settings.connection, topic, runtime)?),
            None => None,
        };
        let now = Instant::now();
        let mut shell = Shell {
            runtime: runtime.clone(),
            lake,
            settings,
            judging: settings.judging.clone(),
            consumer: settings.connection.join(&settings.group)?,
            topic_id,
            machine: Worker::new(settings.flush),
            writer: JournalWriter::new(runtime, journal, index),
            flow: Flow::Open,
            gathered: Gathered::default(),
            block: Block::default(),
            receipts,
            owed: settings.receipts_topic.as_deref().map(Owed::to),
            committed: Vec::new(),
            durable: BTreeMap::new(),
            receipted: BTreeMap::new(),
            trust: None,
            trust_seen: now,
            book_seen: now,
            book_version: None,
            take_up_after: Some(0),
            commit_timer: None,
            retry_at: None,
            backoff: BACKOFF_FIRST,
            started: now,
            active: now,
            assigned_once: false,
            halt: None,
            leave: false,
            summary: Summary::default(),
        };
        shell.open_trust()?;
        shell.load_keys()?;
        shell.send_owed_receipts()?;
        shell.consumer.subscribe(&[&settings.topic])?;
        tracing::info!(
            topic = settings.topic,
            topic_id = shell.topic_id,
            group = settings.group,
            lake = lake.location(),
            "the worker starts"
        );
        Ok(Some(shell))
    }

    fn run(&mut self) -> Result<Ended> {
        let mut ended = Ended::Stopped;
        let mut stopping = false;
        while !self.leave {
            self.settings.health.turn();
            if !self.is_held_back()? {
                self.read_chunk()?;
            }
            self.rebalances()?;
            self.settle(false)?;
            self.look_around()?;
            if !stopping && self.settings.stop.load(Ordering::Relaxed) {
                tracing::info!("the worker drains");
                stopping = true;
                self.handle(Event::Stop)?;
            } else if !stopping && self.halt.is_some() {
                tracing::warn!("the worker cannot read on; what it has read is committed first");
                stopping = true;
                self.handle(Event::Stop)?;
            } else if !stopping && self.is_idle() {
                ended = Ended::Idle;
                stopping = true;
                self.handle(Event::Stop)?;
            } else {
                self.handle(Event::Tick)?;
            }
        }
        tracing::info!(received = self.summary.received, "the worker leaves");
        match self.halt.take() {
            Some(Halt::Gone(reading)) => Err(self.gone(&reading)),
            Some(Halt::For(error)) => Err(error),
            None => Ok(ended),
        }
    }

    fn is_idle(&self) -> bool {
        let Some(limit) = self.settings.idle_exit else { return false };
        let since = if self.assigned_once { self.active } else { self.started };
        let limit = if self.assigned_once { limit } else { limit.max(UNASSIGNED_MAX) };
        self.machine.is_idle() && since.elapsed() >= limit
    }

    /// Milliseconds since the start, for the machine.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rebalances(&mut self) -> Result<()> {
        while let Some(rebalanced) = self.consumer.context().next_rebalance() {
            self.active = Instant::now();
            let kinds = &self.settings.metrics.rebalances;
            match rebalanced {
                Rebalanced::Assigned(partitions) => {
                    tracing::info!(?partitions, "partitions assigned");
                    self.assigned_once |= !partitions.is_empty();
                    kinds.with_label_values(&["assigned"]).inc();
                    self.handle(Event::Assigned(partitions))?;
                }
                Rebalanced::Revoked(partitions) => {
                    let lost = self.consumer.assignment_lost();
                    tracing::info!(?partitions, lost, "partitions revoked");
                    kinds.with_label_values(&[if lost { "lost" } else { "revoked" }]).inc();
                    self.handle(Event::Revoked { partitions, lost })?;
                }
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for intention in self.machine.on(event, self.now_ms()) {
                events.extend(self.carry_out(intention)?);
            }
        }
        self.settings.metrics.gathered_rows.set(as_gauge(self.machine.gathered_rows()));
        Ok(())
    }

    fn carry_out(&mut self, intention: Intention) -> Result<Option<Event>> {
        match intention {
            Intention::ReadFences(partitions) => {
                return Ok(Some(Event::Fences(self.patiently(|shell| {
                    shell.writer.catch_up()?;
                    shell.fences(&partitions)
                })?)));
            }
            Intention::Assign(behind) => {
                failpoint::here("on-assignment");
                self.send_missing_receipts(&behind)?;
                let list = positions_behind(&self.settings.topic, behind)?;
                self.consumer.incremental_assign(&list)?;
                self.after_assignment();
            }
            Intention::Seek(behind) => {
                self.send_missing_receipts(&behind)?;
                let list = positions_behind(&self.settings.topic, behind)?;
                self.consumer.seek_partitions(list, BACKOFF_MAX)?;
            }
            Intention::Unassign(partitions) => {
                self.consumer.incremental_unassign(&self.list(&partitions))?;
                for p in &partitions {
                    let _ = self.settings.metrics.lag.remove_label_values(&[&p.to_string()]);
                }
                self.after_assignment();
            }
            Intention::Pause => self.hold_back()?,
            Intention::Resume => self.read_on()?,
            Intention::Commit(spans) => self.start_commit(&spans)?,
            Intention::Retry => self.retry_later(),
            Intention::Discard => {
                self.gathered = Gathered::default();
                self.writer.forget_failed();
            }
            Intention::Acknowledge(offsets) => self.acknowledge(&offsets)?,
            Intention::Leave => self.leave = true,
        }
        Ok(None)
    }

    /// Does something that the world may refuse for a while, until it succeeds or the worker is
    /// stopped.
    fn patiently<T>(&mut self, mut action: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut backoff = BACKOFF_FIRST;
        loop {
            match action(self) {
                Err(error) if error.retry() => {
                    if self.settings.stop.load(Ordering::Relaxed) {
                        return Err(WorkerError::StoppedWaiting(Box::new(error)));
                    }
                    self.settings.health.turn();
                    self.settings.health.set_ready(Some(error.to_string()));
                    tracing::warn!(error = chain(&error), "waiting for the world");
                    std::thread::sleep(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                other => return other,
            }
        }
    }

    fn after_assignment(&mut self) {
        let reading = self.machine.reading();
        self.settings.metrics.partitions.set(as_gauge(reading.len()));
        self.settings.health.set_ready(None);
    }

    /// Name of a partition in the journal's log.
    fn source(&self, partition: Partition) -> String {
        source_of(&self.settings.topic, &self.topic_id, partition)
    }

    fn receipts_source(&self, partition: Partition) -> String {
        format!("receipts:{}:{}:{partition}", self.settings.topic, self.topic_id)
    }

    fn fences(&mut self, partitions: &[Partition]) -> Result<Vec<(Partition, Option<Offset>)>> {
        let held = |p: &Partition| {
            Ok((*p, self.runtime.block_on(self.writer.journal().held(&self.source(*p)))?))
        };
        let fences: Vec<(Partition, Option<Offset>)> =
            partitions.iter().map(held).collect::<Result<_>>()?;
        self.durable.extend(fences.iter().filter_map(|(p, held)| Some((*p, (*held)?))));
        Ok(fences)
    }

    fn list(&self, partitions: &[Partition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for p in partitions {
            list.add_partition(&self.settings.topic, *p);
        }
        list
    }
}

/// Waits until the topic is there, and gives its id; blank where brokers have none.
fn wait_for_topic(settings: &Settings<'_>) -> Result<Option<String>> {
    let started = Instant::now();
    loop {
        settings.health.turn();
        let error = match settings.connection.topic_id(&settings.topic, Duration::from_secs(5)) {
            Ok(id) => return Ok(Some(id.unwrap_or_default())),
            Err(error) => error,
        };
        match error {
            TopicError::Refused(code) => return Err(WorkerError::Refused(code)),
            TopicError::Client(error) => return Err(SettingsError::Client(error).into()),
            _ => {}
        }
        tracing::warn!(%error, topic = settings.topic, "waiting for the topic");
        settings.health.set_ready(Some(error.to_string()));
        if settings.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if started.elapsed() > TOPIC_WAIT_MAX {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn as_gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// An error with its causes, for a log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
