use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::disk::{Disk, Step};
use crate::store::Root;
use crate::{Lake, Layout};

/// Numbers, divided by kind.
fn of_kinds() -> Layout {
    let schema = Arc::new(Schema::new(vec![
        Field::new("kind", DataType::Utf8, false),
        Field::new("number", DataType::Int64, true),
    ]));
    Layout { schema, partition_columns: &["kind"], statistics: &["number"] }
}

fn of_kind_a(number: i64) -> RecordBatch {
    let columns: Vec<arrow::array::ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a"])), Arc::new(Int64Array::from(vec![number]))];
    RecordBatch::try_new(of_kinds().schema, columns).unwrap()
}

/// However long a writer goes on, what it has of its table stays short, and is the table.
#[tokio::test]
async fn a_state_is_read_anew_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let mut writer = lake.ensure("t", &of_kinds()).await.unwrap();
    let mut reader = lake.table("t").await.unwrap().unwrap();
    for number in 0..2 * i64::try_from(ADDED_MAX).unwrap() + 20 {
        let rows = of_kind_a(number);
        let fence = Fence {
            source: "s".to_owned(),
            stands_on: (number > 0).then(|| number - 1),
            last: number,
        };
        let written = writer.write(&[rows]).await.unwrap();
        let appended = writer.commit_once(&written, &[fence], &[]).await.unwrap();
        assert_eq!(appended, Appended::Committed(writer.version()));
        if number % 7 == 0 {
            reader.refresh().await.unwrap();
        }
        assert!(writer.added < ADDED_MAX && reader.added < ADDED_MAX);
    }
    reader.refresh().await.unwrap();
    let fresh = lake.table("t").await.unwrap().unwrap();
    let mut files = fresh.files().await.unwrap();
    files.sort();
    for mut table in [writer, reader] {
        assert_eq!(table.version(), fresh.version());
        assert_eq!(table.held("s").await.unwrap(), fresh.held("s").await.unwrap());
        let mut held = table.files().await.unwrap();
        held.sort();
        assert_eq!(held, files);
        table.refresh().await.unwrap();
    }
    assert_eq!(files.len(), 120);
}

/// A commit is made, its answer is lost, and another writer is faster than the question whether it was: as a store on the
/// network does it that is asked again and says that the file is there already.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_stands_where_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let plain = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let mut other = plain.ensure("t", &of_kinds()).await.unwrap();
    other.append_once(&[of_kind_a(1)]).await.unwrap();
    let disk = Disk::watched(Arc::new(move |step: &Step| {
        if let Step::Named { from, to } = step
            && to.ends_with("_delta_log/00000000000000000002.json")
            && !to.exists()
        {
            std::fs::hard_link(from, to)?;
            let mut other = other.clone();
            let appending = std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.block_on(async {
                    other.refresh().await.unwrap();
                    other.append_once(&[of_kind_a(3)]).await.unwrap()
                })
            });
            assert_eq!(appending.join().unwrap(), Appended::Committed(3));
        }
        Ok(())
    }));
    let watched = Lake { root: plain.root.clone(), store: Root::on(disk) };
    let mut writer = watched.table("t").await.unwrap().unwrap();
    assert_eq!(writer.append_once(&[of_kind_a(2)]).await.unwrap(), Appended::Committed(2));
    // What the other committed is not loaded without a word: nobody would take it in.
    assert_eq!(writer.version(), 2);
    assert_eq!(writer.files().await.unwrap().len(), 2);
    assert_eq!(writer.append_once(&[of_kind_a(4)]).await.unwrap(), Appended::Stale);
    writer.refresh().await.unwrap();
    assert_eq!((writer.version(), writer.files().await.unwrap().len()), (3, 3));
}

async fn number(table: &mut Table, number: i64) {
    let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, true)]));
    let rows =
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![number]))]).unwrap();
    assert!(matches!(table.append_once(&[rows]).await.unwrap(), Appended::Committed(_)));
}

