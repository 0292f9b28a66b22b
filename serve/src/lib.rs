//! The lake for Grafana, psql and BI tools: the PostgreSQL wire protocol over DataFusion tables.
//!
//! Read-only, by three means: statements are admitted by kind, plans are verified to hold neither DDL
//! nor DML, and the tables' providers refuse writes. Every login is authenticated by SCRAM-SHA-256
//! (RFC 5802, 7677) and sees the rows of its accounts alone. Every query is bounded in time, rows,
//! memory and text, and runs on threads of its own: probes and other connections go on.
//!
//! Architecture Invariant: this crate knows tables, not the lake. What is offered, and how fresh it is,
//! is said by the caller ([`Catalog`]).

mod catalog;
mod ends;
mod functions;
mod guard;
mod logins;
mod metrics;
mod rows;
mod server;
mod startup;
mod wall;

pub use catalog::{AccountScope, Catalog, Offer, RowsOf, Scope, Shared};
pub use logins::{Logins, hash_password};
pub use metrics::Metrics;
pub use server::{Limits, Server, Tls};

/// Why `serve` does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The file of logins is wrong: what, and where.
    #[error("{0}")]
    Logins(String),
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: String, source: std::io::Error },
    #[error("the TLS certificate and key do not fit: {0}")]
    Tls(String),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: std::io::Error },
    #[error(transparent)]
    Sessions(#[from] datafusion::error::DataFusionError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("the machine gives no randomness")]
    Randomness,
}
