//! `rast cni`: the CNI plugin, run by programs. Also what `rast` is when a CNI runtime calls it by its name alone.

use std::{
    env,
    io::{Read as _, Write as _},
    process::ExitCode,
};

/// Whether this process was started as a plugin.
pub fn called() -> bool {
    env::var_os("CNI_COMMAND").is_some() && env::args_os().len() == 1
}

/// One operation: environment and standard input say which, standard output has the answer.
pub fn main() -> ExitCode {
    let mut config = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut config) {
        eprintln!("rast cni: read the configuration: {error}");
        return ExitCode::FAILURE;
    }
    let output = network::cni::main(&env::vars().collect(), &config);
    match std::io::stdout().write_all(output.stdout.as_bytes()) {
        Ok(()) => ExitCode::from(output.code),
        Err(_) => ExitCode::FAILURE,
    }
}
