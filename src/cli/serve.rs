//! The flags of `serve`.

use std::path::PathBuf;

use clap::Args;

/// Every flag is also a key of `[serve]` in the configuration file.
#[derive(Args)]
pub struct ServeArgs {
    /// Address for PostgreSQL clients [default: 127.0.0.1:5433]
    #[arg(long, env = "RUMLEDGER_SERVE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Address of /metrics, /healthz and /readyz, or off [default: 127.0.0.1:9465]
    #[arg(long, env = "RUMLEDGER_SERVE_HTTP_LISTEN", value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// File of logins: [[login]] with name, password (from --hash-password) and, for rows of some accounts
    /// alone, accounts = ["SA/VA", "SA"]
    #[arg(long, env = "RUMLEDGER_SERVE_LOGINS", value_name = "FILE")]
    pub logins: Option<PathBuf>,
    /// Certificate chain, PEM; clients can then connect encrypted
    #[arg(long, env = "RUMLEDGER_SERVE_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, env = "RUMLEDGER_SERVE_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Listens on other than this machine's own addresses without TLS
    #[arg(
        long,
        env = "RUMLEDGER_SERVE_ALLOW_PLAINTEXT",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true
    )]
    pub allow_plaintext: Option<bool>,
    /// Open connections [default: 64]
    #[arg(long, env = "RUMLEDGER_SERVE_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// Queries that run at once; others wait [default: 4]
    #[arg(long, env = "RUMLEDGER_SERVE_QUERIES_AT_ONCE", value_name = "N")]
    pub queries_at_once: Option<usize>,
    /// A query's time, waiting and all; a client can only lower it [default: 30000]
    #[arg(long, env = "RUMLEDGER_SERVE_STATEMENT_TIMEOUT_MS", value_name = "MS")]
    pub statement_timeout_ms: Option<u64>,
    /// Rows of one answer [default: 1000000]
    #[arg(long, env = "RUMLEDGER_SERVE_ROWS_MAX", value_name = "N")]
    pub rows_max: Option<usize>,
    /// Memory for the sorts, joins and groups of all queries [default: 512]
    #[arg(long, env = "RUMLEDGER_SERVE_MEMORY_MB", value_name = "MIB")]
    pub memory_mb: Option<usize>,
    /// How often the lake is looked at for newer commits [default: 1000]
    #[arg(long, env = "RUMLEDGER_SERVE_REFRESH_MS", value_name = "MS")]
    pub refresh_ms: Option<u64>,
    /// How often findings, deadlines, coverage, exceptions and the ledger's chain are computed anew, at
    /// most; 0 for never [default: 60]
    #[arg(long, env = "RUMLEDGER_SERVE_COMPUTE_EVERY_S", value_name = "SECONDS")]
    pub compute_every_s: Option<u64>,
    /// Reads a password from standard input and prints what the file of logins holds for it
    #[arg(long, conflicts_with_all = ["listen", "describe_tables"])]
    pub hash_password: bool,
    /// Prints the tables and their columns as Markdown: docs/tables.md
    #[arg(long)]
    pub describe_tables: bool,
}
