//! Keys and digests of everything accepted: the newest in memory, the rest in sorted runs on disk, merged by
//! fours as they grow.
//!
//! ```text
//! index/state      what the runs hold, and the runs: number, entries, checksum; replaced as one
//! index/N.run      entries of 36 bytes in the order of their keys; never changed
//! ```
//!
//! A run is on the disk before the state names it. What is only in memory is lost with the process: the state
//! says up to where the runs reach, of what they may hold a part beyond it, and whoever keeps the index brings the
//! rest again. A file that is not what the state says makes the whole damaged, whether that is seen when it is
//! opened or later: then the state goes, and with it everything. An entry is written once for each time that what
//! it is with grows by four; in memory it takes a byte and a half.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::hash::{Hash, Seeded};
use super::run::{Described, Entry, Run, damaged, path_of};

pub(super) const KEY_BYTES: usize = 20;
/// Bytes of a payload's digest that are held: two payloads that agree in them are beyond anybody's
/// reach, and the index stays small.
pub(super) const DIGEST_BYTES_HELD: usize = 16;

pub(super) type Key = [u8; KEY_BYTES];
pub(super) type Held = [u8; DIGEST_BYTES_HELD];

/// A key as numbers of the same order, which compare faster than bytes.
pub(super) fn ordinal(key: &Key) -> (u128, u32) {
    let (high, low) = key.split_first_chunk().unwrap_or((&[0; 16], &[]));
    (u128::from_be_bytes(*high), low.first_chunk().map_or(0, |low| u32::from_be_bytes(*low)))
}

/// How files are laid out; an index of another layout is built anew.
const LAYOUT: &str = "rumledger index 4";
/// Entries that are held in memory before they become a run: just as many as a table of 2^17 places takes.
const RECENT_MAX: usize = 112_000;
/// So many runs of about one size become one.
const FAN_IN: usize = 4;
/// Runs that are left as they are when the index is closed: nobody wants to wait for their merge then.
const RUNS_LEFT_MAX: usize = 3 * FAN_IN;
const STATE: &str = "state";
const LOCK: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("in use")]
    InUse,
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    layout: String,
    stand: Stand,
    /// The oldest first.
    runs: Vec<Described>,
}

/// What entries amount to, in the words of whoever keeps the index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stand {
    /// All of this is there; blank where that is not known.
    pub(super) at: String,
    /// Some of this may be there too; blank if nothing is.
    pub(super) coming: String,
}

pub(super) struct Known {
    dir: PathBuf,
    /// Held for as long as this process has the index.
    _lock: File,
    recent: Recent,
    writing: Option<Writing>,
    /// The oldest first.
    runs: Vec<Arc<Run>>,
    merging: Option<Merging>,
    next: u64,
    /// What all that was taken in amounts to.
    stand: Stand,
    /// What the runs hold, as the state says it. What is in memory alone is not counted: after a crash it
    /// has to be brought again.
    runs_stand: Stand,
    recent_max: usize,
    /// A file turned out not to be what it was.
    damaged: AtomicBool,
}

type Recent = HashMap<Key, Held, Seeded>;

/// Entries that become a run, beside everything else.
struct Writing {
    entries: Arc<Recent>,
    /// What they and the runs before them amount to.
    stand: Stand,
    running: JoinHandle<io::Result<Run>>,
}

/// A merge that is under way.
struct Merging {
    inputs: Vec<u64>,
    running: JoinHandle<io::Result<Run>>,
}

impl Known {
    /// Opens what a folder holds. An empty one holds nothing, and so does one with a damaged file: then all
    /// files are removed.
    ///
    /// # Errors
    /// If another process has it, or the folder cannot be used.
    pub(super) fn open(dir: &Path) -> Result<Known, OpenError> {
        Known::open_with(dir, RECENT_MAX)
    }

