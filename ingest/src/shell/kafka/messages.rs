//! Messages, made into rows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use schemas::period::EpochSeconds;

use super::{Halt, Result, Shell, WorkerError};
use crate::core::carrier::{Block, Found, Sink, read_record};
use crate::core::report::{Arrival, Delivery, RawReport};
use crate::core::worker::{Event, Message, Offset, Partition};
use crate::shell::documents::{self, Document};
use crate::shell::runner::{CHUNK_BYTES, CHUNK_REPORTS};

/// Messages that are read while those before them are judged.
const PART_MESSAGES: usize = 1024;

/// What is read in one turn of the loop.
struct Chunk {
    received_at: EpochSeconds,
    /// For how long the next message is waited for.
    wait: Duration,
    taken: Vec<Message>,
    documents: Vec<Document>,
    last: HashMap<Partition, Offset>,
    reports: usize,
    reports_max: usize,
    bytes: usize,
    /// No message waits.
    dry: bool,
    /// What the client said instead of giving a message.
    error: Option<KafkaError>,
}

impl Chunk {
    fn is_over(&self) -> bool {
        self.dry
            || self.reports >= self.reports_max
            || self.taken.len() >= CHUNK_REPORTS
            || self.bytes >= CHUNK_BYTES
    }
}

impl Shell<'_> {
    /// Reads messages until a chunk is full or none waits, and makes rows of them: one part is judged
    /// while the next is read.
    pub(super) fn read_chunk(&mut self) -> Result<()> {
        // Short while something is to be watched, long while nothing is.
        let wait = Duration::from_millis(if self.machine.is_idle() { 100 } else { 10 });
        let mut chunk = Chunk {
            received_at: (self.settings.clock)(),
            wait,
            taken: Vec::new(),
            documents: Vec::new(),
            last: HashMap::new(),
            reports: 0,
            // Not much more than is wanted in one commit.
            reports_max: CHUNK_REPORTS.min(self.settings.flush.rows_max),
            bytes: 0,
            dry: false,
            error: None,
        };
        let mut block = std::mem::take(&mut self.block);
        let mut gathered = std::mem::take(&mut self.gathered);
        let mut part = self.read_part(&mut chunk, &mut block);
        while !part.is_empty() {
            let (index, in_commit) = (self.writer.index(), self.writer.in_commit());
            let next = || self.read_part(&mut chunk, &mut block);
            part = gathered.take_beside(&part, &self.judging, index, in_commit, next)?;
        }
        (self.block, self.gathered) = (block, gathered);
        let error = chunk.error.take();
        if !chunk.taken.is_empty() {
            self.take_chunk(chunk)?;
        }
        error.map_or(Ok(()), |error| self.on_client_error(error))
    }

    fn take_chunk(&mut self, chunk: Chunk) -> Result<()> {
        // Before the commit that moves the offsets: what is not kept is read again.
        self.patiently(|shell| {
            Ok(shell.runtime.block_on(documents::keep(shell.lake, &chunk.documents))?)
        })?;
        self.active = Instant::now();
        self.handle(Event::Taken(chunk.taken))
    }

    /// The next reports of a chunk; none if it is over.
    fn read_part(&self, chunk: &mut Chunk, block: &mut Block) -> Vec<Arrival> {
        let mut deliveries: Vec<Arc<Delivery>> = Vec::new();
        let before = chunk.taken.len();
        while !chunk.is_over()
            && (block.is_empty() || chunk.taken.len() - before < PART_MESSAGES)
            && block.len() < PART_MESSAGES
        {
            let message = match self.consumer.poll(chunk.wait) {
                Some(Ok(message)) => message,
                none => {
                    chunk.dry = true;
                    chunk.error = none.and_then(std::result::Result::err);
                    break;
                }
            };
            chunk.wait = Duration::ZERO;
            let (partition, offset) = (message.partition(), message.offset());
            self.settings.metrics.messages.inc();
            if !self.machine.wants(partition, offset)
                || chunk.last.get(&partition).is_some_and(|l| offset <= *l)
            {
                continue;
            }
            chunk.last.insert(partition, offset);
            let (reports, text) = (block.len(), block.bytes());
            let delivery = delivery_of(&message, deliveries.last());
            let collector = delivery.collector.as_deref().unwrap_or_default();
            let beside = self.read_message(&message, collector, chunk.received_at, block);
            deliveries.push(delivery);
            chunk.bytes += beside.iter().map(|document| document.bytes.len()).sum::<usize>();
            chunk.documents.extend(beside);
            let (rows, bytes) = (block.len() - reports, block.bytes() - text);
            chunk.reports += rows;
            chunk.bytes += bytes;
            chunk.taken.push(Message { partition, offset, rows, bytes });
        }
        let received_at = chunk.received_at;
        let mut arrivals = Vec::with_capacity(block.len());
        let mut reports = block.take().into_iter();
        for (message, delivery) in chunk.taken[before..].iter().zip(&deliveries) {
            arrivals.extend(reports.by_ref().take(message.rows).map(|mut raw: RawReport| {
                raw.position.offset = u64::try_from(message.offset).unwrap_or_default();
                let partition = Some(message.partition);
                Arrival { raw, delivery: Arc::clone(delivery), partition, received_at }
            }));
        }
        arrivals
    }

    /// Reads the reports of a message into a block; gives the documents without a report.
    fn read_message(
        &self,
        message: &BorrowedMessage<'_>,
        collector: &str,
        received_at: EpochSeconds,
        block: &mut Block,
    ) -> Vec<Document> {
        let payload = message.payload().unwrap_or_default();
        let limits = &self.judging.limits;
        let mut reading = Reading { block, without_report: Vec::new() };
        let read = read_record(&self.settings.topic, payload, limits, &mut reading);
        debug_assert!(read.is_ok(), "bytes in memory can be read, and the sink never stops");
        let mut documents = Vec::new();
        for (what, bytes) in reading.without_report {
            self.settings.metrics.ignored.inc();
            let (partition, offset) = (message.partition(), message.offset());
            tracing::info!(partition, offset, what, "a message without a report");
            if !bytes.is_empty() {
                let source = self.settings.topic.clone();
                let collector = collector.to_owned();
                documents.push(Document { received_at, source, collector, bytes });
            }
        }
        documents
    }

    fn on_client_error(&mut self, error: KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            KafkaError::MessageConsumption(Code::AutoOffsetReset) => {
                let reading = self.machine.reading();
                self.halt.get_or_insert(Halt::Gone(reading));
                Ok(())
            }
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

    /// Names the partition whose messages are gone, of those that were read.
    pub(super) fn gone(&self, reading: &[Partition]) -> WorkerError {
        let topic = &self.settings.topic;
        for &partition in reading {
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
}

/// What a message holds.
struct Reading<'a> {
    block: &'a mut Block,
    /// What they are, and what is kept of them.
    without_report: Vec<(String, Vec<u8>)>,
}

impl Sink for Reading<'_> {
    fn report(&mut self, found: Found<'_>) -> bool {
        self.block.push(found);
        true
    }

    fn ignored(&mut self, _source: String, what: String, kept: Vec<u8>) -> bool {
        self.without_report.push((what, kept));
        true
    }
}

