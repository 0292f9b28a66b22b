//! What the brokers say of topics, and topics that are made.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};
use tokio::runtime::Handle;

use super::client::{Connection, Context};
use crate::core::worker::{Offset, Partition};

/// Name of a partition in a table's log: another topic under the same name has another.
#[must_use]
pub fn source_of(topic: &str, topic_id: &str, partition: Partition) -> String {
    format!("kafka:{topic}:{topic_id}:{partition}")
}

/// Longest name of a topic.
const NAME_MAX: usize = 249;

/// # Errors
/// If no topic can have this name, by Kafka's own rule.
pub fn check_topic(name: &str) -> Result<(), String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c);
    let fits = (1..=NAME_MAX).contains(&name.len()) && name != "." && name != "..";
    if fits && name.chars().all(is_legal) {
        return Ok(());
    }
    Err(format!(
        "'{}' is no name of a topic: 1 to {NAME_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'",
        name.escape_debug()
    ))
}

/// Where to read on in partitions: behind what is held, or from the first message.
///
/// # Errors
/// If an offset is none, which would be a bug.
pub fn positions_behind(
    topic: &str,
    held: impl IntoIterator<Item = (Partition, Option<Offset>)>,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (partition, held) in held {
        let at = held.map_or(KafkaOffset::Beginning, |h| KafkaOffset::Offset(h + 1));
        list.add_partition_offset(topic, partition, at)?;
    }
    Ok(list)
}

impl Connection {
    /// The id that the broker gave to a topic, so that one made anew under the same name is told
    /// apart. `None` where the brokers have no such ids.
    ///
    /// librdkafka knows the id and has no call for it that needs no unsafe code; it writes it to its
    /// log when it learns of it.
    ///
    /// # Errors
    /// If the brokers cannot be reached in time, or do not know the topic.
    pub fn topic_id(&self, topic: &str, timeout: Duration) -> Result<Option<String>, TopicError> {
        let mut config = self.config.clone();
        config.set("debug", "topic").set_log_level(RDKafkaLogLevel::Debug);
        let context = Context::new(self.token_file.clone());
        let client =
            BaseConsumer::from_config_and_context(&config, context).map_err(TopicError::Client)?;
        metadata_of(&client, topic, timeout)?;
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            client.poll(Duration::from_millis(20));
            if let Some(change) = client.context().topic_ids().remove(topic) {
                return Ok(Some(change.to));
            }
        }
        Ok(None)
    }
}

/// Why nothing is known of a topic.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    #[error("the topic '{0}' is not there; make it, or name another")]
    NotThere(String),
    #[error("the broker refuses this worker: {0}")]
    Refused(RDKafkaErrorCode),
    #[error("the brokers are out of reach: {0}")]
    OutOfReach(String),
    #[error("the Kafka client refuses its settings")]
    Client(#[source] KafkaError),
}

/// What the brokers say of a topic that is there.
///
/// The client is polled in between: it asks for its OAUTHBEARER token, and tells what is wrong with a
/// connection, only then.
///
/// # Errors
/// If the topic is not there, or the brokers do not answer in time.
pub fn metadata_of(
    client: &BaseConsumer<Context>,
    topic: &str,
    timeout: Duration,
) -> Result<Metadata, TopicError> {
    use RDKafkaErrorCode as Code;
    let started = Instant::now();
    loop {
        // Messages cannot come: nothing is assigned yet.
        client.poll(Duration::from_millis(50));
        let error = match client.fetch_metadata(Some(topic), Duration::from_secs(1)) {
            Err(error) => error.to_string(),
            Ok(metadata) => match metadata.topics().first().map(|t| t.error().map(Code::from)) {
                Some(None) => return Ok(metadata),
                Some(Some(Code::TopicAuthorizationFailed)) => {
                    return Err(TopicError::Refused(Code::TopicAuthorizationFailed));
                }
                None | Some(Some(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => {
                    return Err(TopicError::NotThere(topic.to_owned()));
                }
                Some(Some(code)) => code.to_string(),
            },
        };
        match client.context().problem() {
            Some((code @ (Code::Authentication | Code::SaslAuthenticationFailed), _)) => {
                return Err(TopicError::Refused(code));
            }
            problem if started.elapsed() >= timeout => {
                return Err(TopicError::OutOfReach(problem.map_or(error, |(_, why)| why)));
            }
            _ => {}
        }
    }
}

/// Makes a topic if it is not there: with so many partitions, or as the broker's defaults have it
/// where that is -1.
///
/// # Errors
/// Why it is not there and cannot be made.
pub fn ensure_topic(
    connection: &Connection,
    topic: &str,
    partitions: i32,
    runtime: &Handle,
) -> Result<(), String> {
    let context = Context::new(connection.token_file.clone());
    let client = BaseConsumer::from_config_and_context(&connection.config, context)
        .map_err(|e| e.to_string())?;
    match metadata_of(&client, topic, Duration::from_secs(30)) {
        Ok(_) => return Ok(()),
        Err(TopicError::NotThere(_)) => {}
        Err(error) => return Err(error.to_string()),
    }
    if connection.token_file.is_some() {
        return Err("topics are not made over OAUTHBEARER".to_owned());
    }
    let (config, context) = connection.producer();
    let admin: AdminClient<Context> =
        AdminClient::from_config_and_context(&config, context).map_err(|e| e.to_string())?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let made = runtime
        .block_on(admin.create_topics([&new], &AdminOptions::new()))
        .map_err(|e| e.to_string())?;
    for result in made {
        match result {
            Ok(_) => tracing::info!(topic, "made a topic that was not there"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => return Err(code.to_string()),
        }
    }
    Ok(())
}
