//! Object stores: local files that are fsynced, and S3.

use std::fmt;
use std::path::{Component, Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use url::Url;

use crate::disk::Disk;
use crate::{LakeError, Result};

/// The store of a whole file system or bucket.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    store: Arc<dyn ObjectStore>,
    disk: Disk,
}

/// Opens the store of a location, and gives the location as a URL that ends in `/`.
pub(crate) fn open(location: &str) -> Result<(Url, Root)> {
    let wrong = |why: &dyn fmt::Display| LakeError::location(location, why);
    if location.is_empty() {
        return Err(wrong(&"it is blank"));
    }
    if location.starts_with("s3://") {
        let url = bucket_url(location)?;
        // Conditional puts (If-None-Match) are object_store's default for S3: they are what makes a
        // commit that lost the race fail.
        let s3 = AmazonS3Builder::from_env().with_url(url.as_str());
        if let Some(endpoint) = s3.get_config_value(&AmazonS3ConfigKey::Endpoint)
            && !Url::parse(&endpoint)
                .is_ok_and(|url| url.has_host() && url.scheme().starts_with("http"))
        {
            return Err(wrong(&format!(
                "AWS_ENDPOINT_URL (or AWS_ENDPOINT) '{endpoint}' is no http:// or https:// URL"
            )));
        }
        let s3 = s3.build().map_err(|e| wrong(&e))?;
        return Ok((url, Root { store: Arc::new(s3), disk: Disk::default() }));
    }
    if location.starts_with("s3:") {
        return Err(wrong(&"write s3://BUCKET/PREFIX"));
    }
    if location.contains("://") && !location.starts_with("file://") {
        return Err(wrong(&"use a path or s3://BUCKET/PREFIX"));
    }
    let path = match location.strip_prefix("file://") {
        Some(_) => Url::parse(location)
            .map_err(|e| wrong(&e))?
            .to_file_path()
            .map_err(|()| wrong(&"the URL is no local path"))?,
        None => without_parents(FilePath::new(location)).map_err(|e| wrong(&e))?,
    };
    let url = Url::from_directory_path(&path).map_err(|()| wrong(&"the path cannot be a URL"))?;
    // The store would take it for the character that it stands for in a URL.
    if path_of(&url)?.as_ref().contains('%') {
        return Err(wrong(&"a '%' cannot stand in its path"));
    }
    Ok((url, Root::on(Disk::default())))
}

/// `s3://BUCKET/PREFIX/`, where nothing in it means anything else in a URL: a part that was passed over would make two
/// lakes one.
fn bucket_url(location: &str) -> Result<Url> {
    let wrong = |why: &dyn fmt::Display| LakeError::location(location, why);
    if let Some(c) = location.chars().find(|c| matches!(c, '?' | '#' | '%') || c.is_control()) {
        return Err(wrong(&format!("{c:?} cannot stand in it")));
    }
    let whole = format!("{}/", location.trim_end_matches('/'));
    let url = Url::parse(&whole).map_err(|e| wrong(&e))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong(&"it names no bucket"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err(wrong(&"it is s3://BUCKET/PREFIX, without user, password and port"));
    }
    path_of(&url)?;
    Ok(url)
}

/// The path from the root of the file system, without `..`: a store knows only names.
fn without_parents(path: &FilePath) -> std::io::Result<PathBuf> {
    let mut whole = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => {
                // Of a link, the parent is that of what it leads to; what is not there yet is no link.
                whole = whole.canonicalize().unwrap_or(whole);
                whole.pop();
            }
            part => whole.push(part),
        }
    }
    Ok(whole)
}

/// Where something stands in the store of a whole file system or bucket.
fn path_of(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path()).map_err(|e| LakeError::location(url.as_str(), e))
}

impl Root {
    /// Local files.
    pub(crate) fn on(disk: Disk) -> Root {
        Root { store: Arc::new(SyncedFiles::new(disk.clone())), disk }
    }

    /// The store of one table, and the root store that it is a part of.
    ///
    /// # Errors
    /// If the table stands where no store has anything.
    pub(crate) fn for_table(
        &self,
        table: &Url,
    ) -> Result<(Arc<dyn ObjectStore>, Arc<dyn ObjectStore>)> {
        let prefixed = PrefixStore::new(Arc::clone(&self.store), path_of(table)?);
        Ok((Arc::new(prefixed), Arc::clone(&self.store)))
    }

