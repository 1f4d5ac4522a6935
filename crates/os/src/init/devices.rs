//! Drivers for the devices of this machine: for those that are there at its start, and for those that come later.

use std::{path::Path, sync::Arc, thread};

use rustix::process::setpriority_process;

use super::{Machine, console::Topic, first::causes, guarded, power};
use crate::{
    modules::{self, Modules},
    uevents::{News, Uevents},
};

/// The buses of what a machine cannot start without: drives and cards.
const FIRST: [&str; 3] = ["pci", "virtio", "scsi"];

/// Loads what is asked for now: for drives and cards at once, for the rest when nothing else wants the processor. Then the
/// power button is heard, and what comes later gets its driver.
pub fn drive(machine: &Arc<Machine>) -> Result<(), modules::Error> {
    let modules = Modules::open(Path::new(modules::MACHINE))?;
    // Before the first look, so that no device comes up unseen.
    let uevents = Uevents::open();
    let loaded = modules.want_for(&FIRST.into()).and(modules.want(&modules.chosen()?));
    let machine = machine.clone();
    thread::spawn(move || {
        let complain = |what: &str, e: &dyn std::error::Error| {
            machine.console.set(Topic::Error, format!("{what}: {}", causes(e)));
        };
        // Of this thread alone, and not for ever.
        let _as_it_was = setpriority_process(None, 19);
        modules.want_for_devices().unwrap_or_else(|e| complain("drive the devices", &e));
        let _as_it_is = setpriority_process(None, 0);
        guarded(&machine, "power button", power::hear_button);
        let followed = uevents.and_then(|uevents| {
            loop {
                let loaded = match uevents.wait(None)? {
                    Some(News::Devices(aliases)) => modules.want(&aliases),
                    Some(News::Lost) => modules.want_for_devices(),
                    None => Ok(()),
                };
                loaded.unwrap_or_else(|e| complain("drive a new device", &e));
            }
        });
        let Err::<std::convert::Infallible, std::io::Error>(error) = followed;
        complain("listen for new devices", &error);
    });
    loaded
}
