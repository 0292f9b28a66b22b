//! What can go wrong with the lake.

use std::fmt;

use crate::disk::NotSynced;

/// A failure of the lake. [`LakeError::retry`] tells whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    #[error("'{location}' is no lake: {why}")]
    Location { location: String, why: String },
    #[error("cannot look into {location}")]
    Reach {
        location: String,
        #[source]
        source: Box<object_store::Error>,
    },
    #[error("the store of table {table} failed")]
    Store {
        table: String,
        #[source]
        source: Box<object_store::Error>,
    },
    #[error("cannot {what} table {table}")]
    Delta {
        table: String,
        what: &'static str,
        #[source]
        source: Box<deltalake::DeltaTableError>,
    },
    #[error("cannot make or sync {path}")]
    Local {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("table {table} is not laid out as this version of rumledger expects: {why}")]
    Layout { table: String, why: String },
    #[error("cannot query table {table}")]
    Query {
        table: String,
        #[source]
        source: Box<datafusion::error::DataFusionError>,
    },
}

/// What object_store says of S3, and what to do about it: it names neither settings nor rights.
const ADVICE: [(&str, &str); 5] = [
    (
        "169.254.169.254",
        "there are no credentials for the bucket: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where an instance has a role",
    ),
    (
        "URL scheme is not allowed",
        "the endpoint is http://, without encryption: set AWS_ALLOW_HTTP=true if that is meant",
    ),
    (
        "lacked the necessary privileges",
        "these credentials may not do this: they have to list, read, write and delete under the lake's prefix (reading alone is enough for what writes nothing)",
    ),
    (
        "400 Bad Request",
        "the store takes the request for a wrong one: as a rule AWS_REGION is not the bucket's",
    ),
    ("NoSuchBucket", "make the bucket, or correct its name: rumledger makes none"),
];

/// What to do about a failure of a bucket, where its texts do not say it.
#[must_use]
pub fn advice(texts: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(said, _)| texts.contains(said)).map(|(_, advice)| *advice)
}

impl LakeError {
    pub(crate) fn location(location: &str, why: impl fmt::Display) -> Self {
        LakeError::Location { location: location.to_owned(), why: why.to_string() }
    }

    pub(crate) fn store(table: &str, source: object_store::Error) -> Self {
        LakeError::Store { table: table.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn delta(
        table: &str,
        what: &'static str,
        source: deltalake::DeltaTableError,
    ) -> Self {
        LakeError::Delta { table: table.to_owned(), what, source: Box::new(source) }
    }

    pub(crate) fn query(table: &str, source: datafusion::error::DataFusionError) -> Self {
        LakeError::Query { table: table.to_owned(), source: Box::new(source) }
    }

    /// True of a merge whose files others exchanged each time that it was tried.
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        use deltalake::DeltaTableError::Transaction;
        use deltalake::kernel::transaction::TransactionError::CommitConflict;
        matches!(self, LakeError::Delta { source, .. } if matches!(**source, Transaction { source: CommitConflict(_) }))
    }

    /// True if the failure lies in the world (a store out of reach), not in what was asked.
    #[must_use]
    pub fn retry(&self) -> bool {
        // A disk that does not sync is for a person to look at.
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if error.is::<NotSynced>() || inner.is_some_and(|e| e.is::<NotSynced>()) {
                return false;
            }
            cause = error.source();
        }
        matches!(
            self,
            LakeError::Reach { .. }
                | LakeError::Store { .. }
                | LakeError::Delta { .. }
                | LakeError::Local { .. }
        )
    }
}
