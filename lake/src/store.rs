//! Object stores: local files that are fsynced, and S3.

use std::fmt;
use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, UploadPart,
};
use url::Url;

use crate::{LakeError, Result};

/// The store of a whole file system or bucket.
#[derive(Clone, Debug)]
pub(crate) struct Root(Arc<dyn ObjectStore>);

/// Opens the store of a location, and gives the location as a URL that ends in `/`.
pub(crate) fn open(location: &str) -> Result<(Url, Root)> {
    let wrong = |why: &dyn fmt::Display| LakeError::location(location, why);
    if location.is_empty() {
        return Err(wrong(&"it is blank"));
    }
    if location.starts_with("s3://") {
        let url =
            Url::parse(&format!("{}/", location.trim_end_matches('/'))).map_err(|e| wrong(&e))?;
        // Conditional puts (If-None-Match) are object_store's default for S3: they are what makes a
        // commit that lost the race fail.
        let s3 =
            AmazonS3Builder::from_env().with_url(url.as_str()).build().map_err(|e| wrong(&e))?;
        return Ok((url, Root(Arc::new(s3))));
    }
    if location.contains("://") && !location.starts_with("file://") {
        return Err(wrong(&"use a path or s3://BUCKET/PREFIX"));
    }
    let path = match location.strip_prefix("file://") {
        Some(_) => Url::parse(location)
            .map_err(|e| wrong(&e))?
            .to_file_path()
            .map_err(|()| wrong(&"the URL is no local path"))?,
        None => std::path::absolute(location).map_err(|e| wrong(&e))?,
    };
    let url = Url::from_directory_path(&path).map_err(|()| wrong(&"the path cannot be a URL"))?;
    Ok((url, Root(Arc::new(SyncedFiles::new()))))
}

impl Root {
    /// The store of one table, and the root store that it is a part of.
    pub(crate) fn for_table(&self, table: &Url) -> (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) {
        let prefix = Path::from_url_path(table.path()).unwrap_or_default();
        (Arc::new(PrefixStore::new(Arc::clone(&self.0), prefix)), Arc::clone(&self.0))
    }

    /// Makes the folder of a local table.
    pub(crate) fn make_root(&self, root: &Url, table: &str) -> Result<()> {
        let Ok(path) = root.to_file_path() else {
            return Ok(());
        };
        let path = path.join(table);
        std::fs::create_dir_all(&path)
            .map_err(|source| LakeError::Local { path: path.display().to_string(), source })
    }
}

/// Local files, synced to the disk after each put, completed upload and rename: first the file,
/// then its directory. A commit is put after its data, so it is never durable before them.
///
/// object_store 0.13 has no such option (0.14 has); this goes when the versions meet.
#[derive(Debug)]
struct SyncedFiles {
    inner: LocalFileSystem,
}

impl fmt::Display for SyncedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncedFiles({})", self.inner)
    }
}

impl SyncedFiles {
    fn new() -> Self {
        SyncedFiles { inner: LocalFileSystem::new() }
    }

    async fn sync(&self, location: &Path) -> object_store::Result<()> {
        let path = self.inner.path_to_filesystem(location)?;
        let synced = tokio::task::spawn_blocking(move || sync_file(&path)).await;
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Generic { store: "SyncedFiles", source }
        };
        synced.map_err(|e| generic(e.into()))?.map_err(|e| generic(e.into()))
    }
}

fn sync_file(path: &FilePath) -> std::io::Result<()> {
    File::open(path)?.sync_all()?;
    let parent: PathBuf = path.parent().map(FilePath::to_path_buf).unwrap_or_default();
    File::open(parent)?.sync_all()
}

#[async_trait]
impl ObjectStore for SyncedFiles {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let result = self.inner.put_opts(location, payload, opts).await?;
        self.sync(location).await?;
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        let path = self.inner.path_to_filesystem(location)?;
        Ok(Box::new(SyncedUpload { inner, path }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[std::ops::Range<u64>],
    ) -> object_store::Result<Vec<bytes::Bytes>> {
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
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to).await
    }

    async fn rename_opts(
        &self,
        from: &Path,
        to: &Path,
        options: RenameOptions,
    ) -> object_store::Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to).await
    }
}

#[derive(Debug)]
struct SyncedUpload {
    inner: Box<dyn MultipartUpload>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let result = self.inner.complete().await?;
        let path = self.path.clone();
        let synced = tokio::task::spawn_blocking(move || sync_file(&path)).await;
        match synced {
            Ok(Ok(())) => Ok(result),
            Ok(Err(error)) => {
                Err(object_store::Error::Generic { store: "SyncedFiles", source: error.into() })
            }
            Err(error) => {
                Err(object_store::Error::Generic { store: "SyncedFiles", source: error.into() })
            }
        }
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}
