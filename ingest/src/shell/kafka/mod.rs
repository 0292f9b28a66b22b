//! The streaming worker: Kafka records into the journal, each exactly once.
//!
//! One loop: read a chunk of messages, make rows of it, tell the state machine
//! ([`crate::core::worker`]) what happened, carry out what it wants. Which message counts is decided by
//! the fences of the journal's own commits; the group only says which worker reads what.

pub mod client;
mod follower;
pub mod load;
mod receipts;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use lake::{Fence, Lake, LakeError, failpoint, load_book};
use prometheus::HistogramTimer;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use schemas::disposition::Reason;
use schemas::journal;
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;

use self::client::{Connection, Context, Rebalanced, SettingsError, TopicError};
use self::follower::Follower;
pub use self::receipts::ReceiptError;
use self::receipts::Receipts;
use super::endpoints::Health;
use super::index::{Index, IndexError};
use super::mediation::{Gathered, Judging, MediationError, Summary, journal_layout};
use super::metrics::Metrics;
use super::runner::{CHUNK_BYTES, CHUNK_REPORTS};
use super::takeup::{TakeUpError, take_up};
use super::trust;
use super::writer::{Commit, JournalWriter, Settled, WriteError};
use crate::core::carrier::{Item, read_record};
use crate::core::keyring::Keyring;
use crate::core::report::{Arrival, Delivery};
use crate::core::worker::{
    Event, FlushLimits, Intention, Message, Offset, Partition, Span, Worker,
};

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
    let mut shell = Shell::open(runtime, lake, cache_dir, settings)?;
    let ended = shell.run()?;
    Ok(Streamed { summary: shell.summary.clone(), commits: shell.writer.commits(), ended })
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
    gathered: Gathered,
    receipts: Option<Receipts>,
    /// Rows of the commit that was made last, until their receipts are sent.
    committed: Option<RecordBatch>,
    /// Last offset that the journal holds of each partition.
    durable: BTreeMap<Partition, Offset>,
    /// Offsets up to which the broker has the receipts.
    receipted: BTreeMap<Partition, Offset>,
    trust: Option<Follower>,
    trust_seen: Instant,
    book_seen: Instant,
    book_version: Option<u64>,
    take_up_due: bool,
    commit_timer: Option<HistogramTimer>,
    retry_at: Option<Instant>,
    backoff: Duration,
    started: Instant,
    /// When a message or an assignment came last.
    active: Instant,
    assigned_once: bool,
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
    fn open(
        runtime: &Handle,
        lake: &'a Lake,
        cache_dir: PathBuf,
        settings: &'a Settings<'a>,
    ) -> Result<Shell<'a>> {
        let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout()))?;
        let index = runtime.block_on(Index::open(&cache_dir, &journal))?;
        let topic_id = wait_for_topic(settings)?;
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
            gathered: Gathered::default(),
            receipts,
            committed: None,
            durable: BTreeMap::new(),
            receipted: BTreeMap::new(),
            trust: None,
            trust_seen: now,
            book_seen: now,
            book_version: None,
            take_up_due: true,
            commit_timer: None,
            retry_at: None,
            backoff: BACKOFF_FIRST,
            started: now,
            active: now,
            assigned_once: false,
            leave: false,
            summary: Summary::default(),
        };
        shell.open_trust()?;
        shell.load_keys()?;
        shell.consumer.subscribe(&[&settings.topic])?;
        tracing::info!(
            topic = settings.topic,
            topic_id = shell.topic_id,
            group = settings.group,
            lake = lake.location(),
            "the worker starts"
        );
        Ok(shell)
    }

    fn run(&mut self) -> Result<Ended> {
        let mut ended = Ended::Stopped;
        let mut stopping = false;
        while !self.leave {
            self.settings.health.turn();
            self.read_chunk()?;
            self.rebalances()?;
            self.settle(false)?;
            self.look_around()?;
            if !stopping && self.settings.stop.load(Ordering::Relaxed) {
                tracing::info!("the worker drains");
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
        Ok(ended)
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

    // --- Messages ---------------------------------------------------------------------------------

    /// Reads messages until a chunk is full or none waits, and makes rows of them.
    fn read_chunk(&mut self) -> Result<()> {
        let received_at = (self.settings.clock)();
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut taken: Vec<Message> = Vec::new();
        let mut last: HashMap<Partition, Offset> = HashMap::new();
        let mut bytes = 0;
        // Short while something is to be watched, long while nothing is.
        let mut wait = Duration::from_millis(if self.machine.is_idle() { 100 } else { 10 });
        while arrivals.len() < CHUNK_REPORTS && taken.len() < CHUNK_REPORTS && bytes < CHUNK_BYTES {
            let message = match self.consumer.poll(wait) {
                None => break,
                Some(Err(error)) => {
                    self.on_client_error(error)?;
                    break;
                }
                Some(Ok(message)) => message,
            };
            wait = Duration::ZERO;
            let (partition, offset) = (message.partition(), message.offset());
            self.settings.metrics.messages.inc();
            if !self.machine.wants(partition, offset)
                || last.get(&partition).is_some_and(|l| offset <= *l)
            {
                continue;
            }
            last.insert(partition, offset);
            let before = arrivals.len();
            self.read_message(&message, received_at, &mut arrivals);
            let of_message = arrivals[before..].iter().map(|a| a.raw.text.len()).sum();
            bytes += of_message;
            let rows = arrivals.len() - before;
            taken.push(Message { partition, offset, rows, bytes: of_message });
        }
        if taken.is_empty() {
            return Ok(());
        }
        self.active = Instant::now();
        self.gathered.take(
            &arrivals,
            &self.judging,
            self.writer.index(),
            self.writer.in_commit(),
        )?;
        self.handle(Event::Taken(taken))
    }

    fn read_message(
        &self,
        message: &BorrowedMessage<'_>,
        received_at: EpochSeconds,
        arrivals: &mut Vec<Arrival>,
    ) {
        let delivery = Arc::new(delivery_of(message));
        let payload = message.payload().unwrap_or_default();
        let limits = &self.judging.limits;
        let read = read_record(&self.settings.topic, payload, limits, &mut |item| {
            match item {
                Item::Report(mut raw) => {
                    raw.position.offset = u64::try_from(message.offset()).unwrap_or_default();
                    arrivals.push(Arrival {
                        raw,
                        delivery: Arc::clone(&delivery),
                        partition: Some(message.partition()),
                        received_at,
                    });
                }
                Item::Ignored { what, .. } => {
                    self.settings.metrics.ignored.inc();
                    tracing::info!(
                        partition = message.partition(),
                        offset = message.offset(),
                        what,
                        "a message without a report"
                    );
                }
            }
            true
        });
        debug_assert!(read.is_ok(), "bytes in memory can be read, and the sink never stops");
    }

    fn on_client_error(&mut self, error: KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            KafkaError::MessageConsumption(Code::AutoOffsetReset) => Err(self.gone()),
            KafkaError::MessageConsumption(
                code @ (Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed),
            ) => Err(WorkerError::Refused(code)),
            error @ KafkaError::MessageConsumptionFatal(_) => Err(error.into()),
            other => {
                // Brokers come and go; the client connects again by itself.
                tracing::warn!(error = %other, "kafka is out of reach or refuses");
                self.settings.health.set_ready(Some(format!("kafka: {other}")));
                Ok(())
            }
        }
    }

    /// Names the partition whose messages are gone.
    fn gone(&self) -> WorkerError {
        let topic = &self.settings.topic;
        for partition in self.machine.reading() {
            let held = self.runtime.block_on(self.writer.journal().held(&self.source(partition)));
            let held = held.ok().flatten();
            let marks = self.consumer.fetch_watermarks(topic, partition, Duration::from_secs(10));
            if let Ok((first, next)) = marks
                && held.map_or(0, |h| h + 1) != first
                && (held.is_none_or(|h| h + 1 < first || h + 1 > next))
            {
                let held = held.map_or_else(|| "none".to_owned(), |h| h.to_string());
                let topic = topic.clone();
                return WorkerError::Gone { topic, partition, held, first, next };
            }
        }
        WorkerError::Kafka(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))
    }

    // --- The machine ------------------------------------------------------------------------------

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
                self.consumer.incremental_assign(&self.positions(&behind)?)?;
                self.after_assignment();
            }
            Intention::Seek(behind) => {
                self.send_missing_receipts(&behind)?;
                self.consumer.seek_partitions(self.positions(&behind)?, BACKOFF_MAX)?;
            }
            Intention::Unassign(partitions) => {
                self.consumer.incremental_unassign(&self.list(&partitions))?;
                for p in &partitions {
                    let _ = self.settings.metrics.lag.remove_label_values(&[&p.to_string()]);
                }
                self.after_assignment();
            }
            Intention::Pause => self.pause(true)?,
            Intention::Resume => self.pause(false)?,
            Intention::Commit(spans) => self.start_commit(&spans)?,
            Intention::Retry => self.retry_at = Some(Instant::now() + self.backoff),
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

    fn pause(&self, pause: bool) -> Result<()> {
        self.settings.metrics.paused.set(i64::from(pause));
        let list = self.list(&self.machine.reading());
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        Ok(done?)
    }

    // --- Positions --------------------------------------------------------------------------------

    /// Name of a partition in the journal's log.
    fn source(&self, partition: Partition) -> String {
        format!("kafka:{}:{}:{partition}", self.settings.topic, self.topic_id)
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

    fn positions(&self, behind: &[(Partition, Option<Offset>)]) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (p, held) in behind {
            let at = held.map_or(KafkaOffset::Beginning, |h| KafkaOffset::Offset(h + 1));
            list.add_partition_offset(&self.settings.topic, *p, at)?;
        }
        Ok(list)
    }

    // --- Commits ----------------------------------------------------------------------------------

    fn start_commit(&mut self, spans: &[Span]) -> Result<()> {
        let fences = spans
            .iter()
            .map(|span| Fence {
                source: self.source(span.partition),
                stands_on: span.stands_on,
                last: span.last,
            })
            .collect();
        let marks = spans
            .iter()
            .filter_map(|span| {
                let sent = self.receipted.get(&span.partition)?;
                Some((self.receipts_source(span.partition), *sent))
            })
            .collect();
        let batch = self.gathered.finish()?;
        self.commit_timer = Some(self.settings.metrics.commit_seconds.start_timer());
        Ok(self.writer.start(Commit { batch, fences, marks }, &self.judging)?)
    }

    /// Takes the answer to the commit under way, if there is one or `wait` is set.
    fn settle(&mut self, wait: bool) -> Result<()> {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            if let Err(error) = self.writer.retry(&self.judging) {
                self.commit_failed(&error.into());
            }
        }
        if !wait && !self.writer.is_answered() {
            return Ok(());
        }
        let conflicts = self.writer.conflicts();
        let Some(settled) = self.writer.settle(&self.judging)? else { return Ok(()) };
        let metrics = &self.settings.metrics;
        metrics.commit_conflicts.inc_by(self.writer.conflicts() - conflicts);
        match settled {
            Settled::Committed(batch) => {
                drop(self.commit_timer.take());
                metrics.commits.inc();
                metrics.last_commit.set((self.settings.clock)());
                metrics.count(&batch.summary);
                self.summary.add(&batch.summary);
                (self.settings.progress)(self.summary.received);
                self.committed = Some(batch.rows);
                self.backoff = BACKOFF_FIRST;
                self.settings.health.set_ready(None);
                self.handle(Event::Committed)
            }
            Settled::Overtaken => {
                if let Some(timer) = self.commit_timer.take() {
                    timer.stop_and_discard();
                }
                metrics.commits_overtaken.inc();
                tracing::info!("another worker went on with a partition; reading it anew");
                self.handle(Event::Overtaken)
            }
            Settled::Failed(error) => {
                self.commit_failed(&error.into());
                self.handle(Event::Failed)
            }
        }
    }

    fn commit_failed(&mut self, error: &WorkerError) {
        self.settings.metrics.commit_failures.inc();
        tracing::warn!(error = chain(error), "a commit failed and is tried again");
        self.settings.health.set_ready(Some(format!("the lake: {error}")));
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Receipts first, then the group's offsets: whoever reads on behind the group's offset need not
    /// send the receipts before it again.
    fn acknowledge(&mut self, offsets: &[(Partition, Offset)]) -> Result<()> {
        self.durable.extend(offsets.iter().copied());
        failpoint::here("before-receipts");
        let rows = self.committed.take();
        if let (Some(rows), true) = (&rows, self.receipts.is_some()) {
            let sent = self.patiently(|shell| shell.send(rows))?;
            self.settings.metrics.receipts.inc_by(sent);
        }
        failpoint::here("after-receipts");
        self.receipted.extend(offsets.iter().copied());
        let reading: BTreeSet<Partition> = self.machine.reading().into_iter().collect();
        let mut list = TopicPartitionList::new();
        for (p, last) in offsets.iter().filter(|(p, _)| reading.contains(p)) {
            list.add_partition_offset(&self.settings.topic, *p, KafkaOffset::Offset(last + 1))?;
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            // Nothing hangs on it but tools that show the lag.
            tracing::debug!(%error, "the group does not take the offsets");
        }
        failpoint::here("after-group-offsets");
        Ok(())
    }

    fn send(&self, rows: &RecordBatch) -> Result<u64> {
        let Some(receipts) = &self.receipts else { return Ok(0) };
        receipts
            .send(rows)
            .inspect_err(|_| self.settings.metrics.receipt_failures.inc())
            .map_err(Into::into)
    }

    /// Sends the receipts that whoever read before may not have sent.
    fn send_missing_receipts(&mut self, behind: &[(Partition, Option<Offset>)]) -> Result<()> {
        if self.receipts.is_none() {
            return Ok(());
        }
        let held: Vec<Partition> =
            behind.iter().filter(|(_, held)| held.is_some()).map(|(p, _)| *p).collect();
        if held.is_empty() {
            return Ok(());
        }
        let told = self.consumer.committed_offsets(self.list(&held), BACKOFF_MAX);
        let told: BTreeMap<Partition, Offset> = match &told {
            Ok(list) => list
                .elements()
                .iter()
                .filter_map(|e| Some((e.partition(), e.offset().to_raw().filter(|o| *o > 0)? - 1)))
                .collect(),
            Err(_) => BTreeMap::new(),
        };
        for (p, up_to) in behind.iter().filter_map(|(p, held)| Some((*p, (*held)?))) {
            let journal = self.writer.journal().clone();
            let marked = self.runtime.block_on(journal.held(&self.receipts_source(p)))?;
            let known = marked.max(told.get(&p).copied()).max(self.receipted.get(&p).copied());
            if known.is_none_or(|known| known < up_to) {
                let topic = self.settings.topic.clone();
                let sent = self.patiently(|shell| {
                    let Some(receipts) = &shell.receipts else { return Ok(0) };
                    let sending = receipts.send_again(&journal, &topic, p, known, up_to);
                    Ok(shell.runtime.block_on(sending)?)
                })?;
                tracing::info!(partition = p, sent, "sent receipts that may have been missing");
                self.settings.metrics.receipts.inc_by(sent);
            }
            self.receipted.insert(p, up_to);
        }
        Ok(())
    }

    // --- Trust codes, the book, lag ---------------------------------------------------------------

    fn open_trust(&mut self) -> Result<()> {
        let Some(topic) = &self.settings.trust_topic else { return Ok(()) };
        let settings = self.settings;
        self.trust =
            Follower::open(&settings.connection, &settings.group, topic, self.lake, &self.runtime)?;
        if let Some(trust) = &mut self.trust {
            let turn = || {
                settings.health.turn();
                !settings.stop.load(Ordering::Relaxed)
            };
            let step = trust.catch_up(&self.runtime, (settings.clock)(), &turn)?;
            count_trust(&settings.metrics, step);
        }
        Ok(())
    }

    fn load_keys(&mut self) -> Result<()> {
        let keys = self.patiently(|shell| {
            let book = shell.runtime.block_on(load_book(shell.lake, None))?;
            let received = shell.runtime.block_on(trust::load(shell.lake))?;
            Ok((book.version, [book.book.trust_codes, received].concat()))
        })?;
        self.book_version = keys.0;
        self.judging.keyring = Arc::new(Keyring::new(&keys.1));
        Ok(())
    }

    /// What is looked at now and then.
    fn look_around(&mut self) -> Result<()> {
        if self.trust_seen.elapsed() >= TRUST_EVERY {
            self.trust_seen = Instant::now();
            self.update_lag();
            self.check_topic()?;
            self.follow_trust()?;
        }
        if self.book_seen.elapsed() >= BOOK_EVERY {
            self.book_seen = Instant::now();
            if self.trust.is_none() {
                self.open_trust()?;
            }
            let version = self.runtime.block_on(lake::book_version(self.lake));
            if version.is_ok_and(|version| version != self.book_version) {
                tracing::info!("the book changed");
                self.load_keys()?;
                self.take_up_due = true;
            }
        }
        if self.take_up_due {
            self.take_up()?;
        }
        Ok(())
    }

    fn follow_trust(&mut self) -> Result<()> {
        let now = (self.settings.clock)();
        let runtime = self.runtime.clone();
        let Some(trust) = &mut self.trust else { return Ok(()) };
        let step = match trust.step(&runtime, now, Duration::ZERO) {
            Ok(step) => step,
            Err(error) if error.retry() => {
                tracing::warn!(error = chain(&error), "trust codes cannot be kept now");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        count_trust(&self.settings.metrics, step);
        if step.taken > 0 {
            self.load_keys()?;
            self.take_up_due = true;
        }
        Ok(())
    }

    /// Judges reports again that waited for a trust code (R7.4).
    fn take_up(&mut self) -> Result<()> {
        // It commits to the journal as well, so the commit under way comes first.
        self.settle(true)?;
        if self.writer.in_commit().is_some() {
            return Ok(());
        }
        self.take_up_due = false;
        let reasons = BTreeSet::from([Reason::TrustUnknown]);
        let runtime = self.runtime.clone();
        let judging = self.judging.clone();
        let found = self.patiently(|shell| {
            let (journal, index) = shell.writer.parts();
            Ok(take_up(&runtime, journal, index, &judging, Some(&reasons))?)
        })?;
        if found.changed() > 0 {
            tracing::info!(
                accepted = found.accepted,
                duplicate = found.duplicate,
                other_reason = found.other_reason,
                "suspended reports taken up"
            );
            self.settings.metrics.taken_up.inc_by(found.changed());
        }
        Ok(())
    }

    /// Lag is what is not durable yet, not what is not read yet.
    fn update_lag(&self) {
        let ends = self.consumer.context().ends();
        for p in self.machine.reading() {
            if let Some(end) = ends.get(&p) {
                let next = self.durable.get(&p).map_or(0, |held| held + 1);
                let lag = self.settings.metrics.lag.with_label_values(&[&p.to_string()]);
                lag.set((end - next).max(0));
            }
        }
    }

    fn check_topic(&self) -> Result<()> {
        let topic = &self.settings.topic;
        match self.consumer.context().topic_ids().remove(topic) {
            Some(change) if change.made_anew() => Err(WorkerError::MadeAnew {
                topic: topic.clone(),
                from: change.from,
                to: change.to,
            }),
            _ => Ok(()),
        }
    }
}

/// Waits until the topic is there, and gives its id; blank where brokers have none.
fn wait_for_topic(settings: &Settings<'_>) -> Result<String> {
    let started = Instant::now();
    loop {
        settings.health.turn();
        let error = match settings.connection.topic_id(&settings.topic, Duration::from_secs(5)) {
            Ok(id) => return Ok(id.unwrap_or_default()),
            Err(error) => error,
        };
        if let TopicError::Refused(code) = error {
            return Err(WorkerError::Refused(code));
        }
        tracing::warn!(%error, topic = settings.topic, "waiting for the topic");
        settings.health.set_ready(Some(error.to_string()));
        if started.elapsed() > TOPIC_WAIT_MAX || settings.stop.load(Ordering::Relaxed) {
            return Err(error.into());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// What the collector said in the headers (contract 1.4).
fn delivery_of(message: &BorrowedMessage<'_>) -> Delivery {
    let mut delivery = Delivery::default();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let slot = match header.key {
            "slp-collector" => &mut delivery.collector,
            "slp-smart-account" => &mut delivery.smart_account,
            "slp-virtual-account" => &mut delivery.virtual_account,
            _ => continue,
        };
        // Of a header that comes twice the last counts, as in Kafka's own clients.
        *slot = header.value.map(|value| String::from_utf8_lossy(value).into_owned());
    }
    delivery
}

fn count_trust(metrics: &Metrics, step: follower::Step) {
    metrics.trust_codes.with_label_values(&["taken"]).inc_by(step.taken);
    metrics.trust_codes.with_label_values(&["refused"]).inc_by(step.refused);
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
