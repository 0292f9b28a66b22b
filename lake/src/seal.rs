//! Digests of what is stored, so that a changed bit is found wherever it lies.
//!
//! Each data file's SHA-256 stands in the commit that adds it, as the tag [`TAG`]; the digest of a
//! table's log up to a version goes into a manifest. Files that a merge wrote get theirs in the commit
//! after it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use deltalake::kernel::{Action, Add};
use deltalake::logstore::{ObjectStoreRef, get_actions};
use deltalake::protocol::SaveMode;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use parquet::basic::LogicalType;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;
use schemas::merkle::{self, Hash};
use schemas::period::Moment;
use serde_json::Value;

use crate::{Appended, LakeError, Result, Table};

/// Name of the tag of a file's digest, in lower-case hexadecimal.
pub const TAG: &str = "rumledger.sha256";

/// Files that are read at once.
const FILES_TOGETHER: usize = 2;

/// What became of a check of the files of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesChecked {
    /// Files whose bytes have the digest that their commit names.
    pub sealed: u64,
    /// Files whose commit names none.
    pub unsealed: u64,
    /// The first that differs, by its path, and how.
    pub damaged: Option<(String, String)>,
}

/// A commit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFault {
    pub version: u64,
    pub expected: String,
    pub found: String,
}

async fn bytes_at(store: &ObjectStoreRef, path: &str) -> object_store::Result<bytes::Bytes> {
    store.get(&Path::parse(path)?).await?.bytes().await
}

/// How the statistics in a file's commit, by which files are passed over, differ from what the file says of itself.
fn misstated(add: &Add, bytes: &bytes::Bytes) -> Option<String> {
    let said = add.stats.as_deref()?;
    let Ok(said) = serde_json::from_str::<Value>(said) else {
        return Some("the statistics in its commit are no JSON".to_owned());
    };
    let file = match ParquetMetaDataReader::new().parse_and_finish(bytes) {
        Ok(file) => file,
        Err(error) => return Some(format!("it is no Parquet: {error}")),
    };
    let rows = file.file_metadata().num_rows();
    if said["numRecords"].as_i64() != Some(rows) {
        return Some(format!("it has {rows} rows; its commit says {}", said["numRecords"]));
    }
    for (i, column) in file.file_metadata().schema_descr().columns().iter().enumerate() {
        let name = column.path().string();
        let parts: Option<Vec<_>> =
            file.row_groups().iter().map(|group| group.column(i).statistics()).collect();
        let Some(parts) = parts else { continue };
        let nulls: Option<u64> = parts.iter().map(|part| part.null_count_opt()).sum();
        let nulls_said = said["nullCount"][&name].as_u64();
        if let (Some(nulls), Some(said)) = (nulls, nulls_said)
            && nulls != said
        {
            return Some(format!("it has {nulls} nulls of {name}; its commit says {said}"));
        }
        let ends = [("minValues", Ordering::Less), ("maxValues", Ordering::Greater)];
        for (end, beyond) in ends {
            let bound = &said[end][&name];
            if !bound.is_null() && parts.iter().any(|part| is_beyond(part, column, bound, beyond)) {
                return Some(format!(
                    "it has values of {name} beyond {bound}, in {end} of its commit"
                ));
            }
        }
    }
    None
}

/// True if a part of a column has a value that is less, or greater, than a bound.
fn is_beyond(
    part: &Statistics,
    column: &ColumnDescriptor,
    bound: &Value,
    beyond: Ordering,
) -> bool {
    let is_least = beyond == Ordering::Less;
    let is = |compared: Option<Ordering>| compared == Some(beyond);
    match part {
        Statistics::ByteArray(part) if column.logical_type_ref() == Some(&LogicalType::String) => {
            let end = if is_least { part.min_opt() } else { part.max_opt() };
            end.is_some_and(|end| is(bound.as_str().map(|bound| end.data().cmp(bound.as_bytes()))))
        }
        Statistics::Int32(part) => {
            let end = if is_least { part.min_opt() } else { part.max_opt() };
            end.is_some_and(|end| is(bound.as_i64().map(|bound| i64::from(*end).cmp(&bound))))
        }
        Statistics::Int64(part) => {
            let end = if is_least { part.min_opt() } else { part.max_opt() };
            let bound = match column.logical_type_ref() {
                // Journal and ledger count in whole seconds, and store microseconds.
                Some(LogicalType::Timestamp { .. }) => match bound.as_str().map(str::parse) {
                    Some(Ok(Moment::At(second))) => second.checked_mul(1_000_000),
                    _ => return true,
                },
                _ => bound.as_i64(),
            };
            end.is_some_and(|end| is(bound.map(|bound| end.cmp(&bound))))
        }
        _ => false,
    }
}

fn rows_of(add: &Add) -> i64 {
    let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Value>(stats).ok());
    stats.and_then(|stats| stats["numRecords"].as_i64()).unwrap_or(0)
}

fn tag_of(add: &Add) -> Option<String> {
    add.tags.as_ref()?.get(TAG).cloned().flatten()
}

