//! The Kafka client: its settings, and what it tells beside messages.
//!
//! librdkafka takes hundreds of settings; all of them pass through. A few are ours to decide, because
//! exactly-once hangs on them, and are refused. Secrets come from files or the environment, never from
//! a command line, and are never written anywhere.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{TopicPartitionList, types::RDKafkaErrorCode};

use crate::core::worker::{Offset, Partition};

/// Settings that are decided here.
const OURS: &[(&str, &str)] = &[
    ("group.id", "use --group"),
    ("bootstrap.servers", "use --brokers"),
    ("metadata.broker.list", "use --brokers"),
    ("enable.auto.commit", "offsets are committed after the rows are durable"),
    ("enable.auto.offset.store", "offsets are committed after the rows are durable"),
    ("auto.offset.reset", "reading on somewhere else would lose reports without a word"),
    ("isolation.level", "aborted records must not be read"),
    ("partition.assignment.strategy", "the worker gives partitions up one by one"),
    ("group.protocol", "the worker gives partitions up one by one"),
    ("enable.partition.eof", "the worker does not need it"),
    ("enable.idempotence", "receipts are produced idempotently"),
    ("transactional.id", "receipts are produced outside transactions"),
    ("acks", "a receipt counts when all replicas have it"),
];

/// Settings that hold a secret.
const SECRETS: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
];

/// A file with a token for OAUTHBEARER, read anew before the token expires.
pub const TOKEN_FILE: &str = "sasl.oauthbearer.token.file";

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("'{0}' cannot be set: {1}")]
    Ours(String, &'static str),
    #[error(
        "'{0}' is a secret and would be seen by everyone who lists processes or reads the file; put it into a file and give its path as {0}.file, or set the environment variable {1}"
    )]
    Secret(String, String),
    #[error("cannot read {path}, which {key} names")]
    SecretFile {
        key: String,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the connection to {0} would not be encrypted: set security.protocol to ssl or sasl_ssl, or allow it with --allow-plaintext"
    )]
    Plaintext(String),
    #[error(
        "no broker is named; use --brokers HOST:PORT, RUMLEDGER_BROKERS, or brokers in [kafka] of the file of settings"
    )]
    NoBrokers,
    #[error("the Kafka client refuses its settings")]
    Client(#[source] KafkaError),
}

/// How to reach the brokers.
#[derive(Clone)]
pub struct Connection {
    pub(super) config: ClientConfig,
    pub(super) token_file: Option<PathBuf>,
}

