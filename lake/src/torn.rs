//! The power is cut at every write, and what was not synced is gone: nothing acknowledged is lost, and
//! the table opens.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use url::Url;

use crate::disk::{Disk, Step};
use crate::store::Root;
use crate::{Appended, Fence, Lake, Layout, Result};

/// What a disk still has after the power was cut.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Names that were not synced are gone, with the directories they were in.
    Names,
    /// Names stay, but bytes that were not synced are gone.
    Bytes,
}

#[derive(Default)]
struct Watched {
    steps: Vec<Step>,
    power_until: usize,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn rows(commit: i64) -> RecordBatch {
    let kinds = StringArray::from(vec!["a", "b", "a"]);
    let numbers = Int64Array::from(vec![commit * 10, commit * 10 + 1, commit * 10 + 2]);
    RecordBatch::try_new(schema(), vec![Arc::new(kinds), Arc::new(numbers)]).unwrap()
}

/// Commits until the power is cut; gives the last commit that was acknowledged.
async fn work(lake: &Lake, acknowledged: &mut i64) -> Result<()> {
    let layout = Layout { schema: schema(), partition_columns: &["kind"], statistics: &["n"] };
    let mut table = lake.ensure("numbers", &layout).await?;
    for commit in 1..=4 {
        let written = table.write(&[rows(commit)]).await?;
        let fence = Fence {
            source: "topic/0".to_owned(),
            stands_on: (commit > 1).then(|| commit - 1),
            last: commit,
        };
        let appended = table.commit_once(&written, &[fence], &[]).await?;
        assert!(matches!(appended, Appended::Committed(_)), "{appended:?}");
        *acknowledged = commit;
    }
    Ok(())
}

fn all_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, found);
        }
        found.push(path);
    }
}

/// Takes from the disk what was never synced.
fn cut(root: &Path, steps: &[Step], loss: Loss) {
    let mut whole: BTreeSet<&Path> = BTreeSet::new();
    let mut named: BTreeSet<&Path> = BTreeSet::new();
    let mut waiting: Vec<&Path> = Vec::new();
    for step in steps {
        match step {
            Step::Wrote(path) | Step::MadeDir(path) => waiting.push(path),
            Step::SyncedFile(path) => drop(whole.insert(path)),
            Step::Named { from, to } => {
                if whole.contains(from.as_path()) {
                    whole.insert(to);
                }
                waiting.push(to);
            }
            Step::SyncedDir(dir) => {
                named.extend(waiting.iter().filter(|p| p.parent() == Some(dir)));
                waiting.retain(|p| p.parent() != Some(dir));
            }
        }
    }
    let mut found = Vec::new();
    all_files(root, &mut found);
    for path in found {
        match loss {
            Loss::Names if !named.contains(path.as_path()) => {
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_dir_all(&path);
            }
            Loss::Bytes if path.is_file() && !whole.contains(path.as_path()) => {
                std::fs::write(&path, b"").unwrap();
            }
            _ => {}
        }
    }
}

async fn numbers(lake: &Lake) -> Option<(Vec<i64>, Option<i64>)> {
    let table = lake.table("numbers").await.expect("the table opens")?;
    let session = SessionContext::new();
    let provider = table.provider(&session).await.unwrap();
    let rows = session.read_table(provider).unwrap().select_columns(&["n"]).unwrap();
    let batches = rows.collect().await.expect("every file of the table is whole");
    let mut all: Vec<i64> = batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    all.sort_unstable();
    Some((all, table.held("topic/0").await.unwrap()))
}

/// Runs with power for so many steps; false if that was enough for all of it.
async fn run(power_until: usize, loss: Loss) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let watched = Arc::new(Mutex::new(Watched { steps: Vec::new(), power_until }));
    let seen = Arc::clone(&watched);
    let disk = Disk::watched(Arc::new(move |step: &Step| {
        let mut watched = seen.lock().unwrap();
        if watched.steps.len() >= watched.power_until {
            return Err(io::Error::other("the power is cut"));
        }
        watched.steps.push(step.clone());
        Ok(())
    }));
    let root = Url::from_directory_path(dir.path()).unwrap();
    let lake = Lake { root: root.clone(), store: Root::on(disk) };
    let mut acknowledged = 0;
    let failed = work(&lake, &mut acknowledged).await.is_err();
    let steps = watched.lock().unwrap().steps.clone();
    cut(dir.path(), &steps, loss);

    let after = Lake { root, store: Root::on(Disk::default()) };
    let Some((held, fence)) = numbers(&after).await else {
        assert_eq!(acknowledged, 0, "{loss:?} at {power_until}: the table is gone");
        return failed;
    };
    let commits = fence.unwrap_or(0);
    assert!(commits >= acknowledged, "{loss:?} at {power_until}: {acknowledged} was acknowledged");
    let wanted: Vec<i64> = (1..=commits).flat_map(|c| [c * 10, c * 10 + 1, c * 10 + 2]).collect();
    assert_eq!(held, wanted, "{loss:?} at {power_until}");
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_power_is_cut_at_any_write() {
    for loss in [Loss::Names, Loss::Bytes] {
        let mut point = 0;
        while run(point, loss).await {
            point += 1;
        }
        assert!(point >= 40, "only {point} writes were tried");
    }
}
