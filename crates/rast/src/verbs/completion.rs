//! `rast completion`: what a shell needs to complete the command line.

use anyhow::{Context as _, Result};
use clap::Args;
use clap_complete::{Shell, env::Shells};

use crate::complete::VARIABLE;

/// Print completions for a shell: `. <(rast completion bash)`
#[derive(Args)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    /// Runs the verb.
    pub fn run(self) -> Result<()> {
        let (shells, program) = (Shells::builtins(), std::env::current_exe()?);
        let shell = shells.completer(&self.shell.to_string()).context("a shell that nothing is known of")?;
        let program = program.to_str().context("the program's path is no text")?;
        Ok(shell.write_registration(VARIABLE, "rast", "rast", program, &mut std::io::stdout())?)
    }
}
