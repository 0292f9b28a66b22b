//! Bundles: gzipped tar archives, nested (contract 1.1).
//!
//! An archive is read twice. First it is inspected to its very end: its checksums hold, nothing is
//! cut, and it unpacks to no more than the limits allow. Only then are its members read, so no
//! usage is taken from an archive that turns out to be damaged. Neither pass keeps more than a
//! window of it, writes a file, or follows a name: names in an archive are never paths. (What comes through a
//! pipe, which can be read once, its source keeps in a temporary file.)

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use schemas::disposition::Reason;

use super::window::Window;
use super::{CarrierError, CarrierLimits, Output, Sink, Source, goes_on, read_document};

const GZIP: &[u8] = b"\x1f\x8b";
/// The ratio is looked at only beyond this: a small file of blanks packs well.
const RATIO_FREE_BYTES: u64 = 64 << 20;
/// Where the checksum of a tar header stands; it is summed up as if blanks stood there (POSIX.1-1988, ustar).
const TAR_SUM: Range<usize> = 148..156;
const TAR_HEADER: usize = 512;
const MANIFEST: &str = "manifest.mf";

pub(super) fn is_archive(head: &[u8]) -> bool {
    head.starts_with(GZIP) || is_tar(head)
}

/// True of a tar's header, by its checksum: not all have the magic of later ones, and text may have its letters in their
/// place.
fn is_tar(head: &[u8]) -> bool {
    let Some(header) = head.first_chunk::<TAR_HEADER>() else { return false };
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let field = &header[TAR_SUM];
    let blank = sum - field.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    tar::Header::from_byte_slice(header).cksum().is_ok_and(|written| written == blank)
}

/// What the inspection found of one archive, in the order in which archives are met.
type Verdict = Result<(), (Reason, String)>;

/// What may still be unpacked of one input.
struct Budget {
    limits: CarrierLimits,
    bytes: Cell<u64>,
    members: Cell<u64>,
    breach: Cell<Option<&'static str>>,
}

impl Budget {
    fn new(limits: &CarrierLimits) -> Rc<Budget> {
        Rc::new(Budget {
            limits: *limits,
            bytes: Cell::new(limits.archive_bytes_max),
            members: Cell::new(limits.archive_members_max),
            breach: Cell::new(None),
        })
    }

    fn breached(&self, what: &'static str) -> io::Error {
        self.breach.set(Some(what));
        io::Error::other(what)
    }

    fn spend(&self, counter: &Cell<u64>, amount: u64, what: &'static str) -> io::Result<()> {
        match counter.get().checked_sub(amount) {
            Some(left) => {
                counter.set(left);
                Ok(())
            }
            None => Err(self.breached(what)),
        }
    }
}

pub(super) fn read(
    source: &dyn Source,
    limits: &CarrierLimits,
    sink: &mut dyn Sink,
) -> Result<(), CarrierError> {
    let failed = |error| CarrierError::Io { source_name: source.name().to_owned(), source: error };
    let budget = Budget::new(limits);
    let mut verdicts = Vec::new();
    inspect(&mut BufReader::new(source.open().map_err(failed)?), 1, &budget, &mut verdicts);
    if let Some(what) = budget.breach.get() {
        verdicts = vec![Err((Reason::TooLarge, what.to_owned()))];
    }
    let mut verdicts = verdicts.into_iter();
    let mut reading = Reading { limits, verdicts: &mut verdicts, sink };
    let mut input = BufReader::new(source.open().map_err(failed)?);
    reading.archive(&mut input, source.name())
}

// ---- first pass ---------------------------------------------------------------------------

