//! Receipts: what became of each report, told to its producer after, and only after, it is durable.
//!
//! Nothing says exactly which receipts were sent before a crash, so what may be missing is sent again:
//! the journal's log holds, beside the offsets of the reports, a mark up to which receipts are known
//! to be with the broker, and the group's own offsets are told only after the receipts. Whoever reads
//! on behind an offset sends the receipts between the later of the two and that offset first.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use futures::StreamExt as _;
use lake::Table;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use schemas::period::rfc3339;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::client::{Connection, Context, DeliveryCount, enqueue};
use super::topics::ensure_topic;
use crate::core::worker::{Offset, Partition};

/// Columns of the journal that a receipt is made of.
pub(super) const COLUMNS: [&str; 11] = [
    "udi_pid",
    "udi_serial",
    "report_id",
    "payload_sha256",
    "disposition",
    "reason",
    "signature",
    "received_at",
    "source",
    "partition",
    "offset",
];
/// Longer than a message may wait for its answer (message.timeout.ms).
const ANSWER_MAX: Duration = Duration::from_secs(40);

#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    #[error("the Kafka client refuses to produce receipts")]
    Client(#[source] KafkaError),
    #[error(
        "the receipts topic '{topic}' is not there and cannot be made: {why}; make it, or name another with --receipts-topic ('' for none)"
    )]
    Topic { topic: String, why: String },
    #[error("{failed} receipts were not taken by the broker: {why}")]
    Refused { failed: u64, why: String },
    #[error("a row of the journal has no column {0}")]
    NotAJournal(&'static str),
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error("cannot read the journal for receipts that may be missing")]
    Read(#[source] Box<datafusion::error::DataFusionError>),
}

type Result<T, E = ReceiptError> = std::result::Result<T, E>;

/// Sends receipts to a topic.
pub struct Receipts {
    topic: String,
    producer: ThreadedProducer<Context>,
}

impl Receipts {
    /// Opens a producer, and makes the topic with the broker's defaults if it is not there.
    ///
    /// # Errors
    /// If the client refuses its settings, or the topic is not there and cannot be made.
    pub fn open(connection: &Connection, topic: &str, runtime: &Handle) -> Result<Receipts> {
        let (config, context) = connection.producer();
        let producer = ThreadedProducer::from_config_and_context(&config, context)
            .map_err(ReceiptError::Client)?;
        ensure_topic(connection, topic, -1, runtime)
            .map_err(|why| ReceiptError::Topic { topic: topic.to_owned(), why })?;
        Ok(Receipts { topic: topic.to_owned(), producer })
    }

    /// Sends the receipts of rows and waits until the broker has them all.
    ///
    /// # Errors
    /// If the broker did not take some of them in time: all of them are to be sent again.
    pub fn send(&self, rows: &RecordBatch) -> Result<u64> {
        let count = Arc::new(DeliveryCount::default());
        let mut sent = 0;
        for receipt in receipts_of(rows)? {
            let mut record = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&count))
                .payload(receipt.value.as_bytes());
            if let Some(key) = &receipt.key {
                record = record.key(key);
            }
            enqueue(&self.producer, record)
                .map_err(|error| ReceiptError::Refused { failed: 1, why: error.to_string() })?;
            sent += 1;
        }
        let answered = count.wait_for(sent, ANSWER_MAX);
        if answered.delivered == sent {
            return Ok(sent);
        }
        let why = answered.first_error.unwrap_or_else(|| "no answer in time".to_owned());
        Err(ReceiptError::Refused { failed: sent - answered.delivered, why })
    }

    /// Sends the receipts of what the journal holds of a partition behind one offset and up to
    /// another.
    ///
    /// # Errors
    /// If the journal cannot be read, or the broker does not take them.
    pub async fn send_again(
        &self,
        journal: &Table,
        topic: &str,
        partition: Partition,
        behind: Option<Offset>,
        up_to: Offset,
    ) -> Result<u64> {
        let read = |e| ReceiptError::Read(Box::new(e));
        let session =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let rows = session.read_table(journal.provider(&session).await?).map_err(read)?;
        let wanted = col("source")
            .eq(lit(topic))
            .and(col("partition").eq(lit(partition)))
            .and(col("\"offset\"").gt(lit(behind.unwrap_or(-1))))
            .and(col("\"offset\"").lt_eq(lit(up_to)));
        let mut rows = rows
            .filter(wanted)
            .and_then(|rows| rows.select_columns(&COLUMNS))
            .map_err(read)?
            .execute_stream()
            .await
            .map_err(read)?;
        let mut sent = 0;
        while let Some(batch) = rows.next().await {
            sent += self.send(&batch.map_err(read)?)?;
        }
        Ok(sent)
    }
}

/// A receipt as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// `PID:SERIAL`, where the report told them.
    pub key: Option<String>,
    /// JSON (contract 1.4).
    pub value: String,
}

/// The receipts of rows of the journal.
///
/// # Errors
/// If the rows are not the journal's own.
pub fn receipts_of(rows: &RecordBatch) -> Result<Vec<Receipt>> {
    let missing = ReceiptError::NotAJournal;
    let column = |name: &'static str| rows.column_by_name(name).ok_or(missing(name));
    let text = |name: &'static str| -> Result<StringArray> {
        let text = cast(column(name)?, &DataType::Utf8).map_err(|_| missing(name))?;
        Ok(text.as_string::<i32>().clone())
    };
    let number = |name: &'static str| {
        cast(column(name)?, &DataType::Int64)
            .map(|n| n.as_primitive::<Int64Type>().clone())
            .map_err(|_| missing(name))
    };
    let texts = [
        text("udi_pid")?,
        text("udi_serial")?,
        text("payload_sha256")?,
        text("disposition")?,
        text("reason")?,
        text("signature")?,
        text("source")?,
        text("report_id")?,
    ];
    let received = column("received_at")?
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or(missing("received_at"))?;
    let (partitions, offsets) = (number("partition")?, number("offset")?);
    let receipt = |i: usize| {
        let [pid, serial, sha256, disposition, reason, signature, source, report_id] =
            texts.each_ref().map(|array| array.is_valid(i).then(|| array.value(i)));
        let mut fields = Map::new();
        fields.insert("udi_pid".into(), json!(pid));
        fields.insert("udi_serial".into(), json!(serial));
        fields.insert("report_id".into(), json!(report_id.and_then(|id| id.parse::<u64>().ok())));
        fields.insert("payload_sha256".into(), json!(sha256));
        fields.insert("disposition".into(), json!(disposition));
        if let Some(reason) = reason {
            fields.insert("reason".into(), json!(reason));
        }
        fields.insert("signature".into(), json!(signature));
        fields
            .insert("received_at".into(), json!(rfc3339(received.value(i).div_euclid(1_000_000))));
        fields.insert(
            "position".into(),
            json!({
                "topic": source,
                "partition": partitions.is_valid(i).then(|| partitions.value(i)),
                "offset": offsets.value(i),
            }),
        );
        let key = pid.zip(serial).map(|(pid, serial)| format!("{pid}:{serial}"));
        Receipt { key, value: Value::Object(fields).to_string() }
    };
    Ok((0..rows.num_rows()).map(receipt).collect())
}
