//! `demo`: the whole way on made-up data, in a folder of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use lake::Lake;
use reconcile::shell::run;
use schemas::period::Period;
use tokio::runtime::Runtime;

use super::{book, ingest, ledger};
use crate::cli::{DeliveryArgs, Failure, FleetAlgorithm, FleetArgs, KafkaArgs, Outcome, RsaBits};
use crate::config::Config;
use crate::fleet;
use crate::output;

const DIR: &str = "rumledger-demo";
/// Tells a folder of ours, which may be made anew, from somebody else's.
const MARK: &str = ".made-by-rumledger-demo";
const MONTHS: [&str; 2] = ["2026-09", "2026-10"];

pub fn run(config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let dir = make_dir(Path::new(DIR))?;
    let args = FleetArgs {
        out: Some(dir.clone()),
        reports: 3000,
        devices: 120,
        months: 2,
        last_month: MONTHS[1].parse().map_err(|e: String| anyhow!(e))?,
        seed: 1,
        algorithm: FleetAlgorithm::Mixed,
        rsa_bits: RsaBits::Of2048,
        duplicates: 6,
        broken: 4,
        per_file: 100,
        faults: None,
        partitions: None,
        abort: 0,
        scatter: false,
        topic: String::new(),
        kafka: KafkaArgs::default(),
    };
    heading("1. A fleet of 120 devices of six customers, with keys");
    let written = fleet::generate(&args, &dir, &|| ())?;
    output::text(&format!(
        "{} reports in {} files: XML, JSON and bundles; copies, forgeries and broken ones among them",
        written.reports, written.files
    ))?;

    let config = config.for_demo(dir.join("lake").display().to_string());
    let lake = super::open_lake(&config)?;
    let (imported, version) = book::import_from(&dir.join("book"), None, &lake, &config, runtime)?;
    output::text(&format!(
        "book version {version}: {} accounts, {} devices, {} prices",
        imported.accounts.len(),
        imported.devices.len(),
        imported.prices.len()
    ))?;

    heading("2. What became of the reports: received = accepted + duplicate + suspended");
    let summary = ingest::take_in(
        &[dir.join("reports")],
        None,
        DeliveryArgs::default(),
        &lake,
        &config,
        runtime,
    )?
    .summary;
    output::rows(config.format, &ingest::balance(&summary))?;
    if summary.received != summary.accepted + summary.duplicate + summary.suspended_total() {
        return Err(Failure::Failed(anyhow!("the balance does not hold")));
    }
    let months = MONTHS.iter().map(|m| m.parse()).collect::<Result<Vec<Period>, String>>();
    for month in months.map_err(|e| anyhow!(e))? {
        bill(month, &lake, &config, runtime)?;
    }
    next_steps(&config)?;
    Ok(Outcome::Done)
}

fn bill(month: Period, lake: &Lake, config: &Config, runtime: &Runtime) -> Result<(), Failure> {
    let cache_dir = lake.cache_dir(&config.cache_dir);
    let clock = || config.now();
    let ran = runtime.block_on(run::reconcile(lake, &cache_dir, month, None, false, &clock))?;
    heading(&format!("3. The statement of {month}: consumed beyond what was purchased"));
    ledger::print_lines(&runtime.block_on(run::statement(lake, month))?, config)?;
    heading(&format!(
        "4. Usage of {month} that could not be priced: kept, shown, not billed until the book knows it"
    ));
    ledger::print_exceptions(&ran.exceptions, config.format)?;
    Ok(())
}

fn heading(text: &str) {
    let _ = output::text(&format!("\n{text}"));
}

fn next_steps(config: &Config) -> anyhow::Result<()> {
    heading("Where to look next");
    let lake = format!("--lake {}", config.lake);
    for (command, what) in [
        (
            format!("rumledger {lake} reconcile --period 2026-10"),
            "posts nothing: the ledger is at its target",
        ),
        (format!("rumledger {lake} suspense list"), "what was suspended, and why"),
        (
            format!("rumledger {lake} statement --period 2026-10 --format csv"),
            "the statement for a spreadsheet",
        ),
        (
            format!("rumledger {lake} close --period 2026-09"),
            "closes September: later changes become adjustments",
        ),
        (
            format!("rumledger {lake} sql \"SELECT * FROM usage LIMIT 5\""),
            "any question to the lake",
        ),
    ] {
        output::text(&format!("  {command}\n      {what}"))?;
    }
    Ok(())
}

/// Makes the folder, or makes it anew if it is the demo's own.
fn make_dir(dir: &Path) -> anyhow::Result<PathBuf> {
    if dir.exists() {
        if !dir.join(MARK).exists() {
            return Err(anyhow!(
                "{} is there already and was not made by the demo; move it away, or run the demo elsewhere",
                dir.display()
            ));
        }
        std::fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    std::fs::write(
        dir.join(MARK),
        "This folder was made by `rumledger demo`, which may remove it.\n",
    )
    .with_context(|| format!("cannot write to {}", dir.display()))?;
    Ok(dir.to_path_buf())
}
