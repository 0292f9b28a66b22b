//! Entries in the order of their keys, in a file that never changes.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::filter::{Filter, Hash};
use super::known::{DIGEST_BYTES_HELD, Held, KEY_BYTES, Key};

pub(super) const ENTRY_BYTES: usize = KEY_BYTES + DIGEST_BYTES_HELD;
/// Entries that are read at once to find one among them: about the block of a disk.
const PAGE_ENTRIES: usize = 128;
const PAGE_BYTES: usize = PAGE_ENTRIES * ENTRY_BYTES;
const READ_BYTES: usize = 256 << 10;

pub(super) type Entry = (Key, Held);

/// What has to be known of a run to believe its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Described {
    pub(super) number: u64,
    pub(super) entries: usize,
    /// CRC-32 of the file.
    pub(super) checksum: u32,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) described: Described,
    file: File,
    filter: Filter,
    /// The first key of each page.
    firsts: Vec<Key>,
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.run"))
}

impl Run {
    /// Writes entries, which come in the order of their keys; those of one key are one entry. The file is on
    /// the disk afterwards. `at_most` bounds their number.
    pub(super) fn write(
        dir: &Path,
        number: u64,
        at_most: usize,
        entries: impl Iterator<Item = io::Result<Entry>>,
    ) -> io::Result<Run> {
        let path = path_of(dir, number);
        let file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
        let mut contents = Contents::new(at_most);
        let mut out = BufWriter::with_capacity(READ_BYTES, &file);
        for entry in entries {
            let (key, held) = entry?;
            if contents.last == Some(key) {
                continue;
            }
            let mut bytes = [0; ENTRY_BYTES];
            bytes[..KEY_BYTES].copy_from_slice(&key);
            bytes[KEY_BYTES..].copy_from_slice(&held);
            contents.take(&bytes)?;
            out.write_all(&bytes)?;
        }
        out.flush()?;
        drop(out);
        file.sync_data()?;
        Ok(contents.into_run(number, file))
    }

    /// Opens a run whose file is what it was.
    pub(super) fn open(dir: &Path, described: Described) -> io::Result<Run> {
        let file = File::open(path_of(dir, described.number))?;
        let bytes = (described.entries as u64).saturating_mul(ENTRY_BYTES as u64);
        if file.metadata()?.len() != bytes {
            return Err(damaged("a file of the index has another length than it had"));
        }
        let mut contents = Contents::new(described.entries);
        let mut reader = BufReader::with_capacity(READ_BYTES, &file);
        let mut entry = [0; ENTRY_BYTES];
        for _ in 0..described.entries {
            reader.read_exact(&mut entry)?;
            contents.take(&entry)?;
        }
        drop(reader);
        let run = contents.into_run(described.number, file);
        if run.described != described {
            return Err(damaged("a file of the index is not what it was"));
        }
        Ok(run)
    }

    pub(super) fn get(&self, key: &Key, hash: Hash) -> io::Result<Option<Held>> {
        if !self.filter.may_hold(hash) {
            return Ok(None);
        }
        let Some(page) = self.firsts.partition_point(|first| first <= key).checked_sub(1) else {
            return Ok(None);
        };
        let mut bytes = [0; PAGE_BYTES];
        let entries = PAGE_ENTRIES.min(self.described.entries - page * PAGE_ENTRIES);
        let bytes = &mut bytes[..entries * ENTRY_BYTES];
        self.file.read_exact_at(bytes, (page * PAGE_BYTES) as u64)?;
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let found = entries.binary_search_by(|entry| entry[..KEY_BYTES].cmp(key));
        Ok(found.ok().map(|at| split(&entries[at]).1))
    }

    /// All entries, in their order, from the start.
    pub(super) fn entries(&self) -> impl Iterator<Item = io::Result<Entry>> + '_ {
        let mut reader = BufReader::with_capacity(READ_BYTES, At { file: &self.file, at: 0 });
        (0..self.described.entries).map(move |_| {
            let mut entry = [0; ENTRY_BYTES];
            reader.read_exact(&mut entry)?;
            Ok(split(&entry))
        })
    }
}

fn split(entry: &[u8; ENTRY_BYTES]) -> Entry {
    let (mut key, mut held) = ([0; KEY_BYTES], [0; DIGEST_BYTES_HELD]);
    key.copy_from_slice(&entry[..KEY_BYTES]);
    held.copy_from_slice(&entry[KEY_BYTES..]);
    (key, held)
}

pub(super) fn damaged(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a file from a place of its own: others read it at the same time.
struct At<'f> {
    file: &'f File,
    at: u64,
}

impl io::Read for At<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What is kept in memory of a run, while its entries go by.
struct Contents {
    entries: usize,
    checksum: crc32fast::Hasher,
    filter: Filter,
    firsts: Vec<Key>,
    last: Option<Key>,
}

impl Contents {
    fn new(at_most: usize) -> Contents {
        Contents {
            entries: 0,
            checksum: crc32fast::Hasher::new(),
            filter: Filter::new(at_most),
            firsts: Vec::with_capacity(at_most.div_ceil(PAGE_ENTRIES)),
            last: None,
        }
    }

    fn take(&mut self, entry: &[u8; ENTRY_BYTES]) -> io::Result<()> {
        let (key, _) = split(entry);
        if self.last.is_some_and(|last| last >= key) {
            return Err(damaged("a file of the index is not in order"));
        }
        if self.entries.is_multiple_of(PAGE_ENTRIES) {
            self.firsts.push(key);
        }
        self.filter.insert(Hash::of(&key));
        self.checksum.update(entry);
        self.last = Some(key);
        self.entries += 1;
        Ok(())
    }

    fn into_run(self, number: u64, file: File) -> Run {
        let described =
            Described { number, entries: self.entries, checksum: self.checksum.finalize() };
        Run { described, file, filter: self.filter, firsts: self.firsts }
    }
}
