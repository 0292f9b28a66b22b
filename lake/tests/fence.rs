//! The fence: an append lands on the version it was decided on, once, or not at all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray as _, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use lake::{Appended, Lake, Layout, Table, load_book, save_book};
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

fn offset(n: i64) -> Vec<(String, i64)> {
    vec![("topic/0".to_owned(), n)]
}

#[tokio::test]
async fn the_loser_of_a_race_appends_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let (mut one, mut other) = (table(&lake).await, table(&lake).await);
    assert_eq!(one.append_once(&[rows("a", &[1, 2])], &[]).await.unwrap(), Appended::Committed(1));
    assert_eq!(other.append_once(&[rows("b", &[3])], &[]).await.unwrap(), Appended::Stale);
    assert_eq!(numbers(&lake.table("numbers").await.unwrap().unwrap()).await, [1, 2]);
    other.refresh().await.unwrap();
    assert_eq!(other.append_once(&[rows("b", &[3])], &[]).await.unwrap(), Appended::Committed(2));
    assert_eq!(numbers(&other).await, [1, 2, 3]);
}

#[tokio::test]
async fn offsets_that_are_held_are_not_taken_again() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    assert_eq!(one.fence("topic/0").await.unwrap(), None);
    assert_eq!(
        one.append_once(&[rows("a", &[1])], &offset(10)).await.unwrap(),
        Appended::Committed(1)
    );
    assert_eq!(one.fence("topic/0").await.unwrap(), Some(10));
    // Redelivered, by this writer and by one that loads the table anew; delta-rs would take them.
    for again in [9, 10] {
        assert_eq!(
            one.append_once(&[rows("a", &[1])], &offset(again)).await.unwrap(),
            Appended::AlreadyThere
        );
        let mut anew = lake.table("numbers").await.unwrap().unwrap();
        assert_eq!(
            anew.append_once(&[rows("a", &[1])], &offset(again)).await.unwrap(),
            Appended::AlreadyThere
        );
    }
    // Offsets may have holes.
    assert_eq!(
        one.append_once(&[rows("a", &[2])], &offset(25)).await.unwrap(),
        Appended::Committed(2)
    );
    assert_eq!(numbers(&one).await, [1, 2]);
}

#[tokio::test]
async fn a_version_can_be_pinned_and_what_came_since_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let lake = lake(&dir);
    let mut one = table(&lake).await;
    for n in 1..=4 {
        one.append_once(&[rows(if n % 2 == 0 { "even" } else { "odd" }, &[n])], &[]).await.unwrap();
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
        save_book(&lake, &BTreeMap::from([("accounts".to_owned(), cells)])).await.unwrap()
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
