//! The command line.

mod fleet;
mod kafka;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use schemas::book::AccountId;
use schemas::disposition::SignaturePolicy;
use schemas::finding::{Rule, Severity};
use schemas::period::{Moment, Period};

pub use self::fleet::{FleetAlgorithm, FleetArgs, FleetCommand, RsaBits};
pub use self::kafka::{KafkaArgs, RECEIPTS_TOPIC, REPORTS_TOPIC, StreamArgs, TRUST_TOPIC};
pub use self::serve::ServeArgs;

/// How a command ended that did what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// Something was suspended, excepted or found: exit status 3.
    Found,
}

/// Why a command did not do what it was told.
pub enum Failure {
    /// Wrong usage or bad configuration: exit status 2.
    Usage(anyhow::Error),
    /// Exit status 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// Why, whatever the exit status.
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Failure::Usage(error) | Failure::Failed(error) => error,
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(error.into())
    }
}

/// Usage-to-billing pipeline for Cisco Smart Licensing: takes in RUM reports, verifies and keeps
/// them, compares what was consumed with what was purchased, and posts the difference.
///
/// It receives copies beside CSSM; it never replaces reporting to it.
#[derive(Parser)]
#[command(
    name = "rumledger",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done · 1 failed · 2 wrong usage or bad configuration · 3 done, but something was suspended, excepted or found\n\nExample: rumledger demo"
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args)]
pub struct Global {
    /// The lake: a folder, or s3://BUCKET/PREFIX [default: ./lake]
    #[arg(long, global = true, env = "RUMLEDGER_LAKE", value_name = "URL")]
    pub lake: Option<String>,
    /// Settings, as TOML
    #[arg(long, global = true, env = "RUMLEDGER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are written [default: table]
    #[arg(long, global = true, env = "RUMLEDGER_FORMAT", value_enum)]
    pub format: Option<Format>,
    /// Nothing but results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Exit with 0, not 3, where something was suspended, excepted or found (for jobs)
    #[arg(long, global = true)]
    pub zero_if_found: bool,
    /// More about what is done (-v, -vv)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Csv,
    /// Statements only
    Parquet,
    /// Statements only: FinOps FOCUS 1.2, as CSV
    Focus,
    /// Statements only
    Xlsx,
    /// Statements only
    Pdf,
}

