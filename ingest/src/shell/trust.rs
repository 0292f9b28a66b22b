//! Trust codes that came over Kafka, kept in the lake beside those of the book.
//!
//! A message of the topic holds the trust codes of one device: its key is `PID:SERIAL`, its value a
//! JSON object with the columns of `trust_codes.csv`, or a list of such objects. The topic is
//! compacted, so a later value replaces an earlier one there; here both are kept, since a report signed
//! before a code was overwritten is still verified with the earlier one (R7.2). A message that is no
//! trust code is kept as well, with what is wrong with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext, col};
use futures::StreamExt as _;
use lake::{
    Lake, LakeError, Layout, StoredBook, Table, book_version, each_trust_code, each_trust_code_at,
    load_book,
};
use schemas::book::{Book, Cells, TrustCode};
use schemas::period::EpochSeconds;
use schemas::trust::{SCHEMA, TABLE, columns};
use schemas::udi::Udi;
use serde_json::Value;

use crate::core::keyring::{Codes, Keyring};

/// More codes in one message are no trust codes of one device.
const CODES_MAX: usize = 1000;

#[must_use]
pub fn layout() -> Layout {
    Layout { schema: SCHEMA.clone(), partition_columns: &[], statistics: &["offset"] }
}

/// A message of the topic, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Cells of each trust code, in the order of the book's columns.
    pub codes: Vec<Vec<String>>,
    /// Why it is no trust code.
    pub fault: Option<String>,
    pub raw: String,
    pub partition: i32,
    pub offset: i64,
}

/// Reads a message. Whatever the bytes are, they are no error.
#[must_use]
pub fn read_message(key: Option<&[u8]>, value: &[u8], partition: i32, offset: i64) -> Received {
    let raw = String::from_utf8_lossy(value).into_owned();
    let (codes, fault) = match codes_of(key, value) {
        Ok(codes) => (codes, None),
        Err(fault) => (Vec::new(), Some(fault)),
    };
    Received { codes, fault, raw, partition, offset }
}

fn codes_of(key: Option<&[u8]>, value: &[u8]) -> Result<Vec<Vec<String>>, String> {
    let parsed: Value = serde_json::from_slice(value).map_err(|e| format!("not JSON: {e}"))?;
    let objects = match parsed {
        Value::Array(all) => all,
        one => vec![one],
    };
    if objects.len() > CODES_MAX {
        return Err(format!("more than {CODES_MAX} trust codes in one message"));
    }
    let rows: Vec<Vec<String>> = objects.iter().map(cells).collect::<Result<_, _>>()?;
    let codes = check(rows.iter())?;
    for code in &codes {
        if key.is_some_and(|key| key != code.udi.to_string().as_bytes()) {
            return Err(format!("the message's key is not {}", code.udi));
        }
    }
    Ok(rows)
}

fn cells(object: &Value) -> Result<Vec<String>, String> {
    let Value::Object(fields) = object else {
        return Err("a trust code is a JSON object".to_owned());
    };
    if let Some(unknown) = fields.keys().find(|k| !columns().contains(&k.as_str())) {
        return Err(format!("unknown field '{unknown}'; there are {}", columns().join(", ")));
    }
    columns()
        .iter()
        .map(|name| match fields.get(*name) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(format!("{name} is no text")),
        })
        .collect()
}

/// The same checks as of the book's file.
fn check<'a>(rows: impl Iterator<Item = &'a Vec<String>>) -> Result<Vec<TrustCode>, String> {
    let mut cells = Cells::default();
    for row in rows {
        cells.push(0, row.iter().map(String::as_str));
    }
    let book = Book::read(&BTreeMap::from([("trust_codes".to_owned(), cells)]));
    match book {
        Ok(book) => Ok(book.trust_codes),
        Err(errors) => {
            Err(errors.first().map_or_else(String::new, |e| format!("{}: {}", e.column, e.message)))
        }
    }
}

