//! A log into which no commit goes that takes away what is not there any more.
//!
//! delta-rs moves a commit behind those that came since it was planned, if they do not conflict with it. That one of them
//! took away the same files it does not look at where no data changed, as in merges (1.1.3, `conflict_checker.rs`): of two
//! merges at once both would add the rows of these files, and every row would be there twice.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use delta_kernel::Engine;
use deltalake::kernel::transaction::{CommitConflictError, TransactionError};
use deltalake::kernel::{Action, Version};
use deltalake::logstore::{CommitOrBytes, LogStore, LogStoreConfig, LogStoreRef, get_actions};
use deltalake::{DeltaResult, DeltaTableError};
use object_store::ObjectStore;
use object_store::path::Path;
use url::Url;
use uuid::Uuid;

/// The log of a table, for a commit that was planned on one version of it.
pub(crate) struct GuardedLog {
    pub(crate) log: LogStoreRef,
    pub(crate) planned_on: u64,
}

fn removed(version: Version, entry: &Bytes) -> Result<HashSet<String>, DeltaTableError> {
    let of = |action| match action {
        Action::Remove(gone) => Some(gone.path),
        _ => None,
    };
    Ok(get_actions(version, entry)?.into_iter().filter_map(of).collect())
}

impl GuardedLog {
    /// True if a commit between the plan and this one took away a file that this one does.
    async fn is_overtaken(&self, version: Version, entry: &Bytes) -> Result<bool, DeltaTableError> {
        let ours = removed(version, entry)?;
        for before in self.planned_on + 1..version {
            let entry = self.log.read_commit_entry(before).await?.ok_or_else(|| {
                DeltaTableError::generic(format!("the log lacks version {before}"))
            })?;
            if !removed(before, &entry)?.is_disjoint(&ours) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl LogStore for GuardedLog {
    fn name(&self) -> String {
        self.log.name()
    }

    async fn refresh(&self) -> DeltaResult<()> {
        self.log.refresh().await
    }

    async fn read_commit_entry(&self, version: Version) -> DeltaResult<Option<Bytes>> {
        self.log.read_commit_entry(version).await
    }

    async fn write_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        let unread = |error: DeltaTableError| TransactionError::LogStoreError {
            msg: "the commits before this one cannot be read".to_owned(),
            source: Box::new(error),
        };
        let CommitOrBytes::LogBytes(entry) = &commit else {
            return Err(unread(DeltaTableError::generic("no store of ours commits by renaming")));
        };
        if self.is_overtaken(version, entry).await.map_err(unread)? {
            return Err(CommitConflictError::ConcurrentDeleteDelete.into());
        }
        self.log.write_commit_entry(version, commit, operation).await
    }

    async fn abort_commit_entry(
        &self,
        version: Version,
        commit: CommitOrBytes,
        operation: Uuid,
    ) -> Result<(), TransactionError> {
        self.log.abort_commit_entry(version, commit, operation).await
    }

    async fn get_latest_version(&self, start: Version) -> DeltaResult<Version> {
        self.log.get_latest_version(start).await
    }

    fn object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.log.object_store(operation)
    }

    fn root_object_store(&self, operation: Option<Uuid>) -> Arc<dyn ObjectStore> {
        self.log.root_object_store(operation)
    }

    fn engine(&self, operation: Option<Uuid>) -> Arc<dyn Engine> {
        self.log.engine(operation)
    }

    fn transaction_url(&self, operation: Option<Uuid>) -> DeltaResult<Url> {
        self.log.transaction_url(operation)
    }

    fn log_path(&self) -> &Path {
        self.log.log_path()
    }

    fn config(&self) -> &LogStoreConfig {
        self.log.config()
    }
}
