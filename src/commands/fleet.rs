//! `fleet generate`.

use crate::cli::{Failure, FleetArgs, Outcome};
use crate::config::Config;
use crate::fleet::{self, Written};
use crate::output::{self, Rows};

pub fn generate(args: &FleetArgs, config: &Config) -> Result<Outcome, Failure> {
    let files = args.reports.div_ceil(args.per_file);
    let bar = output::progress(config.quiet, files, "{wide_bar} {pos}/{len} files, {elapsed}");
    let written = fleet::generate(args, &|| bar.inc(1));
    bar.finish_and_clear();
    output::rows(config.format, &table(&written?))?;
    Ok(Outcome::Done)
}

/// What was written, and what must come of it.
fn table(written: &Written) -> Rows<'static> {
    let line = |what: &str, n: u64| vec![what.to_owned(), n.to_string()];
    let mut rows = vec![
        line("files", written.files),
        line("received", written.reports),
        line("accepted", written.accepted),
        line("duplicate", written.duplicate),
        line("suspended", written.suspended.values().sum()),
    ];
    rows.extend(written.suspended.iter().map(|(reason, n)| line(&format!("  {reason}"), *n)));
    Rows { columns: &["expected", "number"], rows, numbers: &["number"], hidden: &[] }
}