/// Messages as rows of the table.
///
/// # Errors
/// Only if the columns do not fit the schema, which would be a bug.
pub fn rows_of(
    messages: &[Received],
    topic: &str,
    received_at: EpochSeconds,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    /// A row: one code of a message, or the message that holds none.
    struct Line<'a> {
        cells: Option<&'a [String]>,
        message: &'a Received,
    }
    let mut lines: Vec<Line<'_>> = Vec::new();
    for message in messages {
        lines.extend(message.codes.iter().map(|code| Line { cells: Some(code), message }));
        if message.codes.is_empty() {
            lines.push(Line { cells: None, message });
        }
    }
    let cell = |i: usize| lines.iter().map(move |l| l.cells.and_then(|c| c.get(i)).cloned());
    let mut arrays: Vec<ArrayRef> = (0..columns().len())
        .map(|i| Arc::new(cell(i).collect::<StringArray>()) as ArrayRef)
        .collect();
    let micros = vec![received_at.saturating_mul(1_000_000); lines.len()];
    let of_message = || lines.iter().map(|l| l.message);
    arrays.push(Arc::new(of_message().map(|m| m.fault.clone()).collect::<StringArray>()));
    arrays.push(Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")));
    arrays.push(Arc::new(of_message().map(|_| Some(topic)).collect::<StringArray>()));
    arrays.push(Arc::new(of_message().map(|m| Some(m.partition)).collect::<Int32Array>()));
    arrays.push(Arc::new(of_message().map(|m| Some(m.offset)).collect::<Int64Array>()));
    arrays.push(Arc::new(of_message().map(|m| Some(m.raw.as_str())).collect::<StringArray>()));
    RecordBatch::try_new(SCHEMA.clone(), arrays)
}

/// All keys that count, of the newest book and of what came over Kafka, and the book's version.
///
/// # Errors
/// If the store fails, or what is stored does not hold any more.
pub async fn load_keyring(lake: &Lake) -> Result<(Keyring, Option<u64>), LakeError> {
    let mut codes = Codes::default();
    let book_version = each_trust_code(lake, &mut |code| codes.add(code)).await?;
    load(lake).await?.iter().for_each(|code| codes.add(code));
    Ok((Keyring::of(codes), book_version))
}

/// Books that are looked through for trust codes that are in the newest one no more.
const BOOKS_MAX: usize = 1000;

/// Keys that earlier books had and the newest one has not, a keyring for each such book, the latest first: a report
/// that was accepted by one of them is as good as it was. A book that a vacuum took is passed over.
///
/// # Errors
/// If the store fails.
pub async fn withdrawn(lake: &Lake) -> Result<Vec<Keyring>, LakeError> {
    let name = |code: &TrustCode| {
        let mut hasher = DefaultHasher::new();
        (&code.udi, &code.public_key, code.valid_from, code.valid_to).hash(&mut hasher);
        hasher.finish()
    };
    let mut held: HashSet<u64> = HashSet::new();
    let newest = each_trust_code(lake, &mut |code| _ = held.insert(name(code))).await?;
    let mut rings = Vec::new();
    let mut before: Vec<u64> = Vec::new();
    for version in (0..newest.unwrap_or(0)).rev().take(BOOKS_MAX) {
        let mut codes: HashMap<Udi, Vec<TrustCode>> = HashMap::new();
        let mut gone: HashSet<Udi> = HashSet::new();
        // Of a device that misses one all: where one ends depends on the next.
        let mut take = |code: &TrustCode| {
            if !held.contains(&name(code)) {
                gone.insert(code.udi.clone());
            }
            codes.entry(code.udi.clone()).or_default().push(code.clone());
        };
        if let Err(error) = each_trust_code_at(lake, version, &mut take).await {
            tracing::debug!(%error, version, "an earlier book is passed over");
            continue;
        }
        codes.retain(|udi, _| gone.contains(udi));
        let codes: Vec<TrustCode> = codes.into_values().flatten().collect();
        let mut names: Vec<u64> = codes.iter().map(name).collect();
        names.sort_unstable();
        if !codes.is_empty() && names != before {
            rings.push(Keyring::new(&codes));
        }
        before = names;
    }
    Ok(rings)
}

