//! SQL over the lake, as text: `tests/sql/*.slt`.

use std::process::Command;

use sqllogictest::{DB, DBOutput, DefaultColumnType, Runner};

use crate::support::{Place, ran};

/// The binary as a database: each query is one run of `rumledger sql`.
struct Binary<'a>(&'a Place);

impl DB for Binary<'_> {
    type Error = std::io::Error;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, std::io::Error> {
        let mut command: Command = self.0.command(&["sql", sql, "--format", "csv"]);
        let ran = ran(command.output()?);
        if ran.status != 0 {
            return Err(std::io::Error::other(ran.stderr));
        }
        let mut reader =
            csv::ReaderBuilder::new().has_headers(true).from_reader(ran.stdout.as_bytes());
        let columns = reader.headers().map_or(0, csv::StringRecord::len);
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record.map_err(std::io::Error::other)?;
            rows.push(
                record
                    .iter()
                    .map(|cell| if cell.is_empty() { "NULL".to_owned() } else { cell.to_owned() })
                    .collect(),
            );
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Text; columns], rows })
    }
}

#[test]
fn queries_answer_as_written() {
    let place = Place::with_fleet(&[
        "--reports",
        "300",
        "--devices",
        "60",
        "--per-file",
        "40",
        "--seed",
        "3",
    ]);
    place.ok(3, &["ingest", "files", "fleet/reports"]);
    place.ok(3, &["reconcile", "--period", "2026-09"]);
    place.ok(0, &["close", "--period", "2026-09"]);
    let mut files: Vec<_> =
        std::fs::read_dir("tests/sql").unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let mut runner = Runner::new(|| async { Ok(Binary(&place)) });
        runner.run_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