impl Table {
    /// Looks in the log for rows that came twice, or went: a commit that takes away a file which was not there any more,
    /// or one that writes rows anew and has more or fewer of them than before. `None` if there is none.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn check_log(&self) -> Result<Option<LogFault>> {
        // Of each file that is there, how many rows its commit says it has.
        let mut live: HashMap<String, i64> = HashMap::new();
        for version in 0..=self.version() {
            let entry = self.log_entry(version).await?;
            let (mut before, mut after, mut is_anew) = (0, 0, true);
            for action in get_actions(version, &entry).map_err(self.failed("read"))? {
                match action {
                    Action::Remove(gone) => {
                        let Some(rows) = live.remove(&gone.path) else {
                            return Ok(Some(LogFault {
                                version,
                                expected: format!("{} there until then", gone.path),
                                found: "taken away before: its rows are there twice".to_owned(),
                            }));
                        };
                        before += rows;
                        is_anew &= !gone.data_change;
                    }
                    Action::Add(add) => {
                        let rows = rows_of(&add);
                        after += rows;
                        is_anew &= !add.data_change;
                        // One that was there is given another tag.
                        before += live.insert(add.path, rows).unwrap_or_default();
                    }
                    _ => {}
                }
            }
            if is_anew && before != after {
                return Ok(Some(LogFault {
                    version,
                    expected: format!("{before} rows written anew"),
                    found: format!("{after} rows"),
                }));
            }
        }
        Ok(None)
    }

    /// Gives files that were just written the tag of their digest.
    pub(crate) async fn seal(&self, adds: &mut [Add]) -> Result<()> {
        let store = self.delta.object_store();
        for add in adds {
            let bytes = bytes_at(&store, &add.path).await;
            let bytes = bytes.map_err(|e| LakeError::store(self.name(), e))?;
            let digest = merkle::digest(&bytes).to_string();
            add.tags.get_or_insert_default().insert(TAG.to_owned(), Some(digest));
        }
        Ok(())
    }

    /// Reads every file of the loaded version and of those that are pinned, and compares it with the digest and the
    /// statistics of its commit.
    ///
    /// # Errors
    /// If the store fails, or the log cannot be read.
    pub async fn check_files(&self, pinned: &BTreeSet<u64>) -> Result<FilesChecked> {
        let files: Vec<Add> = self.adds(pinned).await?.into_values().collect();
        let mut checked = FilesChecked::default();
        let store = self.delta.object_store();
        let looked_at = futures::stream::iter(files).map(|add| {
            let store = store.clone();
            async move {
                let bytes = match bytes_at(&store, &add.path).await {
                    Ok(bytes) => bytes,
                    Err(object_store::Error::NotFound { .. }) => {
                        return Ok((add.path, false, Some("it is not there".to_owned())));
                    }
                    Err(error) => return Err(error),
                };
                let (tag, digest) = (tag_of(&add), merkle::digest(&bytes).to_string());
                let how = match &tag {
                    Some(tag) if *tag != digest => {
                        Some(format!("its SHA-256 is {digest}; its commit says {tag}"))
                    }
                    _ => misstated(&add, &bytes),
                };
                Ok((add.path, tag.is_some(), how))
            }
        });
        let mut looked_at = looked_at.buffered(FILES_TOGETHER);
        while let Some((path, is_sealed, how)) =
            looked_at.try_next().await.map_err(|e| LakeError::store(self.name(), e))?
        {
            match how {
                Some(how) => {
                    checked.damaged.get_or_insert((path, how));
                }
                None if is_sealed => checked.sealed += 1,
                None => checked.unsealed += 1,
            }
        }
        Ok(checked)
    }

    /// Gives the files that have none the tags of their digests, in a commit of its own.
    pub(crate) async fn seal_merged(&mut self) -> Result<()> {
        loop {
            let mut adds: Vec<Add> = self
                .adds(&BTreeSet::new())
                .await?
                .into_values()
                .filter(|add| tag_of(add).is_none())
                .collect();
            if adds.is_empty() {
                return Ok(());
            }
            self.seal(&mut adds).await?;
            // The same files again: no row comes or goes.
            let actions =
                adds.into_iter().map(|add| Action::Add(Add { data_change: false, ..add }));
            match self.commit(actions.collect(), &[], SaveMode::Append).await? {
                Appended::Committed(_) => return Ok(()),
                Appended::Stale | Appended::Overtaken => self.refresh().await?,
            }
        }
    }

    /// The files of the loaded version and of the pinned ones by their paths, as their last commits add them.
    async fn adds(&self, pinned: &BTreeSet<u64>) -> Result<BTreeMap<String, Add>> {
        // Each with the version that added it first.
        let mut files: BTreeMap<String, (u64, Add)> = BTreeMap::new();
        let mut kept: BTreeMap<String, Add> = BTreeMap::new();
        for version in 0..=self.version() {
            let entry = self.log_entry(version).await?;
            for action in get_actions(version, &entry).map_err(self.failed("read"))? {
                match action {
                    Action::Add(add) => {
                        let first = files.get(&add.path).map_or(version, |(first, _)| *first);
                        files.insert(add.path.clone(), (first, add));
                    }
                    Action::Remove(remove) => {
                        if let Some((first, add)) = files.remove(&remove.path)
                            && pinned.range(first..version).next().is_some()
                        {
                            kept.insert(add.path.clone(), add);
                        }
                    }
                    _ => {}
                }
            }
        }
        kept.extend(files.into_iter().map(|(path, (_, add))| (path, add)));
        Ok(kept)
    }

    /// A digest of the table's log from its first commit up to a version.
    ///
    /// # Errors
    /// If a commit cannot be read.
    pub async fn log_digest(&self, version: u64) -> Result<Hash> {
        let mut digest = Hash::default();
        for version in 0..=version {
            digest = merkle::link(&digest, &merkle::leaf(&self.log_entry(version).await?));
        }
        Ok(digest)
    }

    async fn log_entry(&self, version: u64) -> Result<bytes::Bytes> {
        let entry = self.delta.log_store().read_commit_entry(version).await;
        let why = || format!("its log lacks version {version}");
        entry
            .map_err(self.failed("read"))?
            .ok_or_else(|| LakeError::Layout { table: self.name().to_owned(), why: why() })
    }
}
