//! PID 1: makes a machine of a kernel and a root, learns what the machine is to be, runs `rast up` and runs it again when
//! it ends, and takes it all down in order.
//!
//! The main thread only reaps and hears signals; everything else happens in threads of its own, whose panics end neither
//! it nor the machine. Containers survive the death of `rast up`, as on any other host.

mod children;
mod console;
mod devices;
mod first;
mod log;
pub mod mounts;
mod net;
mod notify;
mod power;
mod supervise;
mod tunables;
mod watch;

#[cfg(fuzzing)]
pub use net::converse;

use std::{io, path::Path, process::Command, sync::Arc, thread};

use api::rastos::MachineConfig;
use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    iterator::Signals,
};

use children::Children;
use console::{Console, Topic};
use net::Net;
use power::End;
use supervise::Service;

/// What PID 1 runs, and what it must know of it.
pub trait Node: Send + Sync + 'static {
    /// Its version, in words.
    fn version(&self) -> String;
    /// Writes down what the program is to know of this machine, before it starts.
    fn configure(&self, config: &MachineConfig) -> io::Result<()>;
    /// The program. It says when its API answers, as sd_notify(3) has it; told to end by SIGTERM, it ends the containers too.
    fn command(&self) -> Command;
    /// Asks whether the API, which was ready, still answers; why not, in words.
    fn health(&self) -> Result<(), String>;
    /// SHA-256 of the cluster's authority, in hex, once there is one.
    fn authority(&self) -> Option<String>;
    /// The API's port.
    fn port(&self) -> u16;
}

/// Everything that the threads share.
struct Machine {
    node: Box<dyn Node>,
    console: Arc<Console>,
    children: Children,
    net: Arc<Net>,
    service: Service,
}

/// Logs of rastOS itself.
const LOGS: &str = "/var/log/rastos";

/// Runs the machine; comes back only if signals cannot be had.
pub fn run(node: Box<dyn Node>) -> io::Result<std::convert::Infallible> {
    let complaints = mounts::early();
    let console = Arc::new(Console::open());
    console.set(Topic::Version, node.version());
    complaints.iter().for_each(|complaint| console.set(Topic::Error, complaint.as_str()));
    let mut signals = Signals::new([SIGCHLD, SIGTERM, SIGINT])?;
    let machine = Arc::new(Machine {
        node,
        net: Net::new(console.clone()),
        console,
        children: Children::default(),
        service: Service::default(),
    });
    guarded(&machine, "start", start);
    let mut ending = false;
    for signal in signals.forever() {
        match signal {
            SIGCHLD => machine.children.reap(),
            _ if ending => {}
            _ => {
                ending = true;
                let end = if signal == SIGINT { End::Restart } else { End::PowerOff };
                let machine = machine.clone();
                thread::spawn(move || power::end(&machine, end));
            }
        }
    }
    Err(io::Error::other("no more signals"))
}

/// Runs `work` in a thread of its own, and again should it panic or end.
fn guarded(machine: &Arc<Machine>, name: &'static str, work: fn(&Arc<Machine>)) {
    let machine = machine.clone();
    thread::spawn(move || {
        loop {
            let again = machine.clone();
            let ended = thread::spawn(move || work(&again)).join();
            if ended.is_ok() {
                return;
            }
            machine.console.set(Topic::Error, format!("{name}: a thread of PID 1 panicked; it is started again"));
            machine.service.pause(supervise::LONGEST);
        }
    });
}

/// From modules to a running node.
fn start(machine: &Arc<Machine>) {
    let complain = |what: &str, e: &dyn std::fmt::Display| machine.console.set(Topic::Error, format!("{what}: {e}"));
    if let Err(e) = devices::drive(machine) {
        complain("drive the devices", &first::causes(&e));
    }
    if let Err(e) = mounts::etc() {
        complain("put memory over /etc", &e);
    }
    tunables::set().iter().for_each(|complaint| complain("tune the kernel", complaint));
    let config = first::configuration(machine);
    first::state(machine, &config);
    guarded(machine, "kernel log", |machine| {
        let complain = |e| machine.console.set(Topic::Error, format!("keep the kernel's log: {e}"));
        log::follow_kernel(&Path::new(LOGS).join("kernel.log"), &machine.service, complain).unwrap_or_else(complain);
    });
    first::node(machine, &config);
    guarded(machine, "watch", watch::run);
    supervise::run(machine);
}
