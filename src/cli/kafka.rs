//! How Kafka is reached, and what the worker is told.

use clap::Args;
use schemas::disposition::SignaturePolicy;

/// The topics of contract 1.4.
pub const REPORTS_TOPIC: &str = "slp.rum.reports";
pub const TRUST_TOPIC: &str = "slp.trust-codes";
pub const RECEIPTS_TOPIC: &str = "slp.rum.receipts";

/// How to reach Kafka.
#[derive(Args, Clone, Debug, Default)]
pub struct KafkaArgs {
    /// Brokers to begin with: HOST:PORT,…
    #[arg(long, env = "RUMLEDGER_BROKERS", value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Any setting of librdkafka; a secret is given as KEY.file=PATH or by RUMLEDGER_KAFKA_KEY
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub settings: Vec<(String, String)>,
    /// Allows an unencrypted connection to other machines
    #[arg(
        long,
        env = "RUMLEDGER_ALLOW_PLAINTEXT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub allow_plaintext: Option<bool>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.to_owned()))
        }
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

#[derive(Args, Clone, Debug)]
pub struct StreamArgs {
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Consumer group; workers of one group share the partitions [default: rumledger]
    #[arg(long, env = "RUMLEDGER_GROUP")]
    pub group: Option<String>,
    /// Topic of the reports [default: slp.rum.reports]
    #[arg(long, env = "RUMLEDGER_TOPIC")]
    pub topic: Option<String>,
    /// Topic of the trust codes, '' for none [default: slp.trust-codes]
    #[arg(long, env = "RUMLEDGER_TRUST_TOPIC", value_name = "TOPIC")]
    pub trust_topic: Option<String>,
    /// Topic of the receipts, '' for none [default: slp.rum.receipts]
    #[arg(long, env = "RUMLEDGER_RECEIPTS_TOPIC", value_name = "TOPIC")]
    pub receipts_topic: Option<String>,
    /// Ends when nothing came for so long
    #[arg(long, value_name = "SECONDS")]
    pub idle_exit: Option<u64>,
    /// Address of /metrics, /healthz and /readyz, or off [default: 127.0.0.1:9464, if it is free]
    #[arg(long, env = "RUMLEDGER_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Which unverifiable reports are accepted: accept-prepaid, accept or suspend
    #[arg(long, env = "RUMLEDGER_SIGNATURE_POLICY", value_name = "POLICY")]
    pub signature_policy: Option<SignaturePolicy>,
}
