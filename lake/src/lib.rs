//! The lake: Delta tables on local files or S3, by one code.
//!
//! Architecture Invariant: this is the only crate that names `deltalake` and `object_store`.
//! Everything else sees tables, versions, Arrow batches and DataFusion providers.

mod book;
pub mod cache;
mod disk;
mod error;
pub mod failpoint;
mod files;
mod guard;
mod maintain;
mod seal;
mod store;
mod table;
#[cfg(test)]
mod torn;

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use deltalake::DeltaTable;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::{StorageConfig, default_logstore};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::SaveMode;
use futures::StreamExt as _;
use object_store::ObjectStoreExt as _;
use url::Url;

pub use book::{
    Import, StoredBook, TABLE as BOOK, book_stands_at, book_that_stood_at, book_version,
    each_trust_code, each_trust_code_at, load_book, load_book_kept, save_book, take_back_book,
};
pub use error::{LakeError, advice};
pub use maintain::{Optimized, Vacuumed};
pub use seal::FilesChecked;
pub use table::{Appended, Changes, Fence, Table, Written};

type Result<T, E = LakeError> = std::result::Result<T, E>;

/// A folder or bucket prefix that holds the tables.
#[derive(Clone, Debug)]
pub struct Lake {
    root: Url,
    store: store::Root,
}

/// How a table is laid out when it is made.
pub struct Layout {
    pub schema: SchemaRef,
    pub partition_columns: &'static [&'static str],
    /// Columns whose minimum and maximum are kept for each file, so that files can be skipped.
    pub statistics: &'static [&'static str],
}

impl Lake {
    /// Opens a lake at a path or an `s3://` URL. Local folders are made when the first table is.
    ///
    /// # Errors
    /// If the location is neither, or the store cannot be configured from the environment.
    pub fn open(location: &str) -> Result<Lake> {
        let (root, store) = store::open(location)?;
        Ok(Lake { root, store })
    }

    /// Where the lake is, as it would be given again.
    #[must_use]
    pub fn location(&self) -> String {
        self.root
            .to_file_path()
            .map_or_else(|()| self.root.to_string(), |p| p.display().to_string())
    }

