//! `completions` and `manual`: what the command line says of itself, for shells and `man`.

use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::{Cli, Failure, Outcome};
use crate::output;

pub fn completions(shell: Shell) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rumledger", &mut script);
    output::bytes(&script)?;
    Ok(Outcome::Done)
}

pub fn pages(dir: &Path) -> Result<Outcome, Failure> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write the pages into {}", dir.display()))?;
    Ok(Outcome::Done)
}
