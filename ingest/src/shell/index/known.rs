//! Keys and digests of everything accepted: the newest in memory, the rest in sorted runs on disk, merged by
//! fours as they grow.
//!
//! ```text
//! index/state      what the runs hold, and the runs: number, entries, checksum; replaced as one
//! index/N.run      entries of 36 bytes in the order of their keys; never changed
//! ```
//!
//! A run is on the disk before the state names it. What is only in memory is lost with the process: the state
//! says up to where the runs reach, and whoever keeps the index brings the rest again. A file that is not
//! what the state says makes the whole damaged, whether that is seen when it is opened or later: then the state
//! goes, and with it everything. An entry is written once for each time that what it is with grows by four; in
//! memory it takes a byte and a half, of large runs one.

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

/// How files are laid out; an index of another layout is built anew.
const LAYOUT: &str = "rumledger index 3";
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
    /// What the runs hold, in the words of whoever keeps the index; blank where it is not known.
    at: String,
    /// The oldest first.
    runs: Vec<Described>,
}

pub(super) struct Known {
    dir: PathBuf,
    /// Held for as long as this process has the index.
    _lock: File,
    recent: HashMap<Key, Held, Seeded>,
    /// The oldest first.
    runs: Vec<Arc<Run>>,
    merging: Option<Merging>,
    next: u64,
    /// What all that was taken in amounts to.
    at: String,
    /// What the runs hold, as the state says it. What is in memory alone is not counted: after a crash it
    /// has to be brought again.
    runs_at: String,
    recent_max: usize,
    /// A file turned out not to be what it was.
    damaged: AtomicBool,
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
            recent: HashMap::default(),
            runs: Vec::new(),
            merging: None,
            next: 1,
            at: String::new(),
            runs_at: String::new(),
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
        self.runs_at.clone_from(&state.at);
        self.at = state.at;
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        if let Some(merging) = self.merging.take() {
            // What it made is not named, and goes with the rest.
            let _ = merging.running.join();
        }
        self.recent.clear();
        self.runs.clear();
        self.at.clear();
        self.runs_at.clear();
        *self.damaged.get_mut() = false;
        match std::fs::remove_file(self.dir.join(STATE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => keep_only(&self.dir, &[]),
        }
    }

    /// What [`Known::settle`] was told last, of what was on disk when it was opened.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.runs.is_empty()
    }

    /// Whatever is wrong with a file is wrong at the next start too, unless nothing is believed then.
    fn notice(&self, error: &io::Error) {
        if is_damage(error) && !self.damaged.swap(true, Ordering::Relaxed) {
            // Where it cannot be removed, it is found damaged again.
            let _ = std::fs::remove_file(self.dir.join(STATE));
        }
    }

    /// The digest of a key.
    ///
    /// # Errors
    /// If a file cannot be read, or is damaged ([`is_damage`]).
    pub(super) fn get(&self, key: &Key) -> io::Result<Option<Held>> {
        if let Some(held) = self.recent.get(key) {
            return Ok(Some(*held));
        }
        let hash = Hash::of(key);
        // Copies come soon after what they are copies of.
        for run in self.runs.iter().rev() {
            if let Some(held) = run.get(key, hash).inspect_err(|e| self.notice(e))? {
                return Ok(Some(held));
            }
        }
        Ok(None)
    }

    /// Takes in an entry; the first of a key stands.
    pub(super) fn insert(&mut self, key: Key, held: Held) -> io::Result<()> {
        if let Place::Vacant(place) = self.recent.entry(key) {
            place.insert(held);
        }
        // More than was settled may be written: whoever brings it again finds it there.
        if self.recent.len() < self.recent_max {
            return Ok(());
        }
        self.write()?;
        self.begin_merge();
        Ok(())
    }

    /// Says what all that was taken in amounts to.
    pub(super) fn settle(&mut self, at: String) {
        self.at = at;
    }

    /// Writes what is in memory to disk.
    pub(super) fn write(&mut self) -> io::Result<()> {
        self.end_merge(false)?;
        let mut entries: Vec<Entry> = self.recent.iter().map(|(key, held)| (*key, *held)).collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        let number = self.take_number();
        let entries_max = entries.len();
        let run = Run::write(&self.dir, number, entries_max, entries.into_iter().map(Ok))?;
        self.runs.push(Arc::new(run));
        self.runs_at.clone_from(&self.at);
        self.write_state()?;
        self.recent.clear();
        Ok(())
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
            at: self.runs_at.clone(),
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
        let merged = match merging.running.join() {
            Ok(merged) => merged.inspect_err(|e| self.notice(e))?,
            Err(panic) => std::panic::resume_unwind(panic),
        };
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
}