impl Format {
    /// True of those that are files, not text for a screen or a pipe.
    pub fn is_file(self) -> bool {
        matches!(self, Format::Parquet | Format::Focus | Format::Xlsx | Format::Pdf)
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Shows the whole way on made-up data, in ./rumledger-demo
    #[command(after_help = "Example: rumledger demo")]
    Demo,
    /// Makes up the data of a fleet
    #[command(
        subcommand,
        after_help = "Example: rumledger fleet generate --out ./fleet --reports 10000"
    )]
    Fleet(FleetCommand),
    /// Accounts, devices, subscriptions, purchases, prices and keys
    #[command(subcommand, after_help = "Example: rumledger book import ./book")]
    Book(BookCommand),
    /// Takes in RUM reports
    #[command(subcommand, after_help = "Example: rumledger ingest files ./reports")]
    Ingest(IngestCommand),
    /// Suspended reports
    #[command(subcommand, after_help = "Example: rumledger suspense list --by reason")]
    Suspense(SuspenseCommand),
    /// Upkeep of the lake's tables
    #[command(subcommand, after_help = "Example: rumledger lake optimize")]
    Lake(LakeCommand),
    /// Computes what is due and posts the difference
    #[command(after_help = "Example: rumledger reconcile --period 2026-10 --dry-run")]
    Reconcile {
        /// The month, in each account's own zone
        #[arg(long, value_name = "YYYY-MM", required_unless_present_any = ["current", "as_of"])]
        period: Option<Period>,
        /// The month that is running and the one before it, for jobs that run by themselves
        #[arg(long, conflicts_with = "period")]
        current: bool,
        /// Does everything but posting
        #[arg(long)]
        dry_run: bool,
        /// Only this account
        #[arg(long, value_name = "SA/VA")]
        account: Option<AccountId>,
        /// Computes again what the run posted that made this version of the ledger, from what it read
        /// then; posts nothing
        #[arg(long, value_name = "VERSION", conflicts_with_all = ["period", "current", "dry_run", "account"])]
        as_of: Option<u64>,
    },
    /// From a ledger line down to the measurements and signed reports under it
    #[command(
        after_help = "Example: rumledger explain 1f0c9a52b7de48a1b2c3d4e5f6071829 --format json"
    )]
    Explain {
        /// Id of the line, as `statement --format csv` has it
        line: String,
    },
    /// Checks files, chain and manifests, decodes and verifies every report again, and computes every
    /// line again
    #[command(after_help = "Example: rumledger verify --period 2026-10")]
    Verify {
        /// Without it: all months
        #[arg(long, value_name = "YYYY-MM")]
        period: Option<Period>,
    },
    /// Writes what others take in
    #[command(
        subcommand,
        after_help = "Example: rumledger export ledger --period 2026-10 --format csv"
    )]
    Export(ExportCommand),
    /// Closes a month for all accounts: its lines never change again
    #[command(after_help = "Example: rumledger close --period 2026-09")]
    Close {
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
    },
    /// What was posted into a month
    #[command(
        after_help = "Example: rumledger statement --period 2026-10 --format csv > 2026-10.csv\n         rumledger statement --period 2026-10 --format pdf --out statements/"
    )]
    Statement {
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
        /// File to write; of PDF also a folder, for a file for each customer
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Only this customer
        #[arg(long, value_name = "NAME")]
        customer: Option<String>,
    },
    /// Compares a vendor's invoice or usage export with what was posted into a month
    #[command(
        after_help = "Example: rumledger match --period 2026-10 --vendor invoice.csv --mapping mapping.toml"
    )]
    Match {
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
        /// CSV with a head
        #[arg(long, value_name = "FILE")]
        vendor: PathBuf,
        /// TOML: which of its columns are smart_account, entitlement, quantity, amount and so on
        #[arg(long, value_name = "FILE")]
        mapping: PathBuf,
    },
    /// Usage that could not be priced
    #[command(after_help = "Example: rumledger exceptions --period 2026-10")]
    Exceptions {
        /// Without it: all months
        #[arg(long, value_name = "YYYY-MM")]
        period: Option<Period>,
    },
    /// Breaches of the licence programme's rules, by what was received up to an instant
    #[command(
        after_help = "Example: rumledger findings --severity critical\n         rumledger findings --as-of 2026-11-01 --format csv > findings.csv"
    )]
    Findings {
        #[command(flatten)]
        as_of: AsOf,
        /// Only of this severity: critical, warning or notice
        #[arg(long, value_name = "SEVERITY", value_parser = severity)]
        severity: Option<Severity>,
        /// Only of this rule, such as no-slac
        #[arg(long, value_name = "RULE", value_parser = rule)]
        rule: Option<Rule>,
        /// Only of this account
        #[arg(long, value_name = "SA/VA")]
        account: Option<AccountId>,
    },
    /// What each product instance owes by when: reports and their ACKs
    #[command(
        after_help = "Example: rumledger deadlines --within 7\n         rumledger deadlines --forecast --within 30"
    )]
    Deadlines {
        #[command(flatten)]
        as_of: AsOf,
        /// Only what is overdue or due within so many days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(0..=3650))]
        within: Option<u32>,
        /// By day: how many product instances, and what hangs on them [days: 30]
        #[arg(long)]
        forecast: bool,
    },
    /// Requests and ACKs that came beside reports, and what the book holds of them since
    #[command(after_help = "Example: rumledger requests --open")]
    Requests {
        /// Only those that the book answers nothing of
        #[arg(long)]
        open: bool,
    },
    /// How much of a month the reports cover, and what the rest would bill
    #[command(
        after_help = "Example: rumledger coverage --period 2026-10\n         rumledger coverage --period 2026-10 --by account"
    )]
    Coverage {
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
        #[command(flatten)]
        as_of: AsOf,
        /// A row for each product instance and licence, or for each account
        #[arg(long, value_enum, default_value = "device")]
        by: CoverageBy,
    },
    /// Any query over the lake's tables: journal, usage, ledger, closes, findings, deadlines, coverage,
    /// book_…
    #[command(
        after_help = "Example: rumledger sql \"SELECT disposition, count(*) FROM journal GROUP BY 1\""
    )]
    Sql { query: String },
    /// Serves the lake's tables by the PostgreSQL wire protocol, read-only, until it is stopped
    ///
    /// For Grafana's PostgreSQL data source, psql and BI tools; docs/tables.md says what there is. Logins
    /// are read from a file; without one, a password for the login `rumledger` is made up and printed,
    /// and only this machine can connect.
    #[command(
        after_help = "Example: rumledger serve --listen 127.0.0.1:5433\n         echo 'a long password' | rumledger serve --hash-password"
    )]
    Serve(ServeArgs),
    /// Completions for a shell, to standard output
    #[command(
        after_help = "Example: rumledger completions bash > /etc/bash_completion.d/rumledger"
    )]
    Completions { shell: clap_complete::Shell },
    /// Manual pages, one a command, into a folder
    #[command(after_help = "Example: rumledger manual ./man && man ./man/rumledger.1")]
    Manual { dir: PathBuf },
}

