//! `rumledger`: from the RUM reports of Cisco Smart Licensing to ledger lines.

mod cli;
mod commands;
mod config;
mod fleet;
mod output;
mod served;
mod statement;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Failure, Outcome};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runs_on = matches!(
        cli.command,
        cli::Command::Ingest(cli::IngestCommand::Kafka(_)) | cli::Command::Serve(_)
    ) && !cli.global.quiet;
    output::start_log(cli.global.verbose, runs_on, config::log_is_json());
    if let Err(why) = config::arm_failpoint() {
        output::error(&anyhow::anyhow!(why).context("RUMLEDGER_FAILPOINT"));
        return ExitCode::from(2);
    }
    match run(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => ExitCode::from(3),
        Err(Failure::Usage(error)) => {
            output::error(&error);
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<Outcome, Failure> {
    let config = config::Config::load(&cli.global).map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(error.into()))?;
    commands::run(cli.command, &config, &runtime)
}