/// What a keyring is made of beside a book: keys that came over Kafka, and which book is the newest.
#[derive(Clone, Debug)]
pub struct Newest {
    book_version: Option<u64>,
    received: Vec<TrustCode>,
}

impl Newest {
    /// # Errors
    /// If the store fails, or what is stored does not hold any more.
    pub async fn load(lake: &Lake) -> Result<Newest, LakeError> {
        let (book_version, received) = tokio::join!(book_version(lake), load(lake));
        Ok(Newest { book_version: book_version?, received: received? })
    }
}

/// As [`load_keyring`], of some devices only; `known` is a book that need not be read again if it is the
/// newest.
///
/// # Errors
/// As [`load_keyring`].
pub async fn keyring_of(
    lake: &Lake,
    newest: &Newest,
    signers: &HashSet<Udi>,
    known: &StoredBook,
) -> Result<Keyring, LakeError> {
    let newer;
    let book = if newest.book_version == known.version {
        &known.book
    } else {
        newer = load_book(lake, None).await?;
        &newer.book
    };
    let all = book.trust_codes.iter().chain(&newest.received);
    let codes: Vec<TrustCode> = all.filter(|code| signers.contains(&code.udi)).cloned().collect();
    Ok(Keyring::new(&codes))
}

/// All trust codes that came, of one device and key the last.
async fn load(lake: &Lake) -> Result<Vec<TrustCode>, LakeError> {
    match lake.table(TABLE).await? {
        None => Ok(Vec::new()),
        Some(table) => codes_in(&table).await,
    }
}

async fn codes_in(table: &Table) -> Result<Vec<TrustCode>, LakeError> {
    let read = |source| LakeError::Query { table: TABLE.to_owned(), source: Box::new(source) };
    let misfit = |why: String| LakeError::Layout { table: TABLE.to_owned(), why };
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let provider = table.provider(&session).await?;
    let mut wanted = columns().to_vec();
    wanted.extend(["partition", "offset", "received_at"]);
    let mut stream = session
        .read_table(provider)
        .and_then(|rows| rows.filter(col("fault").is_null()))
        .and_then(|rows| rows.select_columns(&wanted))
        .map_err(read)?
        .execute_stream()
        .await
        .map_err(read)?;
    // What came last counts, also of a topic that was made anew, where offsets begin again.
    let mut rows: Vec<((i64, i64, i64), Vec<String>)> = Vec::new();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(read)?;
        let number = |i: usize| {
            cast(batch.column(i), &DataType::Int64)
                .map(|n| n.as_primitive::<Int64Type>().clone())
                .map_err(|e| misfit(e.to_string()))
        };
        let texts: Vec<StringArray> = (0..columns().len())
            .map(|i| cast(batch.column(i), &DataType::Utf8).map(|t| t.as_string::<i32>().clone()))
            .collect::<Result<_, _>>()
            .map_err(|e| misfit(e.to_string()))?;
        let (partitions, offsets) = (number(columns().len())?, number(columns().len() + 1)?);
        let received = number(columns().len() + 2)?;
        for i in 0..batch.num_rows() {
            let cells = texts
                .iter()
                .map(|t| if t.is_valid(i) { t.value(i).to_owned() } else { String::new() })
                .collect();
            rows.push(((received.value(i), partitions.value(i), offsets.value(i)), cells));
        }
    }
    rows.sort_by_key(|(place, _)| *place);
    let codes = check(rows.iter().map(|(_, cells)| cells)).map_err(misfit)?;
    let mut last: HashMap<(Udi, String), TrustCode> = HashMap::new();
    for code in codes {
        last.insert((code.udi.clone(), code.public_key.clone()), code);
    }
    Ok(last.into_values().collect())
}