/// Inspects one archive to its end. The verdict on it stands before those on archives inside it.
fn inspect(input: &mut dyn BufRead, depth: u32, budget: &Rc<Budget>, verdicts: &mut Vec<Verdict>) {
    let index = verdicts.len();
    if depth > budget.limits.archive_depth_max {
        let detail = format!("archives are nested deeper than {}", budget.limits.archive_depth_max);
        verdicts.push(Err((Reason::TooLarge, detail)));
        return;
    }
    verdicts.push(Ok(()));
    if let Err(error) = inspect_members(input, depth, budget, verdicts) {
        // Whatever is inside a damaged archive is part of the damage.
        verdicts.truncate(index);
        verdicts.push(Err((Reason::Malformed, format!("the archive is damaged or cut: {error}"))));
    }
}

fn inspect_members(
    input: &mut dyn BufRead,
    depth: u32,
    budget: &Rc<Budget>,
    verdicts: &mut Vec<Verdict>,
) -> io::Result<()> {
    let mut unpacked = unpack(input, budget)?;
    if !is_tar(peek(&mut unpacked)?) {
        io::copy(&mut unpacked, &mut io::sink())?;
        return Ok(());
    }
    let read = Rc::new(Cell::new(0));
    let mut archive = archive_of(Counted { inner: &mut unpacked, read: Rc::clone(&read) });
    let mut members_end = 0;
    let mut long_name = None;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        budget.spend(&budget.members, 1, "the archive has too many members")?;
        let blocks = entry.header().entry_size()?.div_ceil(BLOCK);
        members_end = entry.raw_file_position().saturating_add(blocks.saturating_mul(BLOCK));
        let Some(member) = member_of(&mut entry, &mut long_name)? else { continue };
        if !is_file(&entry) || member == MANIFEST {
            continue;
        }
        let size = entry.header().entry_size()?;
        let mut content = BufReader::with_capacity(HEAD, entry);
        if peek(&mut content)?.starts_with(GZIP) || is_tar(content.buffer()) {
            inspect(&mut content, depth + 1, budget, verdicts);
        }
        let rest = io::copy(&mut content, &mut io::sink())?;
        // tar ends an entry early, and without a word, where its archive is cut.
        if rest > size {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    // Behind the end of the tar stand the last blocks and the checksum of the gzip stream.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    // One that is cut between two members has no block of zeros behind the last of them.
    if read.get() < members_end.saturating_add(BLOCK) {
        return Err(io::Error::other("it has no end"));
    }
    Ok(())
}

/// The unit of a tar, in bytes.
const BLOCK: u64 = 512;

/// An archive that may be several, one behind the other (`cat a.tar.gz b.tar.gz`): the blocks of zeros
/// that end one are no end of the reading.
fn archive_of<R: Read>(unpacked: R) -> tar::Archive<R> {
    let mut archive = tar::Archive::new(unpacked);
    archive.set_ignore_zeros(true);
    archive
}

/// Bytes that are looked at to tell what a member is.
const HEAD: usize = 8 << 10;

/// Fills the buffer with enough to tell what an input is.
fn peek<R: Read>(reader: &mut BufReader<R>) -> io::Result<&[u8]> {
    reader.fill_buf()
}

fn is_file<R: Read>(entry: &tar::Entry<'_, R>) -> bool {
    matches!(entry.header().entry_type(), tar::EntryType::Regular | tar::EntryType::Continuous)
}

/// True of a record of the archive's own, which says something of the members behind it.
fn is_of_the_archive<R: Read>(entry: &tar::Entry<'_, R>) -> bool {
    use tar::EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
    matches!(entry.header().entry_type(), GNULongLink | GNULongName | XGlobalHeader | XHeader)
}

/// The name that an entry gives to the one behind it, where a header has no room for it; of one without end, none.
fn name_of_next<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Option<Vec<u8>>> {
    let is_gnu = match entry.header().entry_type() {
        tar::EntryType::GNULongName => true,
        tar::EntryType::XHeader => false,
        _ => return Ok(None),
    };
    let mut content = Vec::new();
    entry.take(NAME_BYTES_MAX).read_to_end(&mut content)?;
    if is_gnu {
        content.truncate(content.iter().position(|byte| *byte == 0).unwrap_or(content.len()));
        return Ok(Some(content));
    }
    let of_name = |record: io::Result<tar::PaxExtension<'_>>| {
        let record = record.ok()?;
        (record.key_bytes() == b"path").then(|| record.value_bytes().to_vec())
    };
    Ok(tar::PaxExtensions::new(&content).filter_map(of_name).last())
}

