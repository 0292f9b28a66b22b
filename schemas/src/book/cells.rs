//! CSV (RFC 4180) to cells: the first, purely textual reading of a file of the book.

use std::borrow::Cow;

use csv::{ByteRecord, ReaderBuilder};

use super::{BookError, TableSpec};

/// The cells of one table, in the order of its spec's columns, each row with its line in the file. Their
/// texts are kept in one piece: a book has a cell for every fact of every device.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    text: String,
    /// Where each cell ends in the text; it begins where the one before ends.
    ends: Vec<usize>,
    rows: Vec<RowPlace>,
}

#[derive(Clone, Copy, Debug)]
struct RowPlace {
    line: u64,
    /// Its first cell, and the one after its last.
    first: usize,
    end: usize,
}

/// The cells of one row.
#[derive(Clone, Copy)]
pub struct RowCells<'a> {
    cells: &'a Cells,
    place: RowPlace,
}

impl Cells {
    pub fn push<'a>(&mut self, line: u64, cells: impl IntoIterator<Item = &'a str>) {
        let first = self.ends.len();
        for cell in cells {
            self.text.push_str(cell);
            self.ends.push(self.text.len());
        }
        self.rows.push(RowPlace { line, first, end: self.ends.len() });
    }

    pub fn sort_by_line(&mut self) {
        self.rows.sort_by_key(|row| row.line);
    }

    /// Appends the cells as bytes, for a cache; [`Cells::take_from`] reads them back. Little-endian: the
    /// numbers of rows, cells and bytes of text (u64 each), each row's line (u64) and number of cells
    /// (u32), each cell's length (u32), the text.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let cells = || self.rows().flat_map(|(_, row)| row.iter());
        let text: usize = cells().map(str::len).sum();
        for count in [self.rows.len(), cells().count(), text] {
            out.extend_from_slice(&(count as u64).to_le_bytes());
        }
        for (line, row) in self.rows() {
            out.extend_from_slice(&line.to_le_bytes());
            out.extend_from_slice(&(row.iter().count() as u32).to_le_bytes());
        }
        for cell in cells() {
            out.extend_from_slice(&(cell.len() as u32).to_le_bytes());
        }
        for cell in cells() {
            out.extend_from_slice(cell.as_bytes());
        }
    }

    /// Reads cells from the front of bytes, and moves on behind them; `None` if they are none.
    #[must_use]
    pub fn take_from(bytes: &mut &[u8]) -> Option<Cells> {
        fn number<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (number, rest) = bytes.split_first_chunk::<N>()?;
            *bytes = rest;
            Some(*number)
        }
        let mut count = || usize::try_from(u64::from_le_bytes(number(bytes)?)).ok();
        let (rows, cells, text) = (count()?, count()?, count()?);
        // Before anything is reserved for them: they cannot be more than there are bytes.
        if rows.checked_mul(12)?.checked_add(cells.checked_mul(4)?)?.checked_add(text)?
            > bytes.len()
        {
            return None;
        }
        let mut all = Cells {
            text: String::new(),
            ends: Vec::with_capacity(cells),
            rows: Vec::with_capacity(rows),
        };
        let mut first = 0;
        for _ in 0..rows {
            let line = u64::from_le_bytes(number(bytes)?);
            let end = first + u32::from_le_bytes(number(bytes)?) as usize;
            all.rows.push(RowPlace { line, first, end });
            first = end;
        }
        let mut end = 0;
        for _ in 0..cells {
            end += u32::from_le_bytes(number(bytes)?) as usize;
            all.ends.push(end);
        }
        if first != cells || end != text {
            return None;
        }
        let (of_text, rest) = bytes.split_at_checked(text)?;
        *bytes = rest;
        all.text = std::str::from_utf8(of_text).ok()?.to_owned();
        Some(all)
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows, each with its line.
    pub fn rows(&self) -> impl Iterator<Item = (u64, RowCells<'_>)> {
        self.rows.iter().map(|&place| (place.line, RowCells { cells: self, place }))
    }
}

