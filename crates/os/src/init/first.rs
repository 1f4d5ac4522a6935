//! First boot, which is every boot: the configuration is waited for, then the state. What is wrong stands on the console,
//! and everything is read again until it is right.

use std::{fs, io, sync::Arc, time::Duration};

use api::rastos::MachineConfig;

use super::{Machine, console::Topic};
use crate::{
    config::{
        self, Found, drive,
        metadata::{Metadata, SERVICE},
    },
    state,
};

/// How long until everything is read again: soon at first, for drives and networks come up by themselves.
const WAITS: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

fn wait(tries: usize) -> Duration {
    WAITS[tries.min(WAITS.len() - 1)]
}

/// Waits for a configuration that is right.
pub fn configuration(machine: &Arc<Machine>) -> MachineConfig {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    for tries in 0.. {
        let found = sources(machine, &line);
        match config::decide(&found) {
            Ok((source, mut config)) => {
                // Not every cloud has a metadata service: what a drive says of the server's metadata counts too.
                let drives = found.iter().filter(|f| f.source != config::Source::Metadata);
                config.spec.enrol.keys.extend(drives.flat_map(|f| f.meta.enrol()));
                let name = &config.metadata.name;
                if let Err(e) = rename(name) {
                    machine.console.set(Topic::Error, format!("set the host's name: {e}"));
                }
                machine.console.set(Topic::Config, format!("machine {name}, from the {source}"));
                return config;
            }
            Err(wrong) => machine.console.set(Topic::Config, wrong.join("\n")),
        }
        machine.service.pause(wait(tries));
    }
    unreachable!("a machine waits longer than it can count")
}

/// What all sources say; the metadata service is asked when none on this machine has user data.
fn sources(machine: &Arc<Machine>, line: &str) -> Vec<Found> {
    let mut found: Vec<Found> = config::on_command_line(line).into_iter().chain(drive::find()).collect();
    let host = found.iter().find_map(|f| f.meta.hostname.clone()).unwrap_or_default();
    machine.net.follow(&config::plan(&found), &host);
    let told = found.iter().any(|f| f.user_data.is_some() || !f.trouble.is_empty());
    if !told && machine.net.wait(Duration::from_secs(1)) {
        match Metadata::new(SERVICE).read() {
            Ok(more) => found.extend(more),
            Err(e) => {
                let mut silent = Found::at(config::Source::Metadata);
                silent.trouble.push(causes(&e));
                found.push(silent);
            }
        }
    }
    found
}

fn rename(name: &str) -> io::Result<()> {
    rustix::system::sethostname(name.as_bytes())?;
    fs::write("/etc/hostname", format!("{name}\n"))?;
    fs::write("/etc/hosts", format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n"))
}

/// Waits for the state.
pub fn state(machine: &Machine, config: &MachineConfig) {
    for tries in 0.. {
        match state::mount(config) {
            Ok(words) => return machine.console.set(Topic::State, words),
            Err(e) => machine.console.set(Topic::State, e.to_string()),
        }
        machine.service.pause(wait(tries));
    }
}

/// How long the node waits for an address. Without one it starts all the same: what runs here may need none.
const NETWORK: Duration = Duration::from_secs(60);

/// Tells the node what the machine is; what does not work now may do so later.
pub fn node(machine: &Machine, config: &MachineConfig) {
    machine.net.wait(NETWORK);
    for tries in 0.. {
        match machine.node.configure(config) {
            Ok(()) => return,
            Err(e) => machine.console.set(Topic::Error, format!("configure the node: {e}")),
        }
        machine.service.pause(wait(tries));
    }
}

/// An error with all its causes.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}