/// The name of a member; `None` of a record of the archive's own, whose name for the member behind it is held.
fn member_of<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    long_name: &mut Option<Vec<u8>>,
) -> io::Result<Option<String>> {
    if !is_of_the_archive(entry) {
        return Ok(Some(member_name(entry, long_name.take())));
    }
    if let Some(name) = name_of_next(entry)? {
        *long_name = Some(name);
    }
    Ok(None)
}

/// Bytes that are looked at for a name.
const NAME_BYTES_MAX: u64 = 64 << 10;

/// The last part of a member's name, for people only: never a path, never long.
fn member_name<R: Read>(entry: &tar::Entry<'_, R>, long: Option<Vec<u8>>) -> String {
    let name = long.map_or_else(|| entry.header().path_bytes(), Cow::Owned);
    let name = String::from_utf8_lossy(&name);
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// Names of the members of an archive, each of one alone: by them it is told where a report came from. Of a million
/// members' names the hashes are held.
#[derive(Default)]
struct Names(HashMap<u64, u64>);

impl Names {
    /// The second of a name is `name#2`.
    fn one(&mut self, name: &str) -> String {
        let hash = |name: &str| {
            let mut hasher = DefaultHasher::new();
            name.hash(&mut hasher);
            hasher.finish()
        };
        let of_name = hash(name);
        // Behind those that were numbered before.
        let mut number = self.0.get(&of_name).map_or(1, |last| last + 1);
        let numbered = |n: u64| if n == 1 { name.to_owned() } else { format!("{name}#{n}") };
        let mut one = numbered(number);
        while self.0.contains_key(&hash(&one)) {
            number += 1;
            one = numbered(number);
        }
        self.0.insert(of_name, number);
        self.0.entry(hash(&one)).or_insert(1);
        one
    }
}

/// The unpacked stream of an archive, counted against the budget.
fn unpack<'a>(
    input: &'a mut dyn BufRead,
    budget: &Rc<Budget>,
) -> io::Result<BufReader<Box<dyn Read + 'a>>> {
    let stream: Box<dyn Read + 'a> = if input.fill_buf()?.starts_with(GZIP) {
        let packed = Counted { inner: input, read: Rc::new(Cell::new(0)) };
        Box::new(Unpacked {
            packed_bytes: Rc::clone(&packed.read),
            decoder: Some(GzDecoder::new(packed)),
            unpacked_bytes: 0,
            budget: Rc::clone(budget),
        })
    } else {
        Box::new(input)
    };
    Ok(BufReader::with_capacity(
        64 << 10,
        Box::new(Whole { inner: stream, failed: None }) as Box<dyn Read + 'a>,
    ))
}

/// Reads as much as is asked for, so that a buffer's first filling tells what an input is.
struct Whole<R> {
    inner: R,
    /// Met behind bytes that were given: for the next call. Some streams say it once and then end.
    failed: Option<io::Error>,
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() && self.failed.is_none() {
            match self.inner.read(&mut out[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed = Some(error),
            }
        }
        match self.failed.take_if(|_| filled == 0) {
            Some(error) => Err(error),
            None => Ok(filled),
        }
    }
}

struct Counted<'a> {
    inner: &'a mut dyn BufRead,
    read: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(out)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.read.set(self.read.get() + amount as u64);
        self.inner.consume(amount);
    }
}

/// A gzip stream of several members, and zeros behind any of them, as media of fixed blocks are filled up.
struct Unpacked<'a> {
    decoder: Option<GzDecoder<Counted<'a>>>,
    packed_bytes: Rc<Cell<u64>>,
    unpacked_bytes: u64,
    budget: Rc<Budget>,
}

