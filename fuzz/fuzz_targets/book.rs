#![no_main]
//! Any bytes as a file of the book: a book, or errors with their places.

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use schemas::book::{Book, TABLES, as_tables, parse_csv};

fuzz_target!(|bytes: &[u8]| {
    let mut cells = BTreeMap::new();
    let mut errors = Vec::new();
    for spec in TABLES {
        // With the right header, so that rows are met too.
        let text = [spec.columns.join(",").as_bytes(), b"\n", bytes].concat();
        cells.insert(spec.name.to_owned(), parse_csv(spec, &text, &mut errors));
        let _ = parse_csv(spec, bytes, &mut errors);
    }
    for error in &errors {
        assert!(!error.file.is_empty() && !error.message.is_empty());
    }
    if let Ok(book) = Book::read(&cells) {
        as_tables(&book).expect("a book that was read can be shown");
    }
});