/// The instant that a question is about.
#[derive(Args, Clone, Copy, Debug)]
pub struct AsOf {
    /// RFC 3339, or a date: midnight in UTC [default: now]
    #[arg(long, value_name = "T")]
    pub as_of: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CoverageBy {
    Device,
    Account,
}

fn severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).ok_or_else(|| format!("none of {}", Severity::WORDS.join(", ")))
}

fn rule(text: &str) -> Result<Rule, String> {
    Rule::parse(text).ok_or_else(|| format!("none of {}", Rule::WORDS.join(", ")))
}

#[derive(Subcommand)]
pub enum ExportCommand {
    /// Everything that it takes to check a line without rumledger (tools/verify_proof.py), as JSON
    #[command(
        after_help = "Example: rumledger export proof 1f0c9a52b7de48a1b2c3d4e5f6071829 > proof.json"
    )]
    Proof { line: String },
    /// What was posted into a month in double entry, by the book's gl_accounts.csv
    #[command(after_help = "Example: rumledger export ledger --period 2026-10 --format csv")]
    Ledger {
        #[arg(long, value_name = "YYYY-MM")]
        period: Period,
    },
}

#[derive(Subcommand)]
pub enum BookCommand {
    /// Replaces the whole book by the CSV files of a folder, or changes nothing
    #[command(after_help = "Example: rumledger book import ./book")]
    Import {
        dir: PathBuf,
        /// Why prices change that posted lines stand on; without it such a book is refused
        #[arg(long, value_name = "REASON")]
        correct: Option<String>,
    },
    /// Shows what the book in force holds, or the rows of one of its tables
    #[command(after_help = "Example: rumledger book show accounts")]
    Show {
        /// accounts, devices, catalog, subscriptions, purchases, prices, trust_codes, policies,
        /// authorizations, acks or gl_accounts
        table: Option<String>,
    },
}

#[derive(Subcommand)]
pub enum IngestCommand {
    /// Takes in files, folders and bundles, in the order of their paths
    #[command(after_help = "Example: rumledger ingest files ./reports UD_SA_26Nov01.tar.gz")]
    Files {
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Which unverifiable reports are accepted: accept-prepaid, accept or suspend
        #[arg(long, env = "RUMLEDGER_SIGNATURE_POLICY", value_name = "POLICY")]
        signature_policy: Option<SignaturePolicy>,
        #[command(flatten)]
        delivery: DeliveryArgs,
    },
    /// Takes in reports from Kafka until it is stopped; SIGTERM drains
    #[command(
        after_help = "Example: rumledger ingest kafka --brokers localhost:9092 --group billing --idle-exit 30"
    )]
    Kafka(StreamArgs),
}