impl Unpacked<'_> {
    fn unpack(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let n = decoder.read(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let ended = self.decoder.take().map(GzDecoder::into_inner);
            self.decoder = ended.map(next_member).transpose()?.flatten();
        }
        Ok(0)
    }
}

/// The member behind one that has ended, if there is one.
fn next_member(mut packed: Counted<'_>) -> io::Result<Option<GzDecoder<Counted<'_>>>> {
    loop {
        let next = packed.fill_buf()?;
        if next.is_empty() {
            return Ok(None);
        }
        let zeros = next.iter().take_while(|byte| **byte == 0).count();
        let is_behind = zeros < next.len();
        packed.consume(zeros);
        if is_behind {
            return Ok(Some(GzDecoder::new(packed)));
        }
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.unpack(out)?;
        self.unpacked_bytes += n as u64;
        self.budget.spend(
            &self.budget.bytes,
            n as u64,
            "the archive unpacks to more than is allowed",
        )?;
        let ratio_max = self.budget.limits.archive_ratio_max;
        let most = self.packed_bytes.get().saturating_mul(ratio_max).max(RATIO_FREE_BYTES);
        if self.unpacked_bytes > most {
            return Err(self.budget.breached("the archive unpacks to far more than it is"));
        }
        Ok(n)
    }
}

// ---- second pass --------------------------------------------------------------------------

struct Reading<'r, 's> {
    limits: &'r CarrierLimits,
    verdicts: &'r mut dyn Iterator<Item = Verdict>,
    sink: &'s mut dyn Sink,
}

impl Reading<'_, '_> {
    /// Reads the members of an archive that was inspected, or refuses it as one.
    fn archive(&mut self, input: &mut dyn BufRead, name: &str) -> Result<(), CarrierError> {
        let verdict = self.verdicts.next().unwrap_or(Ok(()));
        if let Err((reason, detail)) = verdict {
            let mut out = Output::new(name, self.limits, &mut *self.sink);
            return out.refuse_rest_as(Window::new(input), self.limits, reason, detail);
        }
        let failed = |error| CarrierError::Io { source_name: name.to_owned(), source: error };
        // The same bytes stayed within the budget before.
        let budget = Budget::new(self.limits);
        let mut unpacked = unpack(input, &budget).map_err(failed)?;
        if !is_tar(peek(&mut unpacked).map_err(failed)?) {
            return read_document(Window::new(unpacked), name, self.limits, &mut *self.sink);
        }
        let mut archive = archive_of(&mut unpacked);
        let mut names = Names::default();
        let mut long_name = None;
        for entry in archive.entries().map_err(failed)?.raw(true) {
            let mut entry = entry.map_err(failed)?;
            let member = member_of(&mut entry, &mut long_name).map_err(failed)?;
            let Some(member) = member else { continue };
            if !is_file(&entry) {
                self.pass_over(&entry, &format!("{name}!{member}"))?;
                continue;
            }
            if member == MANIFEST {
                continue;
            }
            let member = format!("{name}!{}", names.one(&member));
            let mut content = BufReader::with_capacity(HEAD, entry);
            let head = peek(&mut content).map_err(failed)?;
            if is_archive(head) {
                self.archive(&mut content, &member)?;
            } else {
                read_document(Window::new(content), &member, self.limits, &mut *self.sink)?;
            }
        }
        Ok(())
    }

    /// A directory holds nothing; anything else is named.
    fn pass_over<R: Read>(
        &mut self,
        entry: &tar::Entry<'_, R>,
        source: &str,
    ) -> Result<(), CarrierError> {
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::Directory {
            return Ok(());
        }
        let what = format!("an archive member that is no file ({kind:?})");
        goes_on(self.sink.ignored(source.to_owned(), what, Vec::new()))
    }
}
