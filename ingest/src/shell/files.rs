//! Files, folders and bundles as inputs (contract 1.3: in the order of their paths' bytes).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use walkdir::WalkDir;

use crate::core::carrier::Source;

/// A file to read reports from.
pub struct FileSource {
    path: PathBuf,
    name: String,
}

impl FileSource {
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        let name = path.to_string_lossy().into_owned();
        FileSource { path, name }
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn keep(&self, all: &mut dyn Read) -> io::Result<Option<Box<dyn Source>>> {
        if std::fs::metadata(&self.path)?.is_file() {
            return Ok(None);
        }
        let mut file = NamedTempFile::new()?;
        io::copy(all, &mut file)?;
        Ok(Some(Box::new(Spooled { file, name: self.name.clone() })))
    }
}

/// What came through a pipe, in a temporary file that goes with it.
struct Spooled {
    file: NamedTempFile,
    name: String,
}

impl Source for Spooled {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.file.reopen()?))
    }
}

/// All files under the given paths, in the order of their paths' bytes.
///
/// # Errors
/// If a path is not there or cannot be listed; the path is named.
pub fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut files = Vec::new();
    for path in paths {
        let metadata = std::fs::metadata(path).map_err(|e| (path.clone(), e))?;
        if metadata.is_dir() {
            for entry in WalkDir::new(path).follow_links(true) {
                let entry = entry.map_err(|e| {
                    let at = e.path().unwrap_or(path).to_path_buf();
                    (at, e.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links")))
                })?;
                if entry.file_type().is_file() {
                    files.push(entry.into_path());
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort_by(|a, b| path_bytes(a).cmp(path_bytes(b)));
    Ok(files)
}

fn path_bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
