//! The book in the lake: one table, one version for each import.
//!
//! All files of a book are rows of one table, each row with its cells as they were imported, so that
//! an import is one commit: two tables cannot be committed together. What is read back goes through
//! the same checks as what is imported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int64Array, ListBuilder, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::{SessionConfig, SessionContext, cast, col, lit};
use futures::StreamExt as _;
use schemas::book::{Book, Cells, TABLES, TrustCode};
use schemas::merkle;

use crate::{Appended, Lake, LakeError, Layout, Result, Table, cache};

/// Name of the table.
pub const TABLE: &str = "book";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let cells = Field::new("element", DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("file", DataType::Utf8, false),
        Field::new("line", DataType::Int64, false),
        Field::new("cells", DataType::List(Arc::new(cells)), true),
    ]))
});

/// Name of the file of trust codes.
const TRUST_CODES: &str = "trust_codes";
/// The row that tells of the import itself.
const IMPORT: &str = "_import";

/// Who imported a book, and why it changes what was charged already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    /// RFC 3339.
    pub at: String,
    pub by: String,
    /// The reason of a correction, or blank.
    pub corrects: String,
}

/// A book, and the version of the table that it was read from.
#[derive(Clone, Debug, Default)]
pub struct StoredBook {
    pub book: Book,
    /// `None` where no book was imported yet: it is empty.
    pub version: Option<u64>,
    /// As [`book_stands_at`] says.
    pub stands_at: String,
    pub import: Import,
}

/// Replaces the whole book in one commit, and gives its version.
///
/// # Errors
/// If the store fails.
pub async fn save_book(
    lake: &Lake,
    cells: &BTreeMap<String, Cells>,
    import: &Import,
) -> Result<u64> {
    let layout = Layout { schema: SCHEMA.clone(), partition_columns: &[], statistics: &["file"] };
    let mut table = lake.ensure(TABLE, &layout).await?;
    let rows = to_rows(cells, import)?;
    loop {
        match table.replace(std::slice::from_ref(&rows)).await? {
            Appended::Committed(version) => return Ok(version),
            // Two imports at once: the later one replaces the earlier one, whole.
            Appended::Stale | Appended::Overtaken => table.refresh().await?,
        }
    }
}

/// Makes an earlier book the newest again in place of a version, in one commit, if that version still is: an import that
/// came too late takes itself back. Gives the version that this makes; `None` where there is no such book, or a later
/// import replaced the whole book.
///
/// # Errors
/// If the store fails.
pub async fn take_back_book(lake: &Lake, version: u64, earlier: u64) -> Result<Option<u64>> {
    let before = lake.table_at(TABLE, earlier).await?;
    let (Some(before), Some(mut table)) = (before, lake.table(TABLE).await?) else {
        return Ok(None);
    };
    if table.version() != version {
        return Ok(None);
    }
    let mut cells = read_cells(&before).await?;
    let import = stored_book(&before, cells.clone())?.import;
    cells.remove(IMPORT);
    match table.replace(&[to_rows(&cells, &import)?]).await? {
        Appended::Committed(version) => Ok(Some(version)),
        Appended::Stale | Appended::Overtaken => Ok(None),
    }
}

/// The version of the newest book; `None` where no book was imported yet.
///
/// # Errors
/// If the store fails.
pub async fn book_version(lake: &Lake) -> Result<Option<u64>> {
    Ok(lake.table(TABLE).await?.map(|table| table.version()))
}

/// Where the newest book stands ([`crate::Table::stands_at`]); blank where no book was imported yet.
///
/// # Errors
/// If the store fails.
pub async fn book_stands_at(lake: &Lake) -> Result<String> {
    lake.table(TABLE).await?.map_or(Ok(String::new()), |table| table.stands_at())
}

/// The book of which [`book_stands_at`] gave a word; `None` if it is not the lake's any more.
///
/// # Errors
/// If the store fails.
pub async fn book_that_stood_at(lake: &Lake, word: &str) -> Result<Option<StoredBook>> {
    let Some(table) = lake.table(TABLE).await? else { return Ok(None) };
    let Some(version) = table.stood_at(word).await? else { return Ok(None) };
    // Its files may have been removed since.
    Ok(load_book(lake, Some(version)).await.ok())
}