/// A word stands for one commit, however the table was loaded, and for no other of its version.
#[tokio::test]
async fn a_word_is_of_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, true)]));
    let layout = Layout { schema, partition_columns: &[], statistics: &["number"] };
    let mut writer = lake.ensure("t", &layout).await.unwrap();
    let mut reader = lake.table("t").await.unwrap().unwrap();
    let mut words = vec![writer.stands_at().unwrap()];
    for n in 1..=3 {
        number(&mut writer, n).await;
        words.push(writer.stands_at().unwrap());
    }
    reader.refresh().await.unwrap();
    let fresh = lake.table("t").await.unwrap().unwrap();
    for table in [&writer, &reader, &fresh] {
        assert_eq!(table.stands_at().unwrap(), words[3]);
        for (version, word) in (0..).zip(&words) {
            assert_eq!(table.stood_at(word).await.unwrap(), Some(version));
        }
    }
    let older = lake.table_at("t", 1).await.unwrap().unwrap();
    assert_eq!(older.stands_at().unwrap(), words[1]);
    assert_eq!(older.stood_at(&words[2]).await.unwrap(), None, "it is ahead");
    for wrong in ["", "@", "a@1@b", words[1].trim_end_matches(|c| c != '@')] {
        assert_eq!(fresh.stood_at(wrong).await.unwrap(), None, "{wrong}");
    }

    // The last two commits are lost, and others come to have their versions.
    for version in 2..=3 {
        std::fs::remove_file(dir.path().join(format!("t/_delta_log/{version:020}.json"))).unwrap();
    }
    let mut writer = lake.table("t").await.unwrap().unwrap();
    assert_eq!(writer.stands_at().unwrap(), words[1]);
    for n in 2..=4 {
        number(&mut writer, n).await;
    }
    for (version, word) in (0..).zip(&words) {
        let expected = Some(version).filter(|version| *version < 2);
        assert_eq!(writer.stood_at(word).await.unwrap(), expected);
    }
}

/// A merge under which another writer exchanged a file is made anew, with what took its place.
#[tokio::test]
async fn a_merge_goes_on_when_a_file_was_exchanged_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let schema = Arc::new(Schema::new(vec![Field::new("number", DataType::Int64, true)]));
    let layout = Layout { schema: schema.clone(), partition_columns: &[], statistics: &["number"] };
    let mut writer = lake.ensure("t", &layout).await.unwrap();
    for n in 1..=3 {
        number(&mut writer, n).await;
    }
    let mut upkeep = lake.table("t").await.unwrap().unwrap();
    let first = writer.files_by("number").await.unwrap().remove(0);
    let other = Arc::new(Int64Array::from(vec![10]));
    let other = RecordBatch::try_new(schema, vec![other]).unwrap();
    writer.exchange(&[first], &[other], &[]).await.unwrap();
    let merged = upkeep.optimize(None, std::num::NonZeroU64::new(1 << 20).unwrap()).await.unwrap();
    assert_eq!((merged.files_added, merged.files_removed), (1, 3));
    assert_eq!(numbers_of(&upkeep).await, [2, 3, 10]);
}

async fn numbers_of(table: &Table) -> Vec<i64> {
    let session = datafusion::prelude::SessionContext::new();
    let provider = table.provider(&session).await.unwrap();
    let rows = session.read_table(provider).unwrap().select_columns(&["number"]).unwrap();
    let mut numbers: Vec<i64> = rows
        .collect()
        .await
        .unwrap()
        .iter()
        .flat_map(|rows| {
            let column = rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            column.values().to_vec()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Of two merges that were planned on one version, the second is made anew: what both took away would be there twice.
/// That it is there once, the log shows; where another program doubled rows, it shows that too.
#[tokio::test]
async fn two_merges_at_once_double_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let lake = Lake::open(dir.path().to_str().unwrap()).unwrap();
    let mut writer = lake.ensure("t", &of_kinds()).await.unwrap();
    let size = std::num::NonZeroU64::new(1 << 20).unwrap();
    let mut next = 0;
    let mut append = async |writer: &mut Table| {
        for _ in 0..3 {
            writer.append_once(&[of_kind_a(next)]).await.unwrap();
            next += 1;
        }
    };
    append(&mut writer).await;
    for round in 0..4 {
        let mut first = lake.table("t").await.unwrap().unwrap();
        let mut second = lake.table("t").await.unwrap().unwrap();
        let clusters = [round % 2 == 1, round >= 2];
        for (table, cluster) in [&mut first, &mut second].into_iter().zip(clusters) {
            if cluster {
                table.cluster(("kind", "a"), "number", size).await.unwrap();
            } else {
                table.optimize(None, size).await.unwrap();
            }
        }
        let held: Vec<i64> = (0..3 * (round + 1)).collect();
        assert_eq!(numbers_of(&second).await, held, "round {round}");
        assert_eq!(second.check_log().await.unwrap(), None);
        writer.refresh().await.unwrap();
        append(&mut writer).await;
    }

    // Another program's merge, which knows nothing of ours.
    let mut late = lake.table("t").await.unwrap().unwrap();
    let held = numbers_of(&late).await;
    let foreign = lake.table("t").await.unwrap().unwrap().delta;
    foreign.clone().optimize().with_target_size(size).await.unwrap();
    late.optimize(None, size).await.unwrap();
    assert_eq!(numbers_of(&late).await, held);
    foreign.optimize().with_target_size(size).await.unwrap();
    late.refresh().await.unwrap();
    assert!(numbers_of(&late).await.len() > held.len(), "it does not look at ours");
    let fault = late.check_log().await.unwrap().unwrap();
    assert_eq!(fault.version, late.version());
}
