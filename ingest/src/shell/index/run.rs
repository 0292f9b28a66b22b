//! Entries in the order of their keys, in a file that never changes.
//!
//! ```text
//! entries     36 bytes each
//! the rest    the filter's words, the first key of each page of entries, the checksum of each page
//! ```
//!
//! Opening a run reads and checks the rest alone, a twentieth of it; a page is checked whenever it is read.

use std::cmp::Ordering;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::filter::Filter;
use super::hash::Hash;
use super::known::{DIGEST_BYTES_HELD, Held, KEY_BYTES, Key, ordinal};

pub(super) const ENTRY_BYTES: usize = KEY_BYTES + DIGEST_BYTES_HELD;
/// Entries that are read at once to find one among them: about the block of a disk.
const PAGE_ENTRIES: usize = 128;
const PAGE_BYTES: usize = PAGE_ENTRIES * ENTRY_BYTES;
/// Whole pages.
const READ_BYTES: usize = 56 * PAGE_BYTES;
const CHECKSUM_BYTES: usize = 4;

pub(super) type Entry = (Key, Held);

/// What has to be known of a run to believe its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Described {
    pub(super) number: u64,
    pub(super) entries: usize,
    /// Bytes of the file.
    pub(super) bytes: u64,
    /// CRC-32 of what stands behind the entries.
    pub(super) checksum: u32,
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) described: Described,
    file: File,
    filter: Filter,
    /// The first key of each page.
    firsts: Vec<Key>,
    /// CRC-32 of each page.
    checksums: Vec<u32>,
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
        let mut out = BufWriter::with_capacity(READ_BYTES, &file);
        let mut contents = Contents::new(at_most);
        let mut page = Vec::with_capacity(PAGE_BYTES);
        for entry in entries {
            let (key, held) = entry?;
            if !contents.take(key)? {
                continue;
            }
            page.extend_from_slice(&key);
            page.extend_from_slice(&held);
            if page.len() == PAGE_BYTES {
                contents.checksums.push(crc32fast::hash(&page));
                out.write_all(&page)?;
                page.clear();
            }
        }
        if !page.is_empty() {
            contents.checksums.push(crc32fast::hash(&page));
            out.write_all(&page)?;
        }
        contents.fill();
        let Contents { entries, filter, firsts, checksums, .. } = contents;
        let mut rest = Vec::with_capacity(rest_bytes(entries, &filter));
        filter.write_to(&mut rest);
        rest.extend_from_slice(firsts.as_flattened());
        rest.extend(checksums.iter().flat_map(|checksum| checksum.to_le_bytes()));
        out.write_all(&rest)?;
        out.flush()?;
        drop(out);
        file.sync_data()?;
        let bytes = (entries * ENTRY_BYTES + rest.len()) as u64;
        let described = Described { number, entries, bytes, checksum: crc32fast::hash(&rest) };
        Ok(Run { described, file, filter, firsts, checksums })
    }

    /// Opens a run whose file is what it was.
    pub(super) fn open(dir: &Path, described: Described) -> io::Result<Run> {
        let Described { number, entries, bytes, checksum } = described;
        let file = File::open(path_of(dir, number))?;
        let start = (entries as u64).saturating_mul(ENTRY_BYTES as u64);
        if file.metadata()?.len() != bytes || start > bytes {
            return Err(damaged("a file of the index has another length than it had"));
        }
        let wrong = || damaged("a file of the index is not what it was");
        let mut rest = vec![0; usize::try_from(bytes - start).map_err(|_| wrong())?];
        file.read_exact_at(&mut rest, start)?;
        let pages = entries.div_ceil(PAGE_ENTRIES);
        let filter_bytes =
            rest.len().checked_sub(pages * (KEY_BYTES + CHECKSUM_BYTES)).ok_or_else(wrong)?;
        if crc32fast::hash(&rest) != checksum {
            return Err(wrong());
        }
        let (filter, rest) = rest.split_at(filter_bytes);
        let (firsts, checksums) = rest.split_at(pages * KEY_BYTES);
        let checksums = checksums.as_chunks::<CHECKSUM_BYTES>().0;
        Ok(Run {
            described,
            file,
            filter: Filter::read(filter).ok_or_else(wrong)?,
            firsts: firsts.as_chunks::<KEY_BYTES>().0.to_vec(),
            checksums: checksums.iter().copied().map(u32::from_le_bytes).collect(),
        })
    }

    /// False if it does not hold this key, whose hash that is.
    pub(super) fn may_hold(&self, hash: Hash) -> bool {
        self.filter.may_hold(hash)
    }

    pub(super) fn get(&self, key: &Key) -> io::Result<Option<Held>> {
        let Some(page) = self.firsts.partition_point(|first| first <= key).checked_sub(1) else {
            return Ok(None);
        };
        let mut bytes = [0; PAGE_BYTES];
        let entries = self.read_page(page, &mut bytes)?;
        let found = entries.binary_search_by(|entry| entry[..KEY_BYTES].cmp(key));
        Ok(found.ok().map(|at| split(&entries[at]).1))
    }

    /// The entries of a page, if they are what they were.
    fn read_page<'b>(
        &self,
        page: usize,
        bytes: &'b mut [u8; PAGE_BYTES],
    ) -> io::Result<&'b [[u8; ENTRY_BYTES]]> {
        let entries = PAGE_ENTRIES.min(self.described.entries - page * PAGE_ENTRIES);
        let bytes = &mut bytes[..entries * ENTRY_BYTES];
        self.file.read_exact_at(bytes, (page * PAGE_BYTES) as u64)?;
        self.check(page, bytes)?;
        Ok(bytes.as_chunks().0)
    }

    fn check(&self, page: usize, bytes: &[u8]) -> io::Result<()> {
        if self.checksums.get(page) == Some(&crc32fast::hash(bytes)) {
            Ok(())
        } else {
            Err(damaged("a page of the index is not what it was"))
        }
    }

    /// All entries, in their order, from the start.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { run: self, bytes: Vec::new(), at: 0, page: 0 }
    }
}

