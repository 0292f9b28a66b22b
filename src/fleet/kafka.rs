//! Reports as Kafka records.

use ingest::shell::kafka::load::{Loader, Record};
use rayon::prelude::*;

use super::report::{Fleet, Role};
use super::{Written, files};
use crate::cli::FleetArgs;

/// Records that are sent together, in one transaction where there are any.
pub const BATCH: u64 = 500;

/// Sends all reports of the fleet, one a record, in the order of their numbers.
pub fn send(
    fleet: &Fleet,
    args: &FleetArgs,
    loader: &mut Loader,
    progress: &dyn Fn(u64),
) -> anyhow::Result<Written> {
    let mut written = Written::default();
    let mut first = 0;
    while first < args.reports {
        let last = (first + BATCH).min(args.reports);
        let made: Vec<(Role, Record)> = (first..last)
            .into_par_iter()
            .map(|report| {
                let role = fleet.role(report);
                Ok((role, record(fleet, args, report, role)?))
            })
            .collect::<anyhow::Result<_>>()?;
        for (role, _) in &made {
            written.count(*role);
        }
        let records: Vec<Record> = made.into_iter().map(|(_, record)| record).collect();
        // Spread evenly: every so many percent of the batches are sent twice, the first time aborted.
        let number = first / BATCH;
        let aborted = (number + 1) * args.abort / 100 > number * args.abort / 100;
        loader.send(&records, aborted)?;
        progress(last);
        first = last;
    }
    Ok(written)
}

/// A report in one of the three carriers that a record may have.
fn record(fleet: &Fleet, args: &FleetArgs, report: u64, role: Role) -> anyhow::Result<Record> {
    let text = fleet.envelope(report, role)?;
    let device = fleet.device_of(report, role);
    let value = match report % 10 {
        0..=4 => text.into_bytes(),
        5..=7 => files::xml(std::slice::from_ref(&text)),
        _ => files::list(std::slice::from_ref(&text)),
    };
    let scattered = args.scatter && matches!(role, Role::Duplicate(_));
    Ok(Record {
        key: (!scattered).then(|| format!("{}:{}", device.pid, device.serial)),
        value,
        headers: vec![
            ("slp-collector".to_owned(), "cslu".to_owned()),
            ("slp-collection".to_owned(), "push".to_owned()),
        ],
    })
}