/// Reads the newest book, or the one of a version that a run pinned.
///
/// # Errors
/// If the store fails, or the stored cells are no book any more.
pub async fn load_book(lake: &Lake, version: Option<u64>) -> Result<StoredBook> {
    let table = match version {
        None => lake.table(TABLE).await?,
        Some(version) => lake.table_at(TABLE, version).await?,
    };
    let Some(table) = table else {
        return Ok(StoredBook::default());
    };
    let cells = read_cells(&table).await?;
    stored_book(&table, cells)
}

/// Hands over the trust codes of the newest book, one after the other, and gives its version: they are all of a book
/// that whoever takes in reports needs, and of a large fleet too many to be held twice.
///
/// # Errors
/// As [`load_book`], for the trust codes alone.
pub async fn each_trust_code(
    lake: &Lake,
    take: &mut (dyn FnMut(&TrustCode) + Send),
) -> Result<Option<u64>> {
    let Some(table) = lake.table(TABLE).await? else { return Ok(None) };
    each_code_of(&table, take).await?;
    Ok(Some(table.version()))
}

/// The same of an earlier book; false if there is none of that version any more.
///
/// # Errors
/// As [`each_trust_code`].
pub async fn each_trust_code_at(
    lake: &Lake,
    version: u64,
    take: &mut (dyn FnMut(&TrustCode) + Send),
) -> Result<bool> {
    let Some(table) = lake.table_at(TABLE, version).await? else { return Ok(false) };
    each_code_of(&table, take).await?;
    Ok(true)
}

async fn each_code_of(table: &Table, take: &mut (dyn FnMut(&TrustCode) + Send)) -> Result<()> {
    let of_batch = &mut |batch: &RecordBatch| {
        let mut cells = BTreeMap::new();
        take_rows(batch, &mut cells)?;
        book_of(&cells)?.trust_codes.iter().for_each(&mut *take);
        Ok(())
    };
    each_batch(table, Some(TRUST_CODES), of_batch).await
}

/// The newest book, from a copy of its cells that is kept in a folder where there is one, for questions that
/// are asked again and again: it is read in a tenth of the time. A copy of another book, or one that does
/// not fit its own digest, is made anew.
///
/// # Errors
/// As [`load_book`].
pub async fn load_book_kept(lake: &Lake, cache_dir: &Path) -> Result<StoredBook> {
    let Some(table) = lake.table(TABLE).await? else {
        return Ok(StoredBook::default());
    };
    let path = cache_dir.join("book.cells");
    let stands_at = table.stands_at()?;
    if let Some(cells) = std::fs::read(&path).ok().and_then(|kept| kept_cells(&kept, &stands_at)) {
        return stored_book(&table, cells);
    }
    let cells = read_cells(&table).await?;
    // That it cannot be kept costs the next one its time, and nothing else.
    if let Err(error) = cache::put(&path, &cells_to_keep(&stands_at, &cells)) {
        tracing::debug!(%error, path = %path.display(), "the book is not kept");
    }
    stored_book(&table, cells)
}

/// Begins the file of a kept book. A change of its form changes this.
const KEPT: &[u8] = b"rumledger book cells 1\n";

fn cells_to_keep(stands_at: &str, cells: &BTreeMap<String, Cells>) -> Vec<u8> {
    let mut bytes = KEPT.to_vec();
    let text = |text: &str, bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    text(stands_at, &mut bytes);
    bytes.extend_from_slice(&(cells.len() as u64).to_le_bytes());
    for (name, cells) in cells {
        text(name, &mut bytes);
        cells.write_to(&mut bytes);
    }
    let digest = merkle::digest(&bytes);
    bytes.extend_from_slice(&digest.0);
    bytes
}

fn kept_cells(kept: &[u8], stands_at: &str) -> Option<BTreeMap<String, Cells>> {
    let (bytes, digest) = kept.split_last_chunk::<32>()?;
    let mut rest = bytes.strip_prefix(KEPT)?;
    if text_of(&mut rest)? != stands_at {
        return None;
    }
    let take = || {
        let mut cells = BTreeMap::new();
        for _ in 0..number_of(&mut rest)? {
            let name = text_of(&mut rest)?.to_owned();
            cells.insert(name, Cells::take_from(&mut rest)?);
        }
        rest.is_empty().then_some(cells)
    };
    let (cells, is_whole) = rayon::join(take, || merkle::digest(bytes).0 == *digest);
    cells.filter(|_| is_whole)
}

fn number_of(bytes: &mut &[u8]) -> Option<usize> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    usize::try_from(u64::from_le_bytes(*number)).ok()
}