impl Connection {
    /// Checks settings and reads the secrets that they name.
    ///
    /// `given` come from the command line and the configuration file, `from_environment` from the
    /// environment, where secrets may stand; keys are librdkafka's.
    ///
    /// # Errors
    /// If a setting is not the user's to make, a secret stands in the open, a file cannot be read, or
    /// an unencrypted connection would leave the machine.
    pub fn new(
        brokers: &str,
        given: &BTreeMap<String, String>,
        from_environment: &BTreeMap<String, String>,
        allow_plaintext: bool,
    ) -> Result<Connection, SettingsError> {
        if brokers.trim().is_empty() {
            return Err(SettingsError::NoBrokers);
        }
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        config.set("client.id", "rumledger");
        let mut token_file = None;
        for (key, value) in from_environment.iter().chain(given) {
            if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == key) {
                return Err(SettingsError::Ours(key.clone(), why));
            }
            if SECRETS.contains(&key.as_str()) && given.contains_key(key) {
                return Err(SettingsError::Secret(key.clone(), environment_name(key)));
            }
            if key == TOKEN_FILE {
                token_file = Some(PathBuf::from(value));
            } else if let Some(secret) = key.strip_suffix(".file").filter(|k| SECRETS.contains(k)) {
                let text = std::fs::read_to_string(value).map_err(|source| {
                    SettingsError::SecretFile { key: key.clone(), path: value.clone(), source }
                })?;
                config.set(secret, text.trim_end_matches(['\r', '\n']));
            } else {
                config.set(key, value);
            }
        }
        let protocol = config.get("security.protocol").unwrap_or("plaintext").to_ascii_lowercase();
        if !protocol.ends_with("ssl")
            && !allow_plaintext
            && let Some(broker) = brokers.split(',').find(|broker| !is_loopback(broker))
        {
            return Err(SettingsError::Plaintext(broker.trim().to_owned()));
        }
        config.create_native_config().map_err(SettingsError::Client)?;
        Ok(Connection { config, token_file })
    }

    /// A consumer's settings on top of the user's.
    fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.config.clone();
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            // Tells when a topic was deleted and made anew under the same name.
            .set("debug", "topic")
            .set_log_level(RDKafkaLogLevel::Debug);
        // What waits in the client is bounded: the rows are what memory is for. What is fetched at once is counted
        // as it was compressed, and is five to ten times as much when it has come.
        for (key, value) in [
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.max.bytes", "4194304"),
            ("queued.min.messages", "20000"),
            // When it is full, room is looked for again soon: by default after a second, long after all
            // of it was used up.
            ("fetch.queue.backoff.ms", "10"),
            ("statistics.interval.ms", "1000"),
            ("session.timeout.ms", "30000"),
            ("fetch.wait.max.ms", "100"),
        ] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        config
    }

    /// A consumer that joins a group.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn join(&self, group: &str) -> Result<BaseConsumer<Context>, SettingsError> {
        let config = self.consumer(group);
        BaseConsumer::from_config_and_context(&config, Context::new(self.token_file.clone()))
            .map_err(SettingsError::Client)
    }

    /// A consumer of partitions that it is told, in no group.
    ///
    /// # Errors
    /// If the client refuses its settings.
    pub fn follow(&self, name: &str) -> Result<BaseConsumer<Context>, SettingsError> {
        let mut config = self.consumer(name);
        config.set("enable.partition.eof", "true");
        BaseConsumer::from_config_and_context(&config, Context::new(self.token_file.clone()))
            .map_err(SettingsError::Client)
    }

    /// The settings of a producer whose messages count when all replicas have them.
    #[must_use]
    pub fn producer(&self) -> (ClientConfig, Context) {
        let mut config = self.config.clone();
        config.set("enable.idempotence", "true").set("acks", "all");
        for (key, value) in [
            ("linger.ms", "5"),
            ("compression.type", "zstd"),
            ("message.timeout.ms", "30000"),
            ("queue.buffering.max.messages", "50000"),
        ] {
            if config.get(key).is_none() {
                config.set(key, value);
            }
        }
        (config, Context::new(self.token_file.clone()))
    }
}

/// The environment variable of a setting.
#[must_use]
pub fn environment_name(key: &str) -> String {
    format!("RUMLEDGER_KAFKA_{}", key.to_ascii_uppercase().replace(['.', '-'], "_"))
}

fn is_loopback(broker: &str) -> bool {
    let broker = broker.trim();
    let address = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The group gives or takes partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalanced {
    Assigned(Vec<Partition>),
    Revoked(Vec<Partition>),
}

/// A topic's id changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdChange {
    pub from: String,
    pub to: String,
}

/// Where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Offset of the next message to be written.
    pub next: Offset,
    /// All messages were given to the worker: what is left are records of transactions, which are none.
    pub all_given: bool,
}

/// What the client tells beside messages. Nothing is decided here: the worker's loop asks.
#[derive(Default)]
pub struct Context {
    rebalances: Mutex<VecDeque<Rebalanced>>,
    ends: Mutex<BTreeMap<Partition, End>>,
    topic_ids: Mutex<BTreeMap<String, IdChange>>,
    problem: Mutex<Option<(RDKafkaErrorCode, String)>>,
    closing: AtomicBool,
    token_file: Option<PathBuf>,
}

/// What one thread left half-done, another may use: all values stand by themselves.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Context {
    pub(super) fn new(token_file: Option<PathBuf>) -> Context {
        Context { token_file, ..Context::default() }
    }

    /// The oldest change of the assignment that was not asked for yet.
    pub fn next_rebalance(&self) -> Option<Rebalanced> {
        locked(&self.rebalances).pop_front()
    }

    /// The end of each partition, as of the last second.
    pub fn ends(&self) -> BTreeMap<Partition, End> {
        locked(&self.ends).clone()
    }

    /// What was learned of the ids of topics.
    pub fn topic_ids(&self) -> BTreeMap<String, IdChange> {
        locked(&self.topic_ids).clone()
    }

    /// What the client last complained of.
    pub fn problem(&self) -> Option<(RDKafkaErrorCode, String)> {
        locked(&self.problem).clone()
    }

    /// From now on partitions are let go of without a word: the consumer is being closed.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => tracing::warn!(facility, "kafka client: {message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, "kafka client: {message}");
            }
            RDKafkaLogLevel::Debug => {
                if let Some((topic, change)) = id_change(message) {
                    locked(&self.topic_ids).insert(topic, change);
                }
            }
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut ends = locked(&self.ends);
        for topic in statistics.topics.values() {
            // With read_committed, messages of open transactions do not wait yet.
            let known = topic.partitions.iter().filter(|(p, s)| **p >= 0 && s.ls_offset >= 0);
            ends.extend(known.map(|(p, s)| {
                let all_given = s.next_offset >= s.ls_offset && s.fetchq_cnt == 0;
                (*p, End { next: s.ls_offset, all_given })
            }));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "the kafka client reports a problem");
        if let Some(code) = error.rdkafka_error_code() {
            *locked(&self.problem) = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let path =
            self.token_file.as_ref().ok_or_else(|| format!("OAUTHBEARER needs {TOKEN_FILE}"))?;
        let token = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the token in {}: {e}", path.display()))?;
        let token = token.trim().to_owned();
        let (principal_name, lifetime_ms) =
            claims(&token).ok_or_else(|| format!("{} holds no JWT", path.display()))?;
        Ok(OAuthToken { token, principal_name, lifetime_ms })
    }
}

