//! The only program of the initrd.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Err(error) = os::initrd::main();
    eprint!("rastos: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        eprint!(": {error}");
        cause = error.source();
    }
    eprintln!();
    ExitCode::FAILURE
}
