//! The fence: an append lands on the version it was decided on, once, or not at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use lake::{Appended, Fence, Import, Lake, Layout, Table, Written, load_book, save_book};
use schemas::book::{TABLES, parse_csv};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn rows(kind: &str, numbers: &[i64]) -> RecordBatch {
    let kinds = StringArray::from(vec![kind; numbers.len()]);
    let numbers = Int64Array::from(numbers.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(kinds), Arc::new(numbers)]).unwrap()
}

async fn table(lake: &Lake) -> Table {
    let layout = Layout { schema: schema(), partition_columns: &["kind"], statistics: &["n"] };
    lake.ensure("numbers", &layout).await.unwrap()
}

async fn numbers(table: &Table) -> Vec<i64> {
    let session = SessionContext::new();
    let provider = table.provider(&session).await.unwrap();
    let batches = session
        .read_table(provider)
        .unwrap()
        .select_columns(&["n"])
        .unwrap()
        .collect()
        .await
        .unwrap();
    let mut all: Vec<i64> = batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    all.sort_unstable();
    all
}

fn lake(dir: &tempfile::TempDir) -> Lake {
    Lake::open(dir.path().join("lake").to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn the_loser_of_a_race_appends_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut one, mut other) = (table(&lake).await, table(&lake).await);
    assert_eq!(one.append_once(&[rows("a", &[1, 2])]).await.unwrap(), Appended::Committed(1));
    assert_eq!(other.append_once(&[rows("b", &[3])]).await.unwrap(), Appended::Stale);
    assert_eq!(numbers(&lake.table("numbers").await.unwrap().unwrap()).await, [1, 2]);
    other.refresh().await.unwrap();
    assert_eq!(other.append_once(&[rows("b", &[3])]).await.unwrap(), Appended::Committed(2));
    assert_eq!(numbers(&other).await, [1, 2, 3]);
}

/// Appends numbers whose source stood at `stands_on` and stands at `last` then.
async fn append_from(
    table: &mut Table,
    numbers: &[i64],
    stands_on: Option<i64>,
    last: i64,
) -> Appended {
    let written = table.write(&[rows("a", numbers)]).await.unwrap();
    table.commit_once(&written, &[fence(stands_on, last)], &[]).await.unwrap()
}

fn fence(stands_on: Option<i64>, last: i64) -> Fence {
    Fence { source: "topic/0".to_owned(), stands_on, last }
}

#[tokio::test]
async fn rows_are_taken_only_where_their_source_stands() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    assert_eq!(one.held("topic/0").await.unwrap(), None);
    assert_eq!(append_from(&mut one, &[1], None, 10).await, Appended::Committed(1));
    assert_eq!(one.held("topic/0").await.unwrap(), Some(10));
    // Redelivered, or by a writer that has lost the source, or beyond a gap; by this writer and by one
    // that loads the table anew. delta-rs would take them all.
    for (stands_on, last) in [(None, 9), (None, 10), (Some(9), 12), (Some(11), 12)] {
        assert_eq!(append_from(&mut one, &[7], stands_on, last).await, Appended::Overtaken);
        let mut anew = lake.table("numbers").await.unwrap().unwrap();
        assert_eq!(append_from(&mut anew, &[7], stands_on, last).await, Appended::Overtaken);
    }
    // Offsets may have holes.
    assert_eq!(append_from(&mut one, &[2], Some(10), 25).await, Appended::Committed(2));
    assert_eq!(numbers(&one).await, [1, 2]);
}

#[tokio::test]
async fn a_commit_that_lost_its_race_can_be_tried_again_without_writing_again() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut one, mut other) = (table(&lake).await, table(&lake).await);
    let written = other.write(&[rows("b", &[3])]).await.unwrap();
    one.append_once(&[rows("a", &[1])]).await.unwrap();
    let marks = [("receipts".to_owned(), 4)];
    let fences = [fence(None, 5)];
    assert_eq!(other.commit_once(&written, &fences, &marks).await.unwrap(), Appended::Stale);
    other.refresh().await.unwrap();
    assert_eq!(other.commit_once(&written, &fences, &marks).await.unwrap(), Appended::Committed(2));
    assert_eq!(other.commit_once(&written, &fences, &marks).await.unwrap(), Appended::Overtaken);
    assert_eq!(numbers(&other).await, [1, 3]);
    assert_eq!(other.held("receipts").await.unwrap(), Some(4));
}