impl<'a> RowCells<'a> {
    #[must_use]
    pub fn get(self, index: usize) -> Option<&'a str> {
        let cell = self.place.first + index;
        let end = *self.cells.ends.get(cell).filter(|_| cell < self.place.end)?;
        let start = cell.checked_sub(1).map_or(0, |before| self.cells.ends[before]);
        self.cells.text.get(start..end)
    }

    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        (0..self.place.end - self.place.first).filter_map(move |index| self.get(index))
    }
}

/// Largest file of a book.
const FILE_BYTES_MAX: usize = 1 << 30;

/// Reads one file of the book. Appends every error; rows with more or fewer fields than the header are left out.
#[must_use]
pub fn parse_csv(spec: &TableSpec, bytes: &[u8], errors: &mut Vec<BookError>) -> Cells {
    let file = format!("{}.csv", spec.name);
    let mut report = |line: u64, column: &str, message: String| {
        errors.push(BookError { file: file.clone(), line, column: column.to_owned(), message });
    };
    if bytes.len() > FILE_BYTES_MAX {
        report(0, "", format!("the file is larger than {FILE_BYTES_MAX} bytes"));
        return Cells::default();
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut misquoted = check_quotes(bytes);
    if let Some(open) = misquoted.iter().find(|wrong| wrong.is_open) {
        // What is behind it cannot be told apart.
        report(open.line, "", open.message.to_owned());
        return Cells::default();
    }
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(bytes);
    let mut record = ByteRecord::new();
    let mut order: Option<Vec<usize>> = None;
    let mut cells = Cells::default();
    let mut lines = Lines::new(bytes);
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => {
                report(0, "", format!("not CSV: {error}"));
                break;
            }
        }
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        let Some(columns) = &order else {
            for wrong in misquoted.drain(..) {
                let name = record.get(wrong.field).unwrap_or_default();
                report(wrong.line, &String::from_utf8_lossy(name), wrong.message.to_owned());
            }
            match header(spec, &record) {
                Ok(columns) => order = Some(columns),
                Err(problems) => {
                    for (column, message) in problems {
                        report(line, &column, message);
                    }
                    return cells;
                }
            }
            continue;
        };
        if record.len() != columns.len() {
            report(
                line,
                "",
                format!("{} fields, but the header has {}", record.len(), columns.len()),
            );
            continue;
        }
        // What is no UTF-8 is told, and the rest of its row is read.
        let row: Vec<Cow<'_, str>> =
            columns.iter().map(|&i| String::from_utf8_lossy(&record[i])).collect();
        for (column, &i) in spec.columns.iter().zip(columns) {
            if std::str::from_utf8(&record[i]).is_err() {
                report(line, column, "not UTF-8".to_owned());
            }
        }
        cells.push(line, row.iter().map(|cell| &**cell));
    }
    if order.is_none() {
        report(1, "", "no header row".to_owned());
    }
    cells
}

/// Numbers the lines of a CSV file. The reader's own numbers are too low where lines end in CRLF, or are blank.
pub struct Lines<'a> {
    bytes: &'a [u8],
    /// So far lines were counted.
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Lines<'a> {
        Lines { bytes, at: 0, line: 1 }
    }

    /// The line of the record that starts at a byte, or behind line ends that stand there; they come in their order.
    pub fn of(&mut self, byte: u64) -> u64 {
        let start = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.at) {
            let is_end = matches!(byte, b'\r' | b'\n');
            if self.at >= start && !is_end {
                break;
            }
            // Of CRLF, the LF counts.
            let is_half = *byte == b'\r' && self.bytes.get(self.at + 1) == Some(&b'\n');
            self.line += u64::from(is_end && !is_half);
            self.at += 1;
        }
        self.line
    }
}

/// For each column of the spec, the field of the file that holds it.
fn header(spec: &TableSpec, record: &ByteRecord) -> Result<Vec<usize>, Vec<(String, String)>> {
    let names: Vec<String> =
        record.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect();
    let mut problems = Vec::new();
    for (i, name) in names.iter().enumerate() {
        if !spec.columns.contains(&name.as_str()) {
            problems.push((
                name.clone(),
                format!("unknown column; {}.csv has {}", spec.name, spec.columns.join(", ")),
            ));
        } else if names[..i].contains(name) {
            problems.push((name.clone(), "the column comes twice".to_owned()));
        }
    }
    let mut order = Vec::with_capacity(spec.columns.len());
    for column in spec.columns {
        match names.iter().position(|n| n == column) {
            Some(i) => order.push(i),
            None => problems.push(((*column).to_owned(), "the column is missing".to_owned())),
        }
    }
    if problems.is_empty() { Ok(order) } else { Err(problems) }
}