    fn open_with(dir: &Path, recent_max: usize) -> Result<Known, OpenError> {
        std::fs::create_dir_all(dir)?;
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let mut known = Known {
            dir: dir.to_owned(),
            _lock: lock,
            recent: Recent::default(),
            writing: None,
            runs: Vec::new(),
            merging: None,
            next: 1,
            stand: Stand::default(),
            runs_stand: Stand::default(),
            recent_max,
            damaged: AtomicBool::new(false),
        };
        if let Err(error) = known.load() {
            tracing::warn!(%error, path = %dir.display(), "the index is damaged and is built anew");
            known.clear()?;
        }
        Ok(known)
    }

    fn load(&mut self) -> io::Result<()> {
        let state = read_state(&self.dir.join(STATE))?;
        let numbers = state.runs.iter().map(|run| run.number);
        self.next = numbers.max().unwrap_or(0).saturating_add(1);
        keep_only(&self.dir, &state.runs)?;
        let open = |run| Ok(Arc::new(Run::open(&self.dir, run)?));
        self.runs = state.runs.into_iter().map(open).collect::<io::Result<_>>()?;
        self.runs_stand.clone_from(&state.stand);
        self.stand = state.stand;
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.abandon();
        self.recent.clear();
        self.runs.clear();
        self.stand = Stand::default();
        self.runs_stand = Stand::default();
        *self.damaged.get_mut() = false;
        match std::fs::remove_file(self.dir.join(STATE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => keep_only(&self.dir, &[]),
        }
    }

    /// Waits for what is being made, which nobody names then.
    fn abandon(&mut self) {
        let writing = self.writing.take().map(|writing| writing.running);
        let merging = self.merging.take().map(|merging| merging.running);
        for running in writing.into_iter().chain(merging) {
            let _ = running.join();
        }
    }

    /// What [`Known::settle`] and [`Known::begin`] were told last, of what was on disk when it was opened.
    pub(super) fn stand(&self) -> &Stand {
        &self.stand
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.writing.is_none() && self.runs.is_empty()
    }

    /// Whatever is wrong with a file is wrong at the next start too, unless nothing is believed then.
    fn notice(&self, error: &io::Error) {
        if is_damage(error) && !self.damaged.swap(true, Ordering::Relaxed) {
            // Where it cannot be removed, it is found damaged again.
            let _ = std::fs::remove_file(self.dir.join(STATE));
        }
    }

    /// The digests of keys. Of many at once it takes half the time: the filters are anywhere in memory, and
    /// a core that asks for one key after the other waits for each of them.
    ///
    /// # Errors
    /// If a file cannot be read, or is damaged ([`is_damage`]).
    pub(super) fn find(&self, keys: &[Key]) -> io::Result<Vec<Option<Held>>> {
        let mut found: Vec<Option<Held>> = keys.iter().map(|key| self.in_memory(key)).collect();
        let mut open: Vec<(usize, Hash)> = (0..keys.len())
            .filter(|&at| found[at].is_none())
            .map(|at| (at, Hash::of(&keys[at])))
            .collect();
        // Copies come soon after what they are copies of.
        for run in self.runs.iter().rev() {
            let maybe: Vec<usize> =
                open.iter().filter(|(_, hash)| run.may_hold(*hash)).map(|(at, _)| *at).collect();
            if maybe.is_empty() {
                continue;
            }
            for at in maybe {
                found[at] = run.get(&keys[at]).inspect_err(|e| self.notice(e))?;
            }
            open.retain(|(at, _)| found[*at].is_none());
        }
        Ok(found)
    }

    fn in_memory(&self, key: &Key) -> Option<Held> {
        self.recent.get(key).or_else(|| self.writing.as_ref()?.entries.get(key)).copied()
    }

    /// Takes in an entry; the first of a key stands.
    pub(super) fn insert(&mut self, key: Key, held: Held) -> io::Result<()> {
        if let Place::Vacant(place) = self.recent.entry(key) {
            place.insert(held);
        }
        if self.recent.len() < self.recent_max {
            return Ok(());
        }
        self.move_on(true)?;
        self.begin_write()
    }

    /// Says what entries that come from now on are of: they may be written before all of it is there.
    pub(super) fn begin(&mut self, coming: String) {
        self.stand.coming = coming;
    }

    /// Says what all that was taken in amounts to.
    ///
    /// # Errors
    /// If what was written meanwhile cannot be taken over.
    pub(super) fn settle(&mut self, at: String) -> io::Result<()> {
        self.stand = Stand { at, coming: String::new() };
        self.move_on(false)
    }

    /// Takes over the run that was written, as [`Known::end_write`] does, and merges it when it is time.
    fn move_on(&mut self, wait: bool) -> io::Result<()> {
        if self.end_write(wait)? {
            self.begin_merge();
        }
        Ok(())
    }

    /// Writes what is in memory to disk, where more than was settled may stand then: whoever brings it again
    /// finds it there, and whoever has it no more is told of what it is.
    fn begin_write(&mut self) -> io::Result<()> {
        let number = self.take_number();
        let next = Recent::with_capacity_and_hasher(self.recent_max, Seeded::default());
        let entries = Arc::new(std::mem::replace(&mut self.recent, next));
        let (dir, of_thread) = (self.dir.clone(), Arc::clone(&entries));
        let write = move || write_run(&dir, number, &of_thread);
        match std::thread::Builder::new().name("index-write".to_owned()).spawn(write) {
            Ok(running) => {
                self.writing = Some(Writing { entries, stand: self.stand.clone(), running });
            }
            Err(error) => {
                self.put_back(&entries);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes over the run that was written, if it is there or `wait` is said; tells whether there was one.
    fn end_write(&mut self, wait: bool) -> io::Result<bool> {
        let Some(writing) = self.writing.take_if(|w| wait || w.running.is_finished()) else {
            return Ok(false);
        };
        match joined(writing.running) {
            Ok(run) => self.take_over(run, writing.stand).map(|()| true),
            Err(error) => {
                self.put_back(&writing.entries);
                Err(error)
            }
        }
    }

    /// Entries that did not become a run are in memory alone again.
    fn put_back(&mut self, entries: &Recent) {
        // The first of a key stands.
        self.recent.extend(entries);
    }

    /// Takes over the newest run; with it, the runs amount to so much.
    fn take_over(&mut self, run: Run, stand: Stand) -> io::Result<()> {
        self.runs.push(Arc::new(run));
        self.runs_stand = stand;
        self.end_merge(false)?;
        self.write_state()
    }

    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn write_state(&mut self) -> io::Result<()> {
        if *self.damaged.get_mut() {
            return Ok(());
        }
        let state = State {
            layout: LAYOUT.to_owned(),
            stand: self.runs_stand.clone(),
            runs: self.runs.iter().map(|run| run.described).collect(),
        };
        let json = serde_json::to_string(&state)?;
        let path = self.dir.join(STATE);
        let temporary = self.dir.join("state.new");
        let mut file = File::create(&temporary)?;
        writeln!(file, "{:08x} {json}", crc32fast::hash(json.as_bytes()))?;
        file.sync_data()?;
        std::fs::rename(temporary, path)?;
        File::open(&self.dir)?.sync_all()
    }

    /// Merges runs of about one size, once there are [`FAN_IN`], beside everything else.
    fn begin_merge(&mut self) {
        if self.merging.is_some() {
            return;
        }
        let of_tier = |tier| self.runs.iter().filter(|run| tier_of(run) == tier).count();
        let Some(tier) = (0..u32::BITS).find(|tier| of_tier(*tier) >= FAN_IN) else { return };
        // What is smaller comes along: it costs little.
        let inputs: Vec<Arc<Run>> =
            self.runs.iter().filter(|run| tier_of(run) <= tier).cloned().collect();
        let number = self.take_number();
        let dir = self.dir.clone();
        let numbers = inputs.iter().map(|run| run.described.number).collect();
        let merge = move || merge(&dir, number, &inputs);
        let running = std::thread::Builder::new().name("index-merge".to_owned()).spawn(merge);
        match running {
            Ok(running) => self.merging = Some(Merging { inputs: numbers, running }),
            // Until it can be done, a probe asks more runs.
            Err(error) => tracing::warn!(%error, "the index is not merged"),
        }
    }

    /// Takes over what a merge made, if it has ended or `wait` is said.
    fn end_merge(&mut self, wait: bool) -> io::Result<()> {
        let Some(merging) = self.merging.take_if(|m| wait || m.running.is_finished()) else {
            return Ok(());
        };
        let merged = joined(merging.running).inspect_err(|e| self.notice(e))?;
        // In the place of the newest of them: what came meanwhile is newer.
        let is_input = |run: &Arc<Run>| merging.inputs.contains(&run.described.number);
        let after = self.runs.iter().rposition(is_input).map_or(self.runs.len(), |last| last + 1);
        self.runs.insert(after, Arc::new(merged));
        self.runs.retain(|run| !is_input(run));
        self.write_state()?;
        for number in merging.inputs {
            std::fs::remove_file(path_of(&self.dir, number))?;
        }
        Ok(())
    }

    /// Writes all that is in memory alone.
    fn close(&mut self) -> io::Result<()> {
        self.end_write(true)?;
        if !self.recent.is_empty() {
            let number = self.take_number();
            self.take_over(write_run(&self.dir, number, &self.recent)?, self.stand.clone())?;
            // Whoever goes on merges, unless all are as short as this one was.
            if self.runs.len() > RUNS_LEFT_MAX {
                self.begin_merge();
            }
        } else if self.stand != self.runs_stand {
            self.runs_stand.clone_from(&self.stand);
            self.write_state()?;
        }
        self.end_merge(true)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        if *self.damaged.get_mut() {
            self.abandon();
        } else if let Err(error) = self.close() {
            // It is behind then, and is brought what it lacks when it is opened next.
            tracing::debug!(%error, path = %self.dir.display(), "the index is not written");
        }
    }
}

fn joined(running: JoinHandle<io::Result<Run>>) -> io::Result<Run> {
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn write_run(dir: &Path, number: u64, entries: &Recent) -> io::Result<Run> {
    let mut entries: Vec<Entry> = entries.iter().map(|(key, held)| (*key, *held)).collect();
    entries.sort_unstable_by_key(|(key, _)| ordinal(key));
    let entries_max = entries.len();
    Run::write(dir, number, entries_max, entries.into_iter().map(Ok))
}

/// True if a file is not what it was.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Runs of one tier have about as many entries as each other.
fn tier_of(run: &Run) -> u32 {
    let times = run.described.entries / (RECENT_MAX / 2);
    times.checked_ilog(FAN_IN).unwrap_or(0)
}

fn merge(dir: &Path, number: u64, inputs: &[Arc<Run>]) -> io::Result<Run> {
    let at_most = inputs.iter().map(|run| run.described.entries).sum();
    let mut sources = Vec::with_capacity(inputs.len());
    for run in inputs {
        let mut entries = run.entries();
        if let Some(first) = entries.next() {
            sources.push((first?, entries));
        }
    }
    let merged = std::iter::from_fn(|| {
        let smallest = (0..sources.len()).min_by_key(|&i| ordinal(&sources[i].0.0))?;
        let (head, entries) = &mut sources[smallest];
        let entry = *head;
        match entries.next() {
            Some(Ok(next)) => *head = next,
            Some(Err(error)) => return Some(Err(error)),
            None => drop(sources.swap_remove(smallest)),
        }
        Some(Ok(entry))
    });
    Run::write(dir, number, at_most, merged)
}

/// What the folder says it holds: nothing, if it says nothing.
fn read_state(path: &Path) -> io::Result<State> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error),
    };
    let (checksum, json) =
        text.trim_end().split_once(' ').ok_or_else(|| damaged("the index's state is cut"))?;
    if u32::from_str_radix(checksum, 16) != Ok(crc32fast::hash(json.as_bytes())) {
        return Err(damaged("the index's state is not what it was"));
    }
    let state: State = serde_json::from_str(json)?;
    if state.layout == LAYOUT { Ok(state) } else { Err(damaged("the index is of another layout")) }
}

/// Removes all files but the state and these runs: what a crash left, or another version of this program.
fn keep_only(dir: &Path, runs: &[Described]) -> io::Result<()> {
    let named: Vec<PathBuf> = runs.iter().map(|run| path_of(dir, run.number)).collect();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let is_ours = [LOCK, STATE].iter().any(|name| path.ends_with(name));
        if is_ours || named.contains(&path) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
