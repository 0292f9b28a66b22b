//! Upkeep of a table while others write and read it.

use std::num::NonZeroU64;
use std::time::Duration;

use deltalake::DeltaTableError;
use deltalake::kernel::transaction::CommitProperties;

use crate::table::writer_properties;
use crate::{LakeError, Result, Table};

/// What compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optimized {
    pub files_added: u64,
    pub files_removed: u64,
    /// The version of the table then.
    pub version: u64,
}

/// What vacuum removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub files: Vec<String>,
}

impl Table {
    /// Merges small files into larger ones and writes a checkpoint. Rows stay as they are, readers of
    /// older versions keep their files, writers go on: what they append meanwhile is not touched.
    ///
    /// # Errors
    /// If the store fails, or another upkeep merged the same files at the same moment.
    pub async fn optimize(&mut self, target_bytes: NonZeroU64) -> Result<Optimized> {
        let (delta, metrics) = self
            .delta
            .clone()
            .optimize()
            .with_target_size(target_bytes)
            // One at a time: a merge holds what it writes in memory.
            .with_max_concurrent_tasks(1)
            .with_writer_properties(writer_properties())
            .with_commit_properties(CommitProperties::default().with_max_retries(50))
            .await
            .map_err(self.failed("optimize"))?;
        self.delta = delta;
        deltalake::checkpoints::create_checkpoint(&self.delta, None)
            .await
            .map_err(self.failed("checkpoint"))?;
        Ok(Optimized {
            files_added: metrics.num_files_added,
            files_removed: metrics.num_files_removed,
            version: self.version(),
        })
    }

    /// Removes files that no version younger than `keep` needs, and none of `versions`: what compaction
    /// replaced, and what crashed writers left behind.
    ///
    /// # Errors
    /// If the store fails, or `keep` is shorter than what the table promises its readers.
    pub async fn vacuum(
        &self,
        keep: Duration,
        versions: &[u64],
        dry_run: bool,
    ) -> Result<Vacuumed> {
        let keep = chrono::Duration::from_std(keep).map_err(|error| {
            LakeError::delta("", "vacuum", DeltaTableError::generic(error.to_string()))
        })?;
        let (_, metrics) = self
            .delta
            .clone()
            .vacuum()
            .with_retention_period(keep)
            .with_keep_versions(versions)
            .with_dry_run(dry_run)
            .await
            .map_err(self.failed("vacuum"))?;
        Ok(Vacuumed { files: metrics.files_deleted })
    }
}
