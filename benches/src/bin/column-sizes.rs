//! Compressed bytes by top-level column of all Parquet files under a folder.
//!
//!     column-sizes LAKE/journal

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "benches read their arguments")]
#![allow(clippy::print_stdout, reason = "the result")]

use std::collections::BTreeMap;
use std::fs::File;

use ingest::shell::files::list;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let mut sizes: BTreeMap<String, i64> = BTreeMap::new();
    for path in list(&[folder.into()]).unwrap() {
        if path.extension().is_none_or(|e| e != "parquet")
            || path.to_string_lossy().contains("_delta_log")
        {
            continue;
        }
        let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        for group in reader.metadata().row_groups() {
            for column in group.columns() {
                let name = column.column_path().parts()[0].clone();
                *sizes.entry(name).or_default() += column.compressed_size();
            }
        }
    }
    for (name, size) in sizes {
        println!("{name} {size}");
    }
}
