//! `rast completion`: what a shell needs to complete the command line.

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::Cli;

/// Print completions for a shell: `. <(rast completion bash)`
#[derive(Args)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        clap_complete::generate(self.shell, &mut Cli::command(), "rast", &mut std::io::stdout());
        Ok(())
    }
}