fn text_of<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let length = number_of(bytes)?;
    let (text, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

/// The cells of a book.
async fn read_cells(table: &Table) -> Result<BTreeMap<String, Cells>> {
    let mut cells: BTreeMap<String, Cells> = BTreeMap::new();
    each_batch(table, None, &mut |batch| take_rows(batch, &mut cells)).await?;
    for table in cells.values_mut() {
        table.sort_by_line();
    }
    Ok(cells)
}

/// The rows of a book, or of one of its files only, in no order.
async fn each_batch(
    table: &Table,
    file: Option<&str>,
    take: &mut (dyn FnMut(&RecordBatch) -> Result<()> + Send),
) -> Result<()> {
    let failed = |e| LakeError::query(TABLE, e);
    let config = SessionConfig::new().with_repartition_file_min_size(0);
    let session = SessionContext::new_with_config(config);
    let provider = table.provider(&session).await?;
    // In the types that are taken below: casts, which are work enough to be spread over the cores.
    let columns = SCHEMA
        .fields()
        .iter()
        .map(|field| cast(col(field.name()), field.data_type().clone()).alias(field.name()));
    let rows = session.read_table(provider).and_then(|rows| match file {
        Some(file) => rows.filter(col("file").eq(lit(file))),
        None => Ok(rows),
    });
    let rows = rows.and_then(|rows| rows.select(columns));
    let mut rows = rows.map_err(failed)?.execute_stream().await.map_err(failed)?;
    while let Some(batch) = rows.next().await {
        take(&batch.map_err(failed)?)?;
    }
    Ok(())
}

fn stored_book(table: &Table, mut cells: BTreeMap<String, Cells>) -> Result<StoredBook> {
    let import = cells.remove(IMPORT).and_then(|cells| {
        let (_, row) = cells.rows().next()?;
        let cell = |index: usize| row.get(index).map(str::to_owned);
        Some(Import { at: cell(0)?, by: cell(1)?, corrects: cell(2)? })
    });
    Ok(StoredBook {
        book: book_of(&cells)?,
        version: Some(table.version()),
        stands_at: table.stands_at()?,
        import: import.unwrap_or_default(),
    })
}

fn book_of(cells: &BTreeMap<String, Cells>) -> Result<Book> {
    Book::read(cells).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        misfit(&format!("the stored book does not hold any more: {first}"))
    })
}

fn misfit(why: &str) -> LakeError {
    LakeError::Layout { table: TABLE.to_owned(), why: why.to_owned() }
}

fn to_rows(cells: &BTreeMap<String, Cells>, import: &Import) -> Result<RecordBatch> {
    let mut files = Vec::new();
    let mut lines = Vec::new();
    let mut texts = ListBuilder::new(StringBuilder::new()).with_field(Field::new(
        "element",
        DataType::Utf8,
        true,
    ));
    for spec in TABLES {
        for (line, row) in cells.get(spec.name).into_iter().flat_map(Cells::rows) {
            files.push(spec.name);
            lines.push(i64::try_from(line).unwrap_or(i64::MAX));
            for cell in row.iter() {
                texts.values().append_value(cell);
            }
            texts.append(true);
        }
    }
    files.push(IMPORT);
    lines.push(0);
    for cell in [&import.at, &import.by, &import.corrects] {
        texts.values().append_value(cell);
    }
    texts.append(true);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(files)),
        Arc::new(Int64Array::from(lines)),
        Arc::new(texts.finish()),
    ];
    RecordBatch::try_new(SCHEMA.clone(), columns).map_err(|e| misfit(&e.to_string()))
}

fn take_rows(batch: &RecordBatch, cells: &mut BTreeMap<String, Cells>) -> Result<()> {
    let column =
        |name: &str| batch.column_by_name(name).ok_or_else(|| misfit("a column is missing"));
    let (files, lines, rows) = (
        column("file")?.as_string::<i32>(),
        column("line")?.as_primitive::<Int64Type>(),
        column("cells")?.as_list::<i32>(),
    );
    for i in 0..batch.num_rows() {
        let row = rows.value(i);
        let row = row.as_string::<i32>().iter().map(Option::unwrap_or_default);
        let line = u64::try_from(lines.value(i)).unwrap_or(0);
        if files.is_null(i) {
            return Err(misfit("a row has no file"));
        }
        let file = files.value(i);
        match cells.get_mut(file) {
            Some(table) => table.push(line, row),
            None => cells.entry(file.to_owned()).or_default().push(line, row),
        }
    }
    Ok(())
}