/// Subject and expiry (milliseconds since 1970) of a JWT (RFC 7519). The broker checks it.
fn claims(token: &str) -> Option<(String, i64)> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let expiry = claims.get("exp")?.as_i64()?.checked_mul(1000)?;
    Some((claims.get("sub").and_then(|s| s.as_str()).unwrap_or_default().to_owned(), expiry))
}

/// `Topic NAME changed id from ID to ID`, as librdkafka 2.12 writes it.
fn id_change(message: &str) -> Option<(String, IdChange)> {
    let at = message.find("Topic ")?;
    let (topic, ids) = message[at + 6..].split_once(" changed id from ")?;
    let (from, to) = ids.split_once(" to ")?;
    Some((topic.to_owned(), IdChange { from: from.to_owned(), to: to.trim().to_owned() }))
}

impl IdChange {
    /// True if the topic had another id before: it was made anew.
    #[must_use]
    pub fn made_anew(&self) -> bool {
        !self.from.bytes().all(|b| b == b'A' || b == b'=')
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let numbers = partitions.elements().iter().map(|e| e.partition()).collect();
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Relaxed) {
            let answered = if assigned {
                consumer.incremental_assign(partitions)
            } else {
                consumer.incremental_unassign(partitions)
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "the group was left in disorder");
            }
            return;
        }
        // The worker's loop answers, when what it holds is in order: the client waits for that.
        locked(&self.rebalances).push_back(if assigned {
            Rebalanced::Assigned(numbers)
        } else {
            Rebalanced::Revoked(numbers)
        });
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<DeliveryCount>;

    fn delivery(&self, result: &DeliveryResult<'_>, count: Self::DeliveryOpaque) {
        match result {
            Ok(_) => count.delivered(),
            Err((error, _)) => count.failed(error),
        }
    }
}

/// Gives a message to a producer; the client's queue is bounded, so this waits until there is room.
///
/// # Errors
/// If the client refuses the message.
pub fn enqueue(
    producer: &ThreadedProducer<Context>,
    mut record: BaseRecord<'_, String, [u8], Arc<DeliveryCount>>,
) -> KafkaResult<()> {
    while let Err((error, again)) = producer.send(record) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(5));
        record = again;
    }
    Ok(())
}

/// Counts the answers to a batch of messages. The client answers every message: it was taken, or its
/// time is over.
#[derive(Default)]
pub struct DeliveryCount {
    deliveries: Mutex<Deliveries>,
    answered: Condvar,
}

#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    pub delivered: u64,
    pub failed: u64,
    pub first_error: Option<String>,
}

impl DeliveryCount {
    fn delivered(&self) {
        locked(&self.deliveries).delivered += 1;
        self.answered.notify_all();
    }

    fn failed(&self, error: &KafkaError) {
        let mut deliveries = locked(&self.deliveries);
        deliveries.failed += 1;
        deliveries.first_error.get_or_insert_with(|| error.to_string());
        self.answered.notify_all();
    }

    /// Waits until so many messages are answered, or the time is over.
    #[must_use]
    pub fn wait_for(&self, sent: u64, most: Duration) -> Deliveries {
        let waiting = |d: &mut Deliveries| d.delivered + d.failed < sent;
        let deliveries = locked(&self.deliveries);
        match self.answered.wait_timeout_while(deliveries, most, waiting) {
            Ok((deliveries, _)) => deliveries.clone(),
            Err(poisoned) => poisoned.into_inner().0.clone(),
        }
    }
}
