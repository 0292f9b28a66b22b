//! Books and reports made up for tests. Times are given in days since 1970.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::book::{Book, TABLES, parse_csv};

use super::{Heard, Use, Via};

const DAY: i64 = 86_400;

/// A book of some files, each without its end of line, beside two accounts.
pub(crate) fn book(files: &[(&str, &str)]) -> Book {
    let accounts = "smart_account,virtual_account,customer,currency,time_zone\nsa,va,C,EUR,UTC\nsb,vb,D,EUR,UTC";
    let mut cells = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, text) in [("accounts", accounts)].iter().chain(files) {
        let spec = TABLES.iter().find(|t| t.name == *name).unwrap();
        let text = format!("{}\n", text.trim_end());
        cells.insert((*name).to_owned(), parse_csv(spec, text.as_bytes(), &mut errors));
    }
    assert_eq!(errors, []);
    Book::read(&cells).unwrap()
}

/// `devices.csv`.
pub(crate) fn devices(rows: &[&str]) -> String {
    let head = "udi_pid,udi_serial,smart_account,virtual_account,valid_from,valid_to,managed_by,license_model,transport,channel";
    format!("{head}\n{}", rows.join("\n"))
}

/// A report received on a day, with measurements from a day to a day.
pub(crate) fn heard(id: u64, received_day: i64, tag: &str, uses: &[(i64, i64, i64)]) -> Heard {
    Heard {
        report_id: id,
        received_at: received_day * DAY,
        tag: Arc::from(tag),
        software_version: Arc::from("17.12.04"),
        subscription: Arc::from(""),
        layout: 2,
        utility: false,
        via: Arc::new(Via::default()),
        ha: Vec::new().into(),
        uses: uses
            .iter()
            .map(|(start, end, value)| Use { start: start * DAY, end: end * DAY, value: *value })
            .collect(),
        sub_devices: Box::default(),
        clock_changes: Box::default(),
    }
}