impl Drop for Known {
    fn drop(&mut self) {
        if *self.damaged.get_mut() {
            return;
        }
        let ended = if !self.recent.is_empty() {
            self.write().map(|()| {
                // Whoever goes on merges, unless all are as short as this one was.
                if self.runs.len() > RUNS_LEFT_MAX {
                    self.begin_merge();
                }
            })
        } else if self.at != self.runs_at {
            self.runs_at.clone_from(&self.at);
            self.write_state()
        } else {
            Ok(())
        };
        if let Err(error) = ended.and_then(|()| self.end_merge(true)) {
            // It is behind then, and is brought what it lacks when it is opened next.
            tracing::debug!(%error, path = %self.dir.display(), "the index is not written");
        }
    }
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
        let smallest = (0..sources.len()).min_by_key(|&i| sources[i].0.0)?;
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
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> Key {
        let mut key = [0; KEY_BYTES];
        key[..8].copy_from_slice(&(number % 7).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        key[12..].copy_from_slice(&number.to_be_bytes());
        key
    }

    fn held(number: u64) -> Held {
        let mut held = [0; DIGEST_BYTES_HELD];
        held[..8].copy_from_slice(&number.wrapping_mul(31).to_le_bytes());
        held
    }

    fn open(dir: &Path) -> Known {
        Known::open_with(dir, 50).unwrap()
    }

    /// What a process does with its index.
    #[derive(Clone, Debug)]
    enum Act {
        Insert(u64),
        Settle,
        /// Whatever goes on beside has ended.
        Wait,
        Reopen,
        /// What is in memory is lost, and maybe a merge that is not taken over.
        Crash,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            60 => (0u64..900).prop_map(Act::Insert),
            4 => Just(Act::Settle),
            2 => Just(Act::Wait),
            1 => Just(Act::Reopen),
            1 => Just(Act::Crash),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// As a map does, through merges and crashes: nothing that was settled and written is lost, and
        /// nothing is there that was never put in.
        #[test]
        fn holds_what_it_was_given(acts in prop::collection::vec(act(), 1..1500)) {
            let dir = tempfile::tempdir().unwrap();
            let mut known = open(dir.path());
            // All that was ever put in, and what must be there.
            let (mut ever, mut must) = (BTreeMap::new(), BTreeMap::new());
            let (mut settled, mut settles) = (BTreeMap::new(), 0u64);
            let mut at = String::new();
            for act in acts {
                match act {
                    Act::Insert(number) => {
                        known.insert(key(number), held(number)).unwrap();
                        ever.insert(number, held(number));
                        must.insert(number, held(number));
                    }
                    Act::Settle => {
                        settles += 1;
                        at = settles.to_string();
                        known.settle(at.clone());
                        settled.insert(settles, must.clone());
                    }
                    Act::Wait => known.end_merge(true).unwrap(),
                    Act::Reopen => {
                        drop(known);
                        known = open(dir.path());
                        prop_assert_eq!(known.at(), &at);
                    }
                    Act::Crash => {
                        known.recent.clear();
                        known.merging.take().map(|merging| merging.running.join());
                        known.at.clone_from(&known.runs_at);
                        drop(known);
                        known = open(dir.path());
                        at = known.at().to_owned();
                        must = match known.at().parse() {
                            Ok(at) => settled.get(&at).cloned().unwrap_or_default(),
                            Err(_) => BTreeMap::new(),
                        };
                    }
                }
            }
            for number in 0..900 {
                let found = known.get(&key(number)).unwrap();
                if must.contains_key(&number) {
                    prop_assert_eq!(found, Some(held(number)));
                }
                prop_assert!(found.is_none() || found.as_ref() == ever.get(&number));
            }
        }
    }

    /// Fills a folder with so many entries.
    fn filled(entries: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut known = open(dir.path());
        for number in 0..entries {
            known.insert(key(number), held(number)).unwrap();
        }
        known.settle("all".to_owned());
        drop(known);
        dir
    }

    fn runs(dir: &Path) -> Vec<PathBuf> {
        let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "run")).collect()
    }

    #[test]
    fn many_runs_become_few() {
        let dir = filled(5_000);
        let mut known = open(dir.path());
        // A merge goes on beside the rest, so there may be more of them for a while.
        while known.merging.is_some() || known.runs.len() >= FAN_IN {
            known.begin_merge();
            known.end_merge(true).unwrap();
        }
        assert_eq!(runs(dir.path()).len(), known.runs.len());
        assert_eq!(known.at(), "all");
        let all: usize = known.runs.iter().map(|run| run.described.entries).sum();
        assert_eq!(all, 5_000);
        assert!(matches!(Known::open(dir.path()), Err(OpenError::InUse)));
    }

    /// Whatever happens to a file, it is noticed: when the index is opened, or when what it holds is asked for or
    /// merged; and from then on nothing is there.
    #[test]
    fn a_damaged_file_is_not_believed() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 6] = [
            ("gone", |path| std::fs::remove_file(path).unwrap()),
            ("empty", |path| std::fs::write(path, b"").unwrap()),
            ("cut", |path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, &bytes[..bytes.len() - 2]).unwrap();
            }),
            ("a bit", |path| {
                let mut bytes = std::fs::read(path).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                std::fs::write(path, bytes).unwrap();
            }),
            ("a bit near the end", |path| {
                let mut bytes = std::fs::read(path).unwrap();
                let last = bytes.len() - 2;
                bytes[last] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }),
            ("noise", |path| {
                let bytes = std::fs::read(path).unwrap();
                std::fs::write(path, vec![b'x'; bytes.len()]).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let dir = filled(170);
            for path in runs(dir.path()).into_iter().chain([dir.path().join(STATE)]) {
                let all: Vec<(PathBuf, Vec<u8>)> = runs(dir.path())
                    .into_iter()
                    .chain([dir.path().join(STATE)])
                    .map(|path| (path.clone(), std::fs::read(path).unwrap()))
                    .collect();
                damage(&path);
                let mut known = open(dir.path());
                if !known.is_empty() {
                    let error = (0..170).find_map(|number| known.get(&key(number)).err());
                    let merged = merge(dir.path(), 99, &known.runs).unwrap_err();
                    assert!(is_damage(&merged) && error.is_some_and(|e| is_damage(&e)), "{what}");
                    // It may go on for a while.
                    known.insert(key(1_000), held(1_000)).unwrap();
                    known.settle("more".to_owned());
                    drop(known);
                    known = open(dir.path());
                }
                assert!(known.is_empty() && known.at().is_empty(), "{what}: {}", path.display());
                drop(known);
                assert_eq!(runs(dir.path()), Vec::<PathBuf>::new(), "{what}");
                for (path, bytes) in all {
                    std::fs::write(path, bytes).unwrap();
                }
                assert_eq!(open(dir.path()).at(), "all");
            }
        }
    }

    #[test]
    fn what_nobody_names_is_removed() {
        let dir = filled(10);
        std::fs::create_dir(dir.path().join("keyspaces")).unwrap();
        std::fs::write(dir.path().join("keyspaces/0"), "of another version").unwrap();
        std::fs::write(dir.path().join("00000099.run"), "a merge that a crash ended").unwrap();
        let known = open(dir.path());
        assert_eq!(runs(dir.path()).len(), 1);
        assert!(!dir.path().join("keyspaces").exists());
        assert_eq!(known.get(&key(3)).unwrap(), Some(held(3)));
    }
}
