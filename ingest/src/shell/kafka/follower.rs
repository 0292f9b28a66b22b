//! The topic of trust codes, followed by every worker from its start.
//!
//! Each worker needs all of them, so nobody shares partitions here. What a worker reads it writes to
//! the lake behind a fence; of several workers that read the same message one is first, and the others
//! find it there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lake::{Appended, Fence, Lake, Table};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;

use super::WorkerError;
use super::client::{Connection, Context};
use super::topics::{TopicError, metadata_of, positions_behind, source_of};
use crate::shell::trust::{self, Received, read_message, rows_of};

/// Messages that are committed together.
const BATCH_MAX: usize = 1000;
/// How long a worker waits at its start until it has read the topic to its end.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);

pub struct Follower {
    topic: String,
    topic_id: String,
    consumer: BaseConsumer<Context>,
    table: Table,
    /// Last offset that the lake holds of each partition.
    held: BTreeMap<i32, Option<i64>>,
    at_end: BTreeSet<i32>,
    /// Messages that were read and are not in the lake yet: the client does not read them again.
    unkept: Vec<Received>,
}

/// What a step brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub taken: u64,
    pub refused: u64,
}

impl Follower {
    /// Begins to follow a topic; `None` if it is not there.
    ///
    /// # Errors
    /// If the brokers or the lake cannot be reached.
    pub fn open(
        connection: &Connection,
        group: &str,
        topic: &str,
        lake: &Lake,
        runtime: &Handle,
    ) -> Result<Option<Follower>, WorkerError> {
        let topic_id = match connection.topic_id(topic, Duration::from_secs(10)) {
            Ok(id) => id.unwrap_or_default(),
            Err(TopicError::NotThere(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let consumer = connection.follow(&format!("{group}-trust"))?;
        let metadata = metadata_of(&consumer, topic, Duration::from_secs(10))?;
        let partitions: Vec<i32> = metadata
            .topics()
            .first()
            .map(|t| t.partitions().iter().map(|p| p.id()).collect())
            .unwrap_or_default();
        let table = runtime.block_on(lake.ensure(schemas::trust::TABLE, &trust::layout()))?;
        let mut follower = Follower {
            topic: topic.to_owned(),
            topic_id,
            consumer,
            table,
            held: partitions.iter().map(|p| (*p, None)).collect(),
            at_end: BTreeSet::new(),
            unkept: Vec::new(),
        };
        follower.read_fences(runtime)?;
        follower.begin()?;
        Ok(Some(follower))
    }

    fn source(&self, partition: i32) -> String {
        source_of(&self.topic, &self.topic_id, partition)
    }

    fn read_fences(&mut self, runtime: &Handle) -> Result<(), WorkerError> {
        let partitions: Vec<i32> = self.held.keys().copied().collect();
        for p in partitions {
            let held = runtime.block_on(self.table.held(&self.source(p)))?;
            self.held.insert(p, held);
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), WorkerError> {
        let list = positions_behind(&self.topic, self.held.iter().map(|(p, held)| (*p, *held)))?;
        Ok(self.consumer.assign(&list)?)
    }

    /// Reads until the end of the topic, so that no report is judged without a code that was there
    /// before it.
    ///
    /// # Errors
    /// If the brokers or the lake fail for good.
    pub fn catch_up(
        &mut self,
        runtime: &Handle,
        now: EpochSeconds,
        turn: &dyn Fn() -> bool,
    ) -> Result<Step, WorkerError> {
        let started = Instant::now();
        let mut total = Step::default();
        while self.at_end.len() < self.held.len() && started.elapsed() < CATCH_UP_MAX && turn() {
            let step = self.step(runtime, now, Duration::from_millis(100))?;
            total.taken += step.taken;
            total.refused += step.refused;
        }
        if self.at_end.len() < self.held.len() {
            tracing::warn!(topic = self.topic, "the trust codes are not read to their end yet");
        }
        Ok(total)
    }

    /// Takes in what came since.
    ///
    /// # Errors
    /// If the lake fails, or the client for good.
    pub fn step(
        &mut self,
        runtime: &Handle,
        now: EpochSeconds,
        wait: Duration,
    ) -> Result<Step, WorkerError> {
        let mut wait = wait;
        while self.unkept.len() < BATCH_MAX {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    // A tombstone takes nothing back: what was signed stays verifiable (R7.2).
                    if let Some(value) = message.payload() {
                        self.unkept.push(read_message(
                            message.key(),
                            value,
                            message.partition(),
                            message.offset(),
                        ));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(p))) => {
                    self.at_end.insert(p);
                }
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset))) => {
                    // The topic was cut. All that it holds is read again; what is known is found.
                    tracing::warn!(topic = self.topic, "trust codes are read from the start again");
                    self.held.values_mut().for_each(|held| *held = None);
                    self.begin()?;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.topic, "trust codes cannot be read now");
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        if self.unkept.is_empty() {
            return Ok(Step::default());
        }
        // Where the lake refuses them now, they are kept by a later step.
        let mut messages = std::mem::take(&mut self.unkept);
        let kept = self.keep(&mut messages, runtime, now);
        if kept.is_err() {
            self.unkept = messages;
        }
        kept
    }

    /// True if the topic got partitions, or was made anew, so that it has to be opened again. False where the brokers
    /// do not answer, and while messages wait that the lake did not take yet.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        if !self.unkept.is_empty() {
            return false;
        }
        // Without polling, as `metadata_of` does: a message that came then would be lost.
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), Duration::from_secs(1));
        let partitions = metadata.ok().and_then(|m| Some(m.topics().first()?.partitions().len()));
        let learned = self.consumer.context().topic_ids().remove(&self.topic);
        let is_another =
            learned.is_some_and(|id| !self.topic_id.is_empty() && id.to != self.topic_id);
        is_another || partitions.is_some_and(|partitions| partitions > self.held.len())
    }

    /// Writes messages to the lake, each once, whoever is first.
    fn keep(
        &mut self,
        messages: &mut Vec<Received>,
        runtime: &Handle,
        now: EpochSeconds,
    ) -> Result<Step, WorkerError> {
        let refused = messages.iter().filter(|m| m.fault.is_some()).count() as u64;
        for message in messages.iter().filter(|m| m.fault.is_some()) {
            tracing::warn!(
                partition = message.partition,
                offset = message.offset,
                fault = message.fault,
                "a message of the trust topic is no trust code"
            );
        }
        let step = Step { taken: messages.len() as u64 - refused, refused };
        loop {
            let held = |p: i32| self.held.get(&p).copied().flatten();
            messages.retain(|m| held(m.partition).is_none_or(|h| m.offset > h));
            if messages.is_empty() {
                return Ok(step);
            }
            let mut last: BTreeMap<i32, i64> = BTreeMap::new();
            for m in &*messages {
                last.insert(m.partition, m.offset);
            }
            let fences: Vec<Fence> = last
                .iter()
                .map(|(p, last)| Fence {
                    source: self.source(*p),
                    stands_on: held(*p),
                    last: *last,
                })
                .collect();
            let rows = rows_of(messages, &self.topic, now)?;
            let written = runtime.block_on(self.table.write(&[rows]))?;
            match runtime.block_on(self.table.commit_once(&written, &fences, &[]))? {
                Appended::Committed(_) => {
                    self.held.extend(last.into_iter().map(|(p, o)| (p, Some(o))));
                    return Ok(step);
                }
                Appended::Stale | Appended::Overtaken => {
                    runtime.block_on(self.table.refresh())?;
                    self.read_fences(runtime)?;
                }
            }
        }
    }
}
