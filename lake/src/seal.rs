//! Digests of what is stored, so that a changed bit is found wherever it lies.
//!
//! Each data file's SHA-256 stands in the commit that adds it, as the tag [`TAG`]; the digest of a
//! table's log up to a version goes into a manifest. Files that a merge wrote get theirs in the commit
//! after it.

use std::collections::BTreeMap;

use deltalake::kernel::{Action, Add};
use deltalake::logstore::{ObjectStoreRef, get_actions};
use deltalake::protocol::SaveMode;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use schemas::merkle::{self, Hash};

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

/// The SHA-256 of a file's bytes.
async fn digest_at(store: &ObjectStoreRef, path: &str) -> object_store::Result<String> {
    let bytes = store.get(&Path::parse(path)?).await?.bytes().await?;
    Ok(merkle::digest(&bytes).to_string())
}

fn tag_of(add: &Add) -> Option<String> {
    add.tags.as_ref()?.get(TAG).cloned().flatten()
}

impl Table {
    /// Gives files that were just written the tag of their digest.
    pub(crate) async fn seal(&self, adds: &mut [Add]) -> Result<()> {
        let store = self.delta.object_store();
        for add in adds {
            let digest = digest_at(&store, &add.path).await;
            let digest = digest.map_err(|e| LakeError::store(self.name(), e))?;
            add.tags.get_or_insert_default().insert(TAG.to_owned(), Some(digest));
        }
        Ok(())
    }

    /// Reads every file of the loaded version, and compares it with the digest of its commit.
    ///
    /// # Errors
    /// If the store fails, or the log cannot be read.
    pub async fn check_files(&self) -> Result<FilesChecked> {
        let files: Vec<(String, Option<String>)> =
            self.adds().await?.into_values().map(|add| (add.path.clone(), tag_of(&add))).collect();
        let mut checked = FilesChecked::default();
        let store = self.delta.object_store();
        let digests = futures::stream::iter(files).map(|(path, tag)| {
            let store = store.clone();
            async move {
                let digest = match digest_at(&store, &path).await {
                    Ok(digest) => Ok(digest),
                    Err(object_store::Error::NotFound { .. }) => Err("it is not there"),
                    Err(error) => return Err(error),
                };
                Ok((path, tag, digest))
            }
        });
        let mut digests = digests.buffered(FILES_TOGETHER);
        while let Some((path, tag, digest)) =
            digests.try_next().await.map_err(|e| LakeError::store(self.name(), e))?
        {
            match (tag, digest) {
                (_, Err(why)) => {
                    checked.damaged.get_or_insert((path, why.to_owned()));
                }
                (None, Ok(_)) => checked.unsealed += 1,
                (Some(tag), Ok(digest)) if tag == digest => checked.sealed += 1,
                (Some(tag), Ok(digest)) => {
                    let how = format!("its SHA-256 is {digest}; its commit says {tag}");
                    checked.damaged.get_or_insert((path, how));
                }
            }
        }
        Ok(checked)
    }

    /// Gives the files that have none the tags of their digests, in a commit of its own.
    pub(crate) async fn seal_merged(&mut self) -> Result<()> {
        loop {
            let mut adds: Vec<Add> =
                self.adds().await?.into_values().filter(|add| tag_of(add).is_none()).collect();
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

    /// The files of the loaded version by their paths, as their commits add them.
    async fn adds(&self) -> Result<BTreeMap<String, Add>> {
        let mut files: BTreeMap<String, Add> = BTreeMap::new();
        for version in 0..=self.version() {
            let entry = self.log_entry(version).await?;
            for action in get_actions(version, &entry).map_err(self.failed("read"))? {
                match action {
                    Action::Add(add) => {
                        files.insert(add.path.clone(), add);
                    }
                    Action::Remove(remove) => {
                        files.remove(&remove.path);
                    }
                    _ => {}
                }
            }
        }
        Ok(files)
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