#[tokio::test]
async fn the_rows_of_a_file_are_exchanged_in_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    one.append_once(&[rows("a", &[1, 2])]).await.unwrap();
    one.append_once(&[rows("b", &[3])]).await.unwrap();
    let mut late = one.clone();
    let files = one.files().await.unwrap();
    let old: Vec<String> = files.into_iter().filter(|f| f.starts_with("kind=a/")).collect();
    let new = [rows("a", &[1]), rows("b", &[20])];
    let marks = [("exchanges".to_owned(), 1)];
    assert_eq!(one.exchange(&old, &new, &marks).await.unwrap(), Appended::Committed(3));
    assert_eq!(numbers(&one).await, [1, 3, 20]);
    // Whoever comes later has to look again.
    assert_eq!(late.exchange(&old, &new, &marks).await.unwrap(), Appended::Stale);
    late.refresh().await.unwrap();
    assert_eq!(late.exchange(&old, &new, &marks).await.unwrap(), Appended::Stale);
    assert_eq!(numbers(&late).await, [1, 3, 20]);
    assert_eq!(late.held("exchanges").await.unwrap(), Some(1));
}

#[tokio::test]
async fn a_commit_may_move_counters_alone() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    one.append_once(&[rows("a", &[1])]).await.unwrap();
    let nothing = Written::default();
    let fence = |stands_on| Fence { source: "exchanges".to_owned(), stands_on, last: 7 };
    let marks = [("owed".to_owned(), 0)];
    let mut commit =
        async |stands_on| one.commit_once(&nothing, &[fence(stands_on)], &marks).await.unwrap();
    assert_eq!(commit(Some(6)).await, Appended::Overtaken);
    assert_eq!(commit(None).await, Appended::Committed(2));
    assert_eq!(commit(Some(7)).await, Appended::Committed(3));
    assert_eq!(numbers(&one).await, [1]);
    assert_eq!(one.held("owed").await.unwrap(), Some(0));
}

#[tokio::test]
async fn an_exchanged_file_has_the_place_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    for _ in 0..3 {
        one.append_once(&[rows("a", &[1])]).await.unwrap();
        // Times of files are in milliseconds.
        std::thread::sleep(Duration::from_millis(3));
    }
    let before = one.files_by("n").await.unwrap();
    one.exchange(&before[..1], &[rows("a", &[1, 2])], &[]).await.unwrap();
    let after = one.files_by("n").await.unwrap();
    assert_eq!((after.len(), &after[1..]), (3, &before[1..]));
}

#[tokio::test]
async fn files_are_merged_while_others_append() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    for n in 0..12 {
        assert_eq!(
            append_from(&mut one, &[n], (n > 0).then(|| n - 1), n).await,
            Appended::Committed(n as u64 + 1)
        );
    }
    let (mut upkeep, reader) = (one.clone(), one.clone());
    // The writer does not know of the merge yet, nor of the commit that seals what was merged.
    let merged = upkeep.optimize(None, NonZeroU64::new(1 << 20).unwrap()).await.unwrap();
    assert_eq!((merged.files_removed, merged.files_added), (12, 1));
    assert_eq!(append_from(&mut one, &[12], Some(11), 12).await, Appended::Stale);
    one.refresh().await.unwrap();
    assert_eq!(append_from(&mut one, &[12], Some(11), 12).await, Appended::Committed(15));
    let all: Vec<i64> = (0..13).collect();
    assert_eq!(numbers(&one).await, all);
    let checked = one.check_files(&BTreeSet::new()).await.unwrap();
    assert_eq!((checked.sealed, checked.unsealed, checked.damaged), (2, 0, None));
    // What is merged is not new; what was new before it was merged is in the merged file.
    assert_eq!(one.changes_since(13).await.unwrap().unwrap().added.len(), 1);
    assert_eq!(one.changes_since(12).await.unwrap().unwrap().added.len(), 1);
    let since = one.changes_since(7).await.unwrap().unwrap().added;
    assert_eq!(since.len(), 2);
    let session = SessionContext::new();
    let files = one.provider_of_files(&session, since).await.unwrap();
    assert_eq!(session.read_table(files).unwrap().count().await.unwrap(), 13);
    // Nothing is old enough to be removed, so who reads an older version is not disturbed.
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(one.vacuum(week, &[], false).await.unwrap().files, Vec::<String>::new());
    assert_eq!(numbers(&reader).await, all[..12]);
    assert!(
        one.vacuum(Duration::from_secs(60), &[], false).await.is_err(),
        "shorter than promised"
    );
}

