//! Writing to the disk so that a power cut leaves nothing half-done.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use object_store::PutPayload;

/// One change or sync, as a disk that loses power sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    MadeDir(PathBuf),
    Wrote(PathBuf),
    SyncedFile(PathBuf),
    /// From now on a name shows the file of another.
    Named {
        from: PathBuf,
        to: PathBuf,
    },
    SyncedDir(PathBuf),
}

/// The disk did not sync. What it still holds of what was written since, nobody knows: the system may
/// show it and lose it. So this process reads and writes nothing there any more.
#[derive(Debug, thiserror::Error)]
#[error("the disk did not sync what was written; look at the disk, then start again")]
pub struct NotSynced;

/// The local disk. Tests watch its steps, and cut the power at any of them.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    broken: Arc<AtomicBool>,
    #[cfg(test)]
    watch: Option<Watch>,
}

/// Told of each step; an error is the power being cut.
#[cfg(test)]
pub(crate) type Watch = Arc<dyn Fn(&Step) -> io::Result<()> + Send + Sync>;

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

/// Tells the temporary files of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Disk {
    #[cfg(test)]
    pub(crate) fn watched(watch: Watch) -> Disk {
        Disk { watch: Some(watch), ..Disk::default() }
    }

    /// # Errors
    /// If a sync failed before.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::Error::other(NotSynced)) } else { Ok(()) }
    }

    fn step(&self, step: &Step) -> io::Result<()> {
        #[cfg(test)]
        if let Some(watch) = &self.watch {
            self.synced(watch(step))?;
        }
        let _ = step;
        self.check()
    }

    /// From a failed sync on, the disk is not to be trusted.
    fn synced(&self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.synced(file.sync_all())
    }

    /// Puts a file: its bytes are on the disk before its name shows them, then its name is.
    ///
    /// # Errors
    /// `AlreadyExists` if it is there and is not to be replaced; whatever the disk says.
    pub(crate) fn put(&self, path: &Path, payload: &PutPayload, replace: bool) -> io::Result<()> {
        self.make_parent(path)?;
        let mut temporary = path.as_os_str().to_owned();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // `#` and digits: object_store leaves such names out of its listings.
        temporary.push(format!("#{}{number:09}", std::process::id()));
        let temporary = PathBuf::from(temporary);
        let named = self.write(&temporary, payload).and_then(|()| {
            self.step(&Step::Named { from: temporary.clone(), to: path.to_owned() })?;
            if replace { fs::rename(&temporary, path) } else { fs::hard_link(&temporary, path) }
        });
        if !replace || named.is_err() {
            // A leftover of a crash is no file of the table; vacuum finds it.
            let _ = fs::remove_file(&temporary);
        }
        named?;
        self.sync_dir(path)
    }

    fn write(&self, path: &Path, payload: &PutPayload) -> io::Result<()> {
        let mut file = File::create_new(path)?;
        for part in payload {
            file.write_all(part)?;
        }
        self.step(&Step::Wrote(path.to_owned()))?;
        self.sync(&file)?;
        self.step(&Step::SyncedFile(path.to_owned()))
    }

    /// Syncs a file that somebody else wrote, and its name.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn sync_named(&self, path: &Path) -> io::Result<()> {
        self.step(&Step::Named { from: path.to_owned(), to: path.to_owned() })?;
        self.sync(&File::open(path)?)?;
        self.step(&Step::SyncedFile(path.to_owned()))?;
        self.sync_dir(path)
    }

    /// Syncs the directory that a path stands in.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let Some(dir) = path.parent() else { return Ok(()) };
        self.sync(&File::open(dir)?)?;
        self.step(&Step::SyncedDir(dir.to_owned()))
    }

    pub(crate) fn make_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().map_or(Ok(()), |dir| self.make_dir(dir))
    }

    /// Makes a directory and those above it, each durable in the one above.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        self.make_parent(dir)?;
        match fs::create_dir(dir) {
            // Somebody else made it at this moment, and may not have synced it yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        self.step(&Step::MadeDir(dir.to_owned()))?;
        self.sync_dir(dir)
    }
}
