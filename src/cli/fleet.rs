//! What `fleet` is told.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use schemas::period::Period;

use super::{KafkaArgs, REPORTS_TOPIC};

#[derive(Subcommand)]
pub enum FleetCommand {
    /// Writes book/ and reports/, or sends the reports to Kafka; the same seed gives the same reports
    #[command(
        after_help = "Example: rumledger fleet generate --out ./fleet --reports 10000 --devices 200 --seed 7\n         rumledger fleet generate --brokers localhost:9092 --out ./fleet --reports 10000"
    )]
    Generate(FleetArgs),
}

#[derive(Args, Clone, Debug)]
pub struct FleetArgs {
    /// Folder to write book/ and reports/ to; with --brokers only book/
    #[arg(long, value_name = "DIR", required_unless_present = "brokers")]
    pub out: Option<PathBuf>,
    /// Reports in all, duplicates and broken ones among them
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub reports: u64,
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub devices: u64,
    /// Months that the reports cover
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=120))]
    pub months: u64,
    /// The last of them
    #[arg(long, default_value = "2026-10", value_name = "YYYY-MM")]
    pub last_month: Period,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[arg(long, value_enum, default_value = "mixed")]
    pub algorithm: FleetAlgorithm,
    /// Length of the RSA keys
    #[arg(long, value_enum, default_value = "2048", value_name = "BITS")]
    pub rsa_bits: RsaBits,
    /// Instead of all that: so many product instances of each kind of fault, each in an account of its
    /// own; faults.csv says what has to be found, deliveries.csv how the folders are taken in
    #[arg(long, value_name = "N", conflicts_with = "brokers", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub faults: Option<u64>,
    /// Percent of the reports that are copies of earlier ones
    #[arg(long, default_value_t = 5, value_name = "PCT", value_parser = clap::value_parser!(u64).range(0..=90))]
    pub duplicates: u64,
    /// Percent of the reports that are forged, incomplete or broken
    #[arg(long, default_value_t = 2, value_name = "PCT", value_parser = clap::value_parser!(u64).range(0..=90))]
    pub broken: u64,
    /// Reports in one file
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub per_file: u64,
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Topic to send the reports to
    #[arg(long, default_value = REPORTS_TOPIC, env = "RUMLEDGER_TOPIC")]
    pub topic: String,
    /// Partitions of the topic, where it has to be made [default: as the broker has it]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10_000))]
    pub partitions: Option<i32>,
    /// Sends in transactions, and so many percent of them twice: aborted first, then committed
    #[arg(long, default_value_t = 0, value_name = "PCT", value_parser = clap::value_parser!(u64).range(0..=90))]
    pub abort: u64,
    /// Sends copies without a key, so that they reach other partitions than what they copy
    #[arg(long)]
    pub scatter: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RsaBits {
    #[value(name = "2048")]
    Of2048,
    #[value(name = "4096")]
    Of4096,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FleetAlgorithm {
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
    #[value(name = "mixed")]
    Mixed,
}
