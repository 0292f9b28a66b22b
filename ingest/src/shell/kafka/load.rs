//! Messages into a topic: for made-up fleets, tests and benches.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::runtime::Handle;

use super::client::{Connection, Context, DeliveryCount, enqueue};
use super::topics::ensure_topic;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("kafka failed")]
    Kafka(#[from] KafkaError),
    #[error("the topic '{topic}' is not there and cannot be made: {why}")]
    Topic { topic: String, why: String },
    #[error("{missing} of {sent} messages were not taken by the broker: {why}")]
    Refused { missing: u64, sent: u64, why: String },
}

/// A producer that counts what the broker has taken.
pub struct Loader {
    producer: ThreadedProducer<Context>,
    topic: String,
    transactional: bool,
    count: Arc<DeliveryCount>,
    sent: u64,
}

impl Loader {
    /// Opens a producer, and makes the topic if it is not there; with a name for its transactions, everything is sent within them.
    ///
    /// # Errors
    /// If the client refuses its settings, or the brokers its transactions.
    pub fn open(
        connection: &Connection,
        topic: &str,
        partitions: i32,
        transactional_id: Option<&str>,
        runtime: &Handle,
    ) -> Result<Loader, LoadError> {
        ensure_topic(connection, topic, partitions, runtime)
            .map_err(|why| LoadError::Topic { topic: topic.to_owned(), why })?;
        let (mut config, context) = connection.producer();
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let producer = ThreadedProducer::from_config_and_context(&config, context)?;
        if transactional_id.is_some() {
            producer.init_transactions(TIMEOUT)?;
        }
        Ok(Loader {
            producer,
            topic: topic.to_owned(),
            transactional: transactional_id.is_some(),
            count: Arc::default(),
            sent: 0,
        })
    }

    /// Sends a batch in one transaction; first, if `aborted`, in one that is aborted.
    ///
    /// # Errors
    /// If the brokers refuse it.
    pub fn send(&mut self, batch: &[Record], aborted: bool) -> Result<(), LoadError> {
        if !self.transactional {
            return self.send_all(batch);
        }
        if aborted {
            self.producer.begin_transaction()?;
            self.send_all(batch)?;
            self.producer.flush(TIMEOUT)?;
            self.producer.abort_transaction(TIMEOUT)?;
        }
        self.producer.begin_transaction()?;
        self.send_all(batch)?;
        Ok(self.producer.commit_transaction(TIMEOUT)?)
    }

    fn send_all(&mut self, batch: &[Record]) -> Result<(), LoadError> {
        for record in batch {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut message = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&self.count))
                .payload(record.value.as_slice())
                .headers(headers);
            if let Some(key) = &record.key {
                message = message.key(key);
            }
            enqueue(&self.producer, message)?;
            self.sent += 1;
        }
        Ok(())
    }

    /// Waits until the broker has all messages.
    ///
    /// # Errors
    /// If it did not take some of them.
    pub fn finish(self) -> Result<u64, LoadError> {
        let answered = self.count.wait_for(self.sent, TIMEOUT);
        if answered.delivered == self.sent {
            return Ok(self.sent);
        }
        Err(LoadError::Refused {
            missing: self.sent - answered.delivered,
            sent: self.sent,
            why: answered.first_error.unwrap_or_else(|| "no answer in time".to_owned()),
        })
    }
}

/// A message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `None`: any partition.
    pub key: Option<String>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
}