    /// True if no object stands under a location.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) async fn is_empty(&self, root: &Url) -> Result<bool> {
        let prefix = path_of(root)?;
        match self.store.list(Some(&prefix)).next().await {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(source)) => {
                Err(LakeError::Reach { location: root.to_string(), source: Box::new(source) })
            }
        }
    }

    /// Makes the folder of a local table.
    pub(crate) fn make_root(&self, root: &Url, table: &str) -> Result<()> {
        let Ok(path) = root.to_file_path() else {
            return Ok(());
        };
        let path = path.join(table);
        self.disk
            .make_dir(&path)
            .map_err(|source| LakeError::Local { path: path.display().to_string(), source })
    }
}

/// Local files that are on the disk when a call returns: the bytes before the name that shows them,
/// the name before anything that refers to it. A commit is put after its data, so it is never durable
/// before them, and its name never shows half of it.
///
/// object_store 0.13 has no such option (0.14 has); this goes when the versions meet.
#[derive(Debug)]
struct SyncedFiles {
    inner: LocalFileSystem,
    disk: Disk,
}

impl fmt::Display for SyncedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncedFiles({})", self.inner)
    }
}

impl SyncedFiles {
    fn new(disk: Disk) -> Self {
        SyncedFiles { inner: LocalFileSystem::new(), disk }
    }

    /// Runs work on the disk off the runtime's own threads.
    async fn on_disk(
        &self,
        location: &Path,
        work: impl FnOnce(&Disk, &FilePath) -> std::io::Result<()> + Send + 'static,
    ) -> object_store::Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let disk = self.disk.clone();
        let name = location.to_string();
        let done = tokio::task::spawn_blocking(move || work(&disk, &path)).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(object_store::Error::AlreadyExists { path: name, source: error.into() })
            }
            Ok(Err(error)) => Err(generic(error)),
            Err(error) => Err(generic(error)),
        }
    }
}

fn generic(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "SyncedFiles", source: source.into() }
}

#[async_trait]
impl ObjectStore for SyncedFiles {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let replace = match opts.mode {
            PutMode::Overwrite => true,
            PutMode::Create => false,
            // Nothing here asks for it; the inner store says that it cannot.
            PutMode::Update(_) => return self.inner.put_opts(location, payload, opts).await,
        };
        self.on_disk(location, move |disk, path| disk.put(path, &payload, replace)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        self.on_disk(location, |disk, path| disk.make_parent(path)).await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(SyncedUpload { inner, path, disk: self.disk.clone() }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.disk.check().map_err(generic)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> object_store::Result<Vec<bytes::Bytes>> {
        self.disk.check().map_err(generic)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.on_disk(to, |disk, path| disk.make_parent(path)).await?;
        self.inner.copy_opts(from, to, options).await?;
        self.on_disk(to, Disk::sync_named).await
    }

    async fn rename_opts(
        &self,
        from: &Path,
        to: &Path,
        options: RenameOptions,
    ) -> object_store::Result<()> {
        self.on_disk(to, |disk, path| disk.make_parent(path)).await?;
        self.inner.rename_opts(from, to, options).await?;
        self.on_disk(to, Disk::sync_named).await
    }
}

#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
    disk: Disk,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let result = self.inner.complete().await?;
        let (path, disk) = (self.path.clone(), self.disk.clone());
        let synced = tokio::task::spawn_blocking(move || disk.sync_named(&path)).await;
        synced.map_err(generic)?.map_err(generic)?;
        Ok(result)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_and_a_prefix_and_nothing_else() {
        for (location, is_one) in [
            ("s3://lakes", true),
            ("s3://lakes/a b/ü+&=;", true),
            ("s3://lakes/x///", true),
            // Parts that a URL keeps elsewhere: two such lakes would be one.
            ("s3://lakes/x?a", false),
            ("s3://lakes/x#b", false),
            ("s3://lakes/p%41", false),
            ("s3://lakes/a\tb", false),
            ("s3://user:secret@lakes/x", false),
            ("s3://lakes:9000/x", false),
            ("s3://", false),
            ("s3:///x", false),
            ("s3://lakes//x", false),
        ] {
            let found = bucket_url(location);
            assert_eq!(found.is_ok(), is_one, "{location}: {found:?}");
        }
    }
}
