//! `fleet generate`.

use anyhow::anyhow;
use ingest::shell::kafka::load::Loader;
use ingest::shell::kafka::topics::check_topic;
use tokio::runtime::Runtime;

use crate::cli::{Failure, FleetArgs, Outcome};
use crate::config::Config;
use crate::fleet::{self, Written};
use crate::output::{self, Rows};

pub fn generate(args: &FleetArgs, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    if args.duplicates + args.broken > 100 {
        return Err(Failure::Usage(anyhow!(
            "--duplicates {} and --broken {} together are more than 100 percent",
            args.duplicates,
            args.broken
        )));
    }
    let written = match (&args.kafka.brokers, &args.out) {
        (Some(_), _) => {
            check_topic(&args.topic).map_err(usage)?;
            let connection = config.connection(&args.kafka).map_err(Failure::Usage)?;
            let id = (args.abort > 0).then(|| format!("rumledger-fleet-{}", args.seed));
            let loader = Loader::open(
                &connection,
                &args.topic,
                args.partitions.unwrap_or(-1),
                id.as_deref(),
                runtime.handle(),
            )?;
            let template = "{wide_bar} {pos}/{len} reports, {per_sec}, {elapsed}";
            let bar = output::progress(config.quiet, args.reports, template);
            let written = fleet::produce(args, loader, &|reports| bar.set_position(reports));
            bar.finish_and_clear();
            written
        }
        (None, Some(out)) => {
            let files = args.reports.div_ceil(args.per_file);
            let template = "{wide_bar} {pos}/{len} files, {elapsed}";
            let bar = output::progress(config.quiet, files, template);
            let written = fleet::generate(args, out, &|| bar.inc(1));
            bar.finish_and_clear();
            written
        }
        (None, None) => {
            return Err(Failure::Usage(anyhow!("say where to: --out DIR or --brokers HOST:PORT")));
        }
    };
    output::rows(config.format, &table(&written?))?;
    Ok(Outcome::Done)
}

fn usage(why: String) -> Failure {
    Failure::Usage(anyhow!(why))
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
    Rows { columns: &["expected", "number"], rows, numbers: &["number"], ..Rows::default() }
}
