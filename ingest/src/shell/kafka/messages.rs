//! Messages, made into rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use schemas::period::EpochSeconds;

use super::{Result, Shell, WorkerError};
use crate::core::carrier::{Item, read_record};
use crate::core::report::{Arrival, Delivery};
use crate::core::worker::{Event, Message, Offset, Partition};
use crate::shell::documents::{self, Document};
use crate::shell::runner::{CHUNK_BYTES, CHUNK_REPORTS};

impl Shell<'_> {
    /// Reads messages until a chunk is full or none waits, and makes rows of them.
    pub(super) fn read_chunk(&mut self) -> Result<()> {
        let received_at = (self.settings.clock)();
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut documents: Vec<Document> = Vec::new();
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
            let beside = self.read_message(&message, received_at, &mut arrivals);
            bytes += beside.iter().map(|document| document.bytes.len()).sum::<usize>();
            documents.extend(beside);
            let of_message = arrivals[before..].iter().map(|a| a.raw.text.len()).sum();
            bytes += of_message;
            let rows = arrivals.len() - before;
            taken.push(Message { partition, offset, rows, bytes: of_message });
        }
        if taken.is_empty() {
            return Ok(());
        }
        // Before the commit that moves the offsets: what is not kept is read again.
        self.runtime.block_on(documents::keep(self.lake, &documents))?;
        self.active = Instant::now();
        self.gathered.take(
            &arrivals,
            &self.judging,
            self.writer.index(),
            self.writer.in_commit(),
        )?;
        self.handle(Event::Taken(taken))
    }

    pub(super) fn read_message(
        &self,
        message: &BorrowedMessage<'_>,
        received_at: EpochSeconds,
        arrivals: &mut Vec<Arrival>,
    ) -> Vec<Document> {
        let mut documents = Vec::new();
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
                Item::Ignored { what, kept, .. } => {
                    self.settings.metrics.ignored.inc();
                    if !kept.is_empty() {
                        documents.push(Document {
                            received_at,
                            source: self.settings.topic.clone(),
                            collector: delivery.collector.clone().unwrap_or_default(),
                            bytes: kept,
                        });
                    }
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
        documents
    }

    pub(super) fn on_client_error(&mut self, error: KafkaError) -> Result<()> {
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
    pub(super) fn gone(&self) -> WorkerError {
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
}

/// What the collector said in the headers (contract 1.4).
fn delivery_of(message: &BorrowedMessage<'_>) -> Delivery {
    let mut delivery = Delivery::default();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let slot = match header.key {
            "slp-collector" => &mut delivery.collector,
            "slp-smart-account" => &mut delivery.smart_account,
            "slp-virtual-account" => &mut delivery.virtual_account,
            "slp-collector-version" => &mut delivery.collector_version,
            "slp-collection" => &mut delivery.collection,
            "slp-transport" => &mut delivery.transport,
            _ => continue,
        };
        // Of a header that comes twice the last counts, as in Kafka's own clients.
        *slot = header.value.map(|value| String::from_utf8_lossy(value).into_owned());
    }
    delivery
}
