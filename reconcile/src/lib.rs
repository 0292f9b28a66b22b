//! Rating and ledger: from the journal and the book to ledger lines.
//!
//! [`shell::run`] pins the versions of what it reads, [`engine`] fetches claims in the order of group
//! and item, [`core`] decides everything, and [`shell::ledger`] posts the lines in one commit.

pub mod core;
pub mod engine;
pub mod shell;

/// What can go wrong between the journal and the ledger.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error("a query over the lake failed")]
    Query(#[from] datafusion::error::DataFusionError),
    #[error("the tables of the lake do not hold what this version of rumledger expects")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Rate(#[from] core::rate::RateError),
    #[error("a part of a query was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
    #[error("the ledger holds a line that cannot be read: {0}")]
    Ledger(String),
    #[error("the journal holds a report that cannot be read: {0}")]
    Journal(String),
    #[error(
        "no run posted version {0} of the ledger; `rumledger sql \"SELECT DISTINCT ledger_version, posted_period, posted_at FROM ledger\"` names them"
    )]
    NoRun(u64),
    #[error(
        "the ledger has no line '{0}'; `rumledger statement --period YYYY-MM --format csv` names them"
    )]
    NoLine(String),
    #[error(
        "what is stored does not come to line {0}; `rumledger verify` names the first difference"
    )]
    Differs(String),
    #[error("the operator's key cannot be used: {0}")]
    OperatorKey(String),
    #[error("accounts.csv has no account {0}")]
    NoAccount(schemas::book::AccountId),
}