/// Entries of a run, many pages at once.
pub(super) struct Entries<'r> {
    run: &'r Run,
    bytes: Vec<u8>,
    at: usize,
    /// The first that is not read yet.
    page: usize,
}

impl Entries<'_> {
    /// Reads on; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        let start = self.page * PAGE_BYTES;
        let end = self.run.described.entries * ENTRY_BYTES;
        if start >= end {
            return Ok(false);
        }
        self.bytes.resize(READ_BYTES.min(end - start), 0);
        self.run.file.read_exact_at(&mut self.bytes, start as u64)?;
        for page in self.bytes.chunks(PAGE_BYTES) {
            self.run.check(self.page, page)?;
            self.page += 1;
        }
        self.at = 0;
        Ok(true)
    }
}

impl Iterator for Entries<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if self.at == self.bytes.len() {
            match self.read() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        let entry = self.bytes[self.at..].first_chunk().map(split);
        self.at += ENTRY_BYTES;
        entry.map(Ok)
    }
}

/// Bytes behind the entries.
fn rest_bytes(entries: usize, filter: &Filter) -> usize {
    filter.bytes() + entries.div_ceil(PAGE_ENTRIES) * (KEY_BYTES + CHECKSUM_BYTES)
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

/// What is kept of a run beside its entries, while they go by.
struct Contents {
    entries: usize,
    filter: Filter,
    firsts: Vec<Key>,
    checksums: Vec<u32>,
    last: Option<Key>,
    /// Of the newest keys, which are not in the filter yet.
    hashes: Vec<Hash>,
}

impl Contents {
    fn new(at_most: usize) -> Contents {
        let pages = at_most.div_ceil(PAGE_ENTRIES);
        Contents {
            entries: 0,
            filter: Filter::new(at_most),
            firsts: Vec::with_capacity(pages),
            checksums: Vec::with_capacity(pages),
            last: None,
            hashes: Vec::with_capacity(PAGE_ENTRIES),
        }
    }

    /// False for a key that came just before.
    fn take(&mut self, key: Key) -> io::Result<bool> {
        match self.last.map(|last| ordinal(&last).cmp(&ordinal(&key))) {
            Some(Ordering::Equal) => return Ok(false),
            Some(Ordering::Greater) => return Err(damaged("a file of the index is not in order")),
            None | Some(Ordering::Less) => {}
        }
        if self.entries.is_multiple_of(PAGE_ENTRIES) {
            self.fill();
            self.firsts.push(key);
        }
        self.hashes.push(Hash::of(&key));
        self.last = Some(key);
        self.entries += 1;
        Ok(true)
    }

    /// Puts the newest keys into the filter. They lie anywhere in it, so a core waits less if it is told of many.
    fn fill(&mut self) {
        for hash in self.hashes.drain(..) {
            self.filter.insert(hash);
        }
    }
}
