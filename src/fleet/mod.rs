//! A made-up fleet: a book, keys, and reports of every kind, duplicates and broken ones among them.
//!
//! Everything is a function of the seed and of a report's number: nothing is stored to be copied or
//! broken later, any number of reports takes no memory, and the same seed gives the same bytes. RSA
//! keys cannot be derived from a seed in reasonable time; two published demo keys stand in.

mod book;
mod faults;
mod files;
mod kafka;
mod keys;
mod report;
mod rng;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::Context as _;
use ingest::shell::kafka::load::Loader;
use rayon::prelude::*;
use schemas::disposition::Reason;

use crate::cli::FleetArgs;

pub use book::write_book;

/// What was written, and what must come of it when it is taken in at once, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub files: u64,
    pub reports: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub suspended: BTreeMap<Reason, u64>,
}

impl Written {
    fn count(&mut self, role: report::Role) {
        match role {
            report::Role::Good => self.accepted += 1,
            report::Role::Duplicate(_) => self.duplicate += 1,
            report::Role::Broken(fault) => {
                *self.suspended.entry(fault.reason()).or_default() += 1;
            }
        }
        self.reports += 1;
    }

    fn add(mut self, other: Written) -> Written {
        self.files += other.files;
        self.reports += other.reports;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        for (reason, n) in other.suspended {
            *self.suspended.entry(reason).or_default() += n;
        }
        self
    }
}

/// Writes `book/` and `reports/` under a folder.
pub fn generate(
    args: &FleetArgs,
    out: &Path,
    progress: &(dyn Fn() + Sync),
) -> anyhow::Result<Written> {
    let fleet = report::Fleet::new(args)?;
    if let Some(of_each) = args.faults {
        return faults::generate(&fleet, of_each, out);
    }
    let reports = out.join("reports");
    std::fs::create_dir_all(&reports)
        .with_context(|| format!("cannot make {}", reports.display()))?;
    let files = args.reports.div_ceil(args.per_file);
    refuse_others(&reports, files)?;
    write_book(&fleet, &out.join("book"))?;
    (0..files)
        .into_par_iter()
        .map(|file| {
            let first = file * args.per_file;
            let last = (first + args.per_file).min(args.reports);
            let written = files::write(&fleet, &reports, file, first..last)?;
            progress();
            Ok(written)
        })
        .try_reduce(Written::default, |a, b| Ok(a.add(b)))
}

/// What another run left in the folder would be taken in with this one's reports.
fn refuse_others(reports: &Path, files: u64) -> anyhow::Result<()> {
    let listing =
        reports.read_dir().with_context(|| format!("cannot read {}", reports.display()))?;
    let ours: HashSet<String> = (0..files).map(files::name).collect();
    for entry in listing {
        let name = entry.with_context(|| format!("cannot read {}", reports.display()))?.file_name();
        anyhow::ensure!(
            ours.contains(&*name.to_string_lossy()),
            "{} holds {} already, which is none of this fleet's files; remove it, or write to another folder",
            reports.display(),
            name.to_string_lossy()
        );
    }
    Ok(())
}

/// Sends the reports to Kafka, and writes `book/` where a folder is given.
pub fn produce(
    args: &FleetArgs,
    mut loader: Loader,
    progress: &dyn Fn(u64),
) -> anyhow::Result<Written> {
    let fleet = report::Fleet::new(args)?;
    if let Some(out) = &args.out {
        write_book(&fleet, &out.join("book"))?;
    }
    let written = kafka::send(&fleet, args, &mut loader, progress)?;
    loader.finish()?;
    Ok(written)
}