    /// True if nothing is there: no folder, or in a bucket no object under the prefix.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_absent(&self) -> Result<bool> {
        match self.root.to_file_path() {
            Ok(path) => Ok(!path.exists()),
            Err(()) => self.store.is_empty(&self.root).await,
        }
    }

    /// A local folder for caches of this lake: inside a local lake, in the user's cache otherwise.
    #[must_use]
    pub fn cache_dir(&self, user_cache: &Path) -> PathBuf {
        match self.root.to_file_path() {
            Ok(path) => path.join("_cache"),
            Err(()) => {
                let name: String = self
                    .root
                    .as_str()
                    .chars()
                    .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                    .collect();
                user_cache.join("rumledger").join(name)
            }
        }
    }

    fn delta(&self, name: &str) -> Result<DeltaTable> {
        let url = self
            .root
            .join(&format!("{name}/"))
            .map_err(|e| LakeError::location(&self.location(), e))?;
        let (prefixed, root) = self.store.for_table(&url)?;
        let log_store = default_logstore(prefixed, root, &url, &StorageConfig::default());
        Ok(DeltaTable::new(log_store))
    }

    /// The newest version of a table, or `None` if there is no such table.
    ///
    /// # Errors
    /// If the store fails, or what is there is no Delta table.
    pub async fn table(&self, name: &str) -> Result<Option<Table>> {
        self.load(name, None).await
    }

    /// A table at a version that a run pinned.
    ///
    /// # Errors
    /// As [`Lake::table`].
    pub async fn table_at(&self, name: &str, version: u64) -> Result<Option<Table>> {
        self.load(name, Some(version)).await
    }

    async fn load(&self, name: &str, version: Option<u64>) -> Result<Option<Table>> {
        let mut delta = self.delta(name)?;
        if !has_log(name, &delta).await? {
            return Ok(None);
        }
        let loaded = match version {
            None => delta.load().await,
            Some(version) => delta.load_version(version).await,
        };
        loaded.map_err(|error| LakeError::delta(name, "load", error))?;
        Ok(Some(Table::loaded(name, delta).await?))
    }

    /// True if a table stands where [`Table::stands_at`] said, of a table that is not there if the word is blank. It is
    /// not loaded: the file of that commit is the same, by the store's own word of it, and there is no next one.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn stands_still(&self, name: &str, word: &str) -> Result<bool> {
        let delta = self.delta(name)?;
        let mut parts = word.splitn(3, '@').skip(1);
        let (Some(version), Some(mark)) = (parts.next(), parts.next()) else {
            return Ok(word.is_empty() && !has_log(name, &delta).await?);
        };
        let Some(next) = version.parse::<u64>().ok().and_then(|version| version.checked_add(1))
        else {
            return Ok(false);
        };
        Ok(!mark.is_empty()
            && table::mark_of(name, &delta, next - 1).await? == mark
            && table::mark_of(name, &delta, next).await?.is_empty())
    }

    /// The newest version of a table, which is made if it is not there. One that an earlier version of
    /// rumledger made gets the columns that it lacks.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn ensure(&self, name: &str, layout: &Layout) -> Result<Table> {
        if let Some(table) = self.table(name).await? {
            return table.with_columns_of(&layout.schema).await;
        }
        self.store.make_root(&self.root, name)?;
        let delta = self.delta(name)?;
        let columns = table::delta_columns(name, &layout.schema)?;
        let made = CreateBuilder::new()
            .with_log_store(delta.log_store())
            .with_table_name(name)
            .with_columns(columns)
            .with_partition_columns(layout.partition_columns.iter().copied())
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            // Versions are pinned by ledger lines, so the log is never cleaned by age.
            .with_configuration_property(
                deltalake::TableProperty::EnableExpiredLogCleanup,
                Some("false"),
            )
            .with_configuration_property(deltalake::TableProperty::CheckpointInterval, Some("100"))
            .with_configuration_property(
                deltalake::TableProperty::DataSkippingStatsColumns,
                Some(layout.statistics.join(",")),
            )
            .await;
        match made {
            Ok(delta) => Table::loaded(name, delta).await,
            // Somebody else may be making it at this moment; delta-rs says so in several ways, and
            // before the first commit can be read.
            Err(error) => {
                for _ in 0..20 {
                    if let Ok(Some(table)) = self.table(name).await {
                        return Ok(table);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(LakeError::delta(name, "create", error))
            }
        }
    }
}

/// True if the table's first commit is there; the log is never cleaned by age. A log that has commits, but not its
/// first one, is damaged: taken for none, a ledger would silently be empty.
async fn has_log(name: &str, delta: &DeltaTable) -> Result<bool> {
    let store = delta.object_store();
    let first = object_store::path::Path::from("_delta_log/00000000000000000000.json");
    let has_first = async || match store.head(&first).await {
        Ok(_) => Ok(true),
        Err(object_store::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(LakeError::store(name, error)),
    };
    if has_first().await? {
        return Ok(true);
    }
    let log = object_store::path::Path::from("_delta_log");
    let mut files = store.list(Some(&log));
    while let Some(file) = files.next().await {
        let other = match file {
            Ok(file) => file.location,
            Err(object_store::Error::NotFound { .. }) => break,
            Err(error) => return Err(LakeError::store(name, error)),
        };
        if other.extension() != Some("json") {
            continue;
        }
        // Somebody may have made it since.
        if has_first().await? {
            return Ok(true);
        }
        let why = format!(
            "{other} is there, but not the first commit of its log, {first}; restore that from a copy"
        );
        return Err(LakeError::Layout { table: name.to_owned(), why });
    }
    Ok(false)
}