/// Headers in which the producer says what the collector said (contract 1.4).
const HEADERS: [&str; 6] = [
    "slp-collector",
    "slp-smart-account",
    "slp-virtual-account",
    "slp-collector-version",
    "slp-collection",
    "slp-transport",
];

/// What the headers say. Messages that follow each other mostly say the same: then it is that of the last.
fn delivery_of(message: &BorrowedMessage<'_>, last: Option<&Arc<Delivery>>) -> Arc<Delivery> {
    let mut said = [const { None::<Cow<'_, str>> }; HEADERS.len()];
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        // Of a header that comes twice the last counts, as in Kafka's own clients.
        if let Some(slot) = HEADERS.iter().position(|name| *name == header.key) {
            said[slot] = header.value.map(String::from_utf8_lossy);
        }
    }
    if let Some(last) = last {
        let held = [
            &last.collector,
            &last.smart_account,
            &last.virtual_account,
            &last.collector_version,
            &last.collection,
            &last.transport,
        ];
        if held.iter().zip(&said).all(|(held, said)| held.as_deref() == said.as_deref()) {
            return Arc::clone(last);
        }
    }
    let [collector, smart_account, virtual_account, collector_version, collection, transport] =
        said.map(|said| said.map(Cow::into_owned));
    Arc::new(Delivery {
        collector,
        smart_account,
        virtual_account,
        collector_version,
        collection,
        transport,
    })
}
