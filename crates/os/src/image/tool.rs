//! The tools that a build runs.

use std::process::{Command, Stdio};

use super::Error;

/// A tool, and the package that brings it.
pub struct Tool(pub &'static str, pub &'static str);

impl Tool {
    /// Runs it to its end; what it printed is the answer, and what it complained of the error.
    pub fn run(&self, with: impl FnOnce(&mut Command) -> &mut Command) -> Result<Vec<u8>, Error> {
        let Self(tool, package) = *self;
        let mut command = Command::new(tool);
        // /usr/sbin: an ordinary user's PATH has not where mkfs lies.
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin").env("LC_ALL", "C.UTF-8");
        // FAT keeps local times.
        command.env("TZ", "UTC");
        with(&mut command).stdin(Stdio::null());
        let output = command.output().map_err(|source| Error::Missing { tool, package, source })?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(Error::Tool(tool, String::from_utf8_lossy(&output.stderr).trim_end().to_owned())),
        }
    }
}