#[tokio::test]
async fn a_version_can_be_pinned_and_what_came_since_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    for n in 1..=4 {
        one.append_once(&[rows(if n % 2 == 0 { "even" } else { "odd" }, &[n])]).await.unwrap();
    }
    let pinned = lake.table_at("numbers", 2).await.unwrap().unwrap();
    assert_eq!(numbers(&pinned).await, [1, 2]);
    let changes = one.changes_since(2).await.unwrap().unwrap();
    assert_eq!(changes.added.len(), 2);
    assert!(
        changes.added[0].starts_with("kind=odd/") && changes.added[1].starts_with("kind=even/")
    );
    let session = SessionContext::new();
    let provider = one.provider_of_files(&session, changes.added).await.unwrap();
    assert_eq!(session.read_table(provider).unwrap().count().await.unwrap(), 2);
    assert_eq!(one.id().unwrap(), pinned.id().unwrap());
    assert!(lake.table("nothing").await.unwrap().is_none());
}

#[tokio::test]
async fn a_book_is_replaced_whole_and_its_versions_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    assert_eq!(load_book(&lake, None).await.unwrap().version, None);
    let save = async |zone: &str| {
        let csv = format!(
            "smart_account,virtual_account,customer,currency,time_zone\nsa,va,\"Line\nbreak, \"\"x\"\"\",EUR,{zone}\n"
        );
        let mut errors = Vec::new();
        let cells = parse_csv(TABLES[0], csv.as_bytes(), &mut errors);
        assert_eq!(errors, []);
        save_book(&lake, &BTreeMap::from([("accounts".to_owned(), cells)]), &Import::default())
            .await
            .unwrap()
    };
    let (first, second) = (save("Europe/Berlin").await, save("Asia/Tokyo").await);
    assert!(first < second);
    for (version, zone) in
        [(Some(first), "Europe/Berlin"), (Some(second), "Asia/Tokyo"), (None, "Asia/Tokyo")]
    {
        let book = load_book(&lake, version).await.unwrap().book;
        assert_eq!((book.accounts.len(), book.accounts[0].zone_name.as_str()), (1, zone));
        assert_eq!(book.accounts[0].customer, "Line\nbreak, \"x\"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_make_the_same_table_at_once() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let lake = lake(&dir);
        let making: Vec<_> = (0..8)
            .map(|_| {
                let lake = lake.clone();
                tokio::spawn(async move { table(&lake).await.id().unwrap() })
            })
            .collect();
        let mut ids = Vec::new();
        for one in making {
            ids.push(one.await.unwrap());
        }
        ids.dedup();
        assert_eq!(ids.len(), 1, "one table");
    }
}

#[tokio::test]
async fn a_table_stands_still_until_the_next_commit_and_another_in_its_place_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let still = async |word: &str| lake.stands_still("numbers", word).await.unwrap();
    assert!(still("").await && !still("x").await && !still("x@0@y").await && !still("x@0@").await);
    let mut one = table(&lake).await;
    one.append_once(&[rows("a", &[1])]).await.unwrap();
    let first = one.stands_at().unwrap();
    assert!(still(&first).await && !still("").await);
    one.append_once(&[rows("a", &[2])]).await.unwrap();
    let second = one.stands_at().unwrap();
    assert!(!still(&first).await && still(&second).await);
    // A copy of the lake as it was, in its place, to which another commit came.
    let log = dir.path().join("lake/numbers/_delta_log");
    std::fs::remove_file(log.join("00000000000000000002.json")).unwrap();
    assert!(still(&first).await && !still(&second).await);
    let mut restored = lake.table("numbers").await.unwrap().unwrap();
    restored.append_once(&[rows("a", &[3])]).await.unwrap();
    assert!(!still(&first).await && !still(&second).await);
    std::fs::remove_dir_all(dir.path().join("lake")).unwrap();
    assert!(still("").await && !still(&first).await);
    let id = |word: &str| word.split('@').next().unwrap().to_owned();
    let anew = table(&lake).await.stands_at().unwrap();
    assert!(still(&anew).await && id(&anew) != id(&first));
}
