use std::collections::{BTreeMap, BTreeSet};

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

fn get(known: &Known, key: &Key) -> io::Result<Option<Held>> {
    Ok(known.find(std::slice::from_ref(key))?[0])
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
        // What a crash left beyond what was settled.
        let mut left = BTreeSet::new();
        known.begin("1".to_owned());
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
                    known.settle(at.clone()).unwrap();
                    settled.insert(settles, must.clone());
                    known.begin((settles + 1).to_string());
                }
                Act::Wait => {
                    known.end_write(true).unwrap();
                    known.end_merge(true).unwrap();
                }
                Act::Reopen => {
                    drop(known);
                    known = open(dir.path());
                    prop_assert_eq!(&known.stand().at, &at);
                }
                Act::Crash => {
                    known = crashed(known, dir.path());
                    let Stand { at: stands_at, coming } = known.stand().clone();
                    // Whoever has what it was settled at, and what was coming, has all that is there.
                    let of = if coming.is_empty() { &stands_at } else { &coming };
                    let all = of.parse().map_or(BTreeMap::new(), |of| {
                        settled.get(&of).unwrap_or(&must).clone()
                    });
                    for number in 0..900 {
                        if get(&known, &key(number)).unwrap().is_some() {
                            prop_assert!(all.contains_key(&number) || left.contains(&number), "{}", number);
                            left.insert(number);
                        }
                    }
                    at = stands_at;
                    must = match at.parse() {
                        Ok(at) => settled.get(&at).cloned().unwrap_or_default(),
                        Err(_) => BTreeMap::new(),
                    };
                    known.begin((settles + 1).to_string());
                }
            }
        }
        for number in 0..900 {
            let found = get(&known, &key(number)).unwrap();
            if must.contains_key(&number) {
                prop_assert_eq!(found, Some(held(number)));
            }
            prop_assert!(found.is_none() || found.as_ref() == ever.get(&number));
        }
    }
}

fn put(known: &mut Known, numbers: std::ops::Range<u64>) {
    for number in numbers {
        known.insert(key(number), held(number)).unwrap();
    }
}

/// Fills a folder with so many entries.
fn filled(entries: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut known = open(dir.path());
    put(&mut known, 0..entries);
    known.settle("all".to_owned()).unwrap();
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
    assert_eq!(known.stand().at, "all");
    let all: usize = known.runs.iter().map(|run| run.described.entries).sum();
    assert_eq!(all, 5_000);
    assert!(matches!(Known::open(dir.path()), Err(OpenError::InUse)));
}

/// Loses what is in memory alone, as a crash does.
fn crashed(mut known: Known, dir: &Path) -> Known {
    known.recent.clear();
    known.abandon();
    known.stand.clone_from(&known.runs_stand);
    drop(known);
    open(dir)
}

#[test]
fn the_state_names_only_what_the_runs_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = open(dir.path());
    for number in 0..230 {
        put(&mut known, number..number + 1);
        known.settle((number + 1).to_string()).unwrap();
    }
    // Their merge ends while thirty entries are in memory alone.
    known.end_write(true).unwrap();
    known.begin_merge();
    known.end_merge(true).unwrap();
    assert_eq!(runs(dir.path()).len(), 1);
    let known = crashed(known, dir.path());
    let at: u64 = known.stand().at.parse().unwrap();
    assert!((150..=200).contains(&at), "{at}");
    assert!((0..at).all(|number| get(&known, &key(number)).unwrap() == Some(held(number))));
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = open(dir.path());
    put(&mut known, 0..49);
    known.settle("49".to_owned()).unwrap();
    let in_the_way = path_of(dir.path(), known.next);
    std::fs::create_dir(&in_the_way).unwrap();
    put(&mut known, 49..51);
    known.end_write(true).unwrap_err();
    let holds_all = |known: &Known| {
        (0..51).all(|number| get(known, &key(number)).unwrap() == Some(held(number)))
    };
    assert!(holds_all(&known));
    known.settle("51".to_owned()).unwrap();
    assert_eq!(known.runs_stand, Stand::default());
    drop(known);
    let known = open(dir.path());
    assert_eq!(known.stand().at, "51");
    assert!(holds_all(&known));
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
                let error = (0..170).find_map(|number| get(&known, &key(number)).err());
                let merged = merge(dir.path(), 99, &known.runs).unwrap_err();
                assert!(is_damage(&merged) && error.is_some_and(|e| is_damage(&e)), "{what}");
                // It may go on for a while.
                known.insert(key(1_000), held(1_000)).unwrap();
                known.settle("more".to_owned()).unwrap();
                drop(known);
                known = open(dir.path());
            }
            assert!(
                known.is_empty() && known.stand() == &Stand::default(),
                "{what}: {}",
                path.display()
            );
            drop(known);
            assert_eq!(runs(dir.path()), Vec::<PathBuf>::new(), "{what}");
            for (path, bytes) in all {
                std::fs::write(path, bytes).unwrap();
            }
            assert_eq!(open(dir.path()).stand().at, "all");
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
    assert_eq!(get(&known, &key(3)).unwrap(), Some(held(3)));
}