/// What is known of how files came, as the headers of a Kafka record say it of a report.
#[derive(Args, Clone, Debug, Default)]
pub struct DeliveryArgs {
    /// The collector that the files come from: cslu, ssm-on-prem, dna-center, vmanage or file
    #[arg(long, env = "RUMLEDGER_COLLECTOR", value_name = "NAME")]
    pub collector: Option<String>,
    /// Its version
    #[arg(long, value_name = "VERSION")]
    pub collector_version: Option<String>,
    /// How it got the reports: push, pull or file
    #[arg(long, value_name = "HOW", value_parser = ["push", "pull", "file"], hide_possible_values = true)]
    pub collection: Option<String>,
    /// The transport of the devices: smart, callhome, cslu or off
    #[arg(long, value_name = "TRANSPORT", value_parser = ["smart", "callhome", "cslu", "off"], hide_possible_values = true)]
    pub transport: Option<String>,
    /// The account that the collector holds the devices in
    #[arg(long, value_name = "SA/VA")]
    pub account: Option<AccountId>,
}

#[derive(Subcommand)]
pub enum LakeCommand {
    /// Merges small files of the journal and the other tables, and writes checkpoints; ingestion and
    /// readers go on
    #[command(after_help = "Example: rumledger lake optimize --target-mb 256")]
    Optimize {
        /// Size that merged files come up to
        #[arg(long, default_value_t = 128, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=4096))]
        target_mb: u64,
        /// Also writes the accepted reports anew in the order of their devices, so that `explain` reads
        /// little; takes as long as reading and writing all of them
        #[arg(long)]
        cluster: bool,
    },
    /// Removes files that no version younger than the limit needs
    #[command(after_help = "Example: rumledger lake vacuum --dry-run")]
    Vacuum {
        /// Versions younger than this stay readable; at least 168
        #[arg(long, default_value_t = 168, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(168..=87_600))]
        keep_hours: u64,
        /// Names the files, removes nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// By what suspended reports are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SuspenseGroup {
    Reason,
    Collector,
    Account,
}

#[derive(Subcommand)]
pub enum SuspenseCommand {
    /// Judges suspended reports again, after a trust code or a rule changed
    #[command(after_help = "Example: rumledger suspense retry --reason trust-unknown")]
    Retry {
        /// Only those suspended for this reason
        #[arg(long)]
        reason: Option<String>,
        /// Only these, written-off ones among them
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<String>,
    },
    /// Lists suspended reports, in the order in which they came, or counts them with what they would bill
    #[command(
        after_help = "Example: rumledger suspense list --reason trust-unknown\n         rumledger suspense list --by account"
    )]
    List {
        #[arg(long)]
        reason: Option<String>,
        /// Only those that this collector sent
        #[arg(long)]
        collector: Option<String>,
        /// Only those of this account
        #[arg(long, value_name = "SA/VA")]
        account: Option<AccountId>,
        /// Those that were written off, instead of those that wait
        #[arg(long)]
        written_off: bool,
        /// At most this many
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// Counts, with the oldest, and what the bills would change by if these were accepted
        #[arg(long, value_enum, conflicts_with_all = ["limit", "written_off"])]
        by: Option<SuspenseGroup>,
    },
    /// Sets suspended reports aside for good: they stay in the journal, with who did it and why
    #[command(
        after_help = "Example: rumledger suspense write-off 1f0c9a52b7de --reason \"lab device, ticket 4711\""
    )]
    WriteOff {
        #[arg(value_name = "ID", required_unless_present = "suspended_for")]
        ids: Vec<String>,
        /// Instead of ids: all that were suspended for this reason
        #[arg(long, value_name = "CODE", conflicts_with = "ids")]
        suspended_for: Option<String>,
        /// Why they are written off
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Shows one with its bytes
    #[command(after_help = "Example: rumledger suspense show 1f0c9a52b7de --raw > report.json")]
    Show {
        id: String,
        /// Nothing but the bytes, as they came
        #[arg(long)]
        raw: bool,
    },
}
