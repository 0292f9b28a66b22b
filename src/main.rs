//! `rumledger`: from the RUM reports of Cisco Smart Licensing to ledger lines.

mod cli;
mod commands;
mod config;
mod fleet;
mod output;
mod served;
mod statement;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::SignalKind;

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
    let found = if cli.global.zero_if_found { ExitCode::SUCCESS } else { ExitCode::from(3) };
    if let Err(why) = config::arm_failpoint() {
        output::error(&anyhow::anyhow!(why).context("RUMLEDGER_FAILPOINT"));
        return ExitCode::from(2);
    }
    still_libraries();
    // A panic is a bug, of ours or of a library's, or a thread that the system does not give. It has been printed; what
    // it ends is said as of any other failure.
    let ran = catch_unwind(AssertUnwindSafe(|| run(cli))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Failure::Failed(
            anyhow::anyhow!("{text}")
                .context("rumledger broke off; what it committed stays, so run it again"),
        ))
    });
    match ran {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Found) => found,
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

/// Libraries whose threads clean up behind a write that the store refused, or that nobody waits for any more, and panic
/// while they do. What came of the write is said by whoever asked for it.
const LIBRARIES: [&str; 2] = ["/object_store-", "/delta_kernel-"];

/// Panics of [`LIBRARIES`] go to the log.
fn still_libraries() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if LIBRARIES.iter().any(|library| file.contains(library)) {
            tracing::debug!(%panic, "a library broke off");
        } else {
            print(panic);
        }
    }));
}

/// A file that grows over the limit of the process (`ulimit -f`) is a failed write then, and not the end of the process
/// without a word.
fn outlive_file_limits() -> std::io::Result<()> {
    const SIGXFSZ: i32 = 25;
    tokio::signal::unix::signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

fn run(cli: Cli) -> Result<Outcome, Failure> {
    let config = config::Config::load(&cli.global).map_err(Failure::Usage)?;
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let plans = matches!(cli.command, cli::Command::Sql { .. } | cli::Command::Serve(_));
    if plans {
        threads.thread_stack_size(commands::PLANNING_STACK);
    }
    let runtime = threads.enable_all().build().map_err(|error| Failure::Failed(error.into()))?;
    runtime
        .block_on(async { outlive_file_limits() })
        .map_err(|error| Failure::Failed(error.into()))?;
    if !plans {
        return commands::run(cli.command, &config, &runtime);
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size(commands::PLANNING_STACK)
            .spawn_scoped(scope, || commands::run(cli.command, &config, &runtime))
            .map_err(|error| Failure::Failed(error.into()))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