/// A quote that RFC 4180 does not allow.
struct Misquoted {
    line: u64,
    /// Number of the field in its record.
    field: usize,
    message: &'static str,
    /// The field has no end.
    is_open: bool,
}

/// Holds the quoting rules of RFC 4180, which the CSV reader takes more loosely: an unterminated
/// quote would silently swallow the rest of a price list.
fn check_quotes(bytes: &[u8]) -> Vec<Misquoted> {
    #[derive(PartialEq)]
    enum At {
        FieldStart,
        Plain,
        Quoted,
        AfterQuote,
    }
    let mut wrong = Vec::new();
    let (mut at, mut line, mut field, mut opened) = (At::FieldStart, 1u64, 0, (0u64, 0));
    for &byte in bytes {
        let mut refuse = |message| wrong.push(Misquoted { line, field, message, is_open: false });
        at = match (at, byte) {
            (At::Quoted, b'"') => At::AfterQuote,
            (At::Quoted, _) => At::Quoted,
            (At::FieldStart, b'"') => {
                opened = (line, field);
                At::Quoted
            }
            (At::AfterQuote, b'"') => At::Quoted,
            (_, b',') => {
                field += 1;
                At::FieldStart
            }
            (_, b'\n') => {
                field = 0;
                At::FieldStart
            }
            (At::AfterQuote, b'\r') => At::AfterQuote,
            (At::AfterQuote, _) => {
                refuse("text after a closing quote");
                At::Plain
            }
            (_, b'"') => {
                refuse("a quote inside an unquoted field");
                At::Plain
            }
            (_, _) => At::Plain,
        };
        line += u64::from(byte == b'\n');
    }
    if at == At::Quoted {
        let ((line, field), message) = (opened, "a quoted field is not closed");
        wrong.push(Misquoted { line, field, message, is_open: true });
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Cells {
        let mut cells = Cells::default();
        cells.push(3, ["a", "", "größe"]);
        cells.push(2, []);
        cells.push(1, ["x"]);
        cells.sort_by_line();
        cells
    }

    fn shown(cells: &Cells) -> Vec<(u64, Vec<String>)> {
        cells.rows().map(|(line, row)| (line, row.iter().map(str::to_owned).collect())).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_does() {
        let spec = super::super::TABLES.iter().find(|t| t.name == "gl_accounts").unwrap();
        let header = spec.columns.join(",");
        let row = vec!["x"; spec.columns.len()].join(",");
        let long = format!("\"two\nlines\"{}", ",x".repeat(spec.columns.len() - 1));
        for end in ["\n", "\r\n"] {
            // Blank lines before the header and between rows, a field of two lines, a row that is too short.
            let text = ["", &header, &row, "", &long, "short", &row].join(end);
            let mut errors = Vec::new();
            let cells = parse_csv(spec, text.as_bytes(), &mut errors);
            let lines: Vec<u64> = cells.rows().map(|(line, _)| line).collect();
            assert_eq!(lines, [3, 5, 8], "{end:?}");
            assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [7], "{end:?}");
        }
    }

    #[test]
    fn cells_come_back_from_their_bytes() {
        let mut bytes = Vec::new();
        cells().write_to(&mut bytes);
        Cells::default().write_to(&mut bytes);
        let mut rest = bytes.as_slice();
        assert_eq!(shown(&Cells::take_from(&mut rest).unwrap()), shown(&cells()));
        assert!(Cells::take_from(&mut rest).unwrap().is_empty());
        assert!(rest.is_empty());
        assert!(Cells::take_from(&mut rest).is_none());
    }

    #[test]
    fn no_bytes_that_were_cut_or_changed_make_it_panic() {
        let mut bytes = Vec::new();
        cells().write_to(&mut bytes);
        for cut in 0..bytes.len() {
            assert!(Cells::take_from(&mut &bytes[..cut]).is_none());
        }
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                if let Some(read) = Cells::take_from(&mut changed.as_slice()) {
                    shown(&read);
                }
            }
        }
    }
}
