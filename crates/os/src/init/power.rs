//! The end of the machine: the power button, and the order in which everything goes.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::{sys::signal, unistd::Pid};
use rustix::system::{RebootCommand, reboot};

use super::{Machine, mounts};

/// How the machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Off.
    PowerOff,
    /// On again.
    Restart,
}

/// What `rast up` and its containers may take: less than the 60 s that Nova gives a guest.
const GRACE: Duration = Duration::from_secs(45);
/// What is left then.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// Ends everything, in order.
pub fn end(machine: &Machine, end: End) {
    let word = if end == End::PowerOff { "powering off" } else { "restarting" };
    machine.console.say(&format!("{word}: the containers are told to end"));
    machine.service.end(GRACE);
    for what in [signal::SIGTERM, signal::SIGKILL] {
        // -1: everybody but us.
        let _nobody_left = signal::kill(Pid::from_raw(-1), what);
        if machine.children.wait_for_all(LAST_GRACE) {
            break;
        }
    }
    rustix::fs::sync();
    if let Err(e) = mounts::settle(Path::new(crate::state::AT)) {
        machine.console.say(&format!("{} could not be unmounted: {e}", crate::state::AT));
    }
    rustix::fs::sync();
    machine.console.say(&format!("{word} now"));
    let command = if end == End::PowerOff { RebootCommand::PowerOff } else { RebootCommand::Restart };
    if let Err(e) = reboot(command) {
        machine.console.say(&format!("the kernel refuses: {e}"));
    }
}

/// Waits for the power button, on every input device that there is.
pub fn hear_button(machine: &Arc<Machine>) {
    let Ok(entries) = fs::read_dir("/dev/input") else { return };
    let devices = entries.flatten().map(|e| e.path());
    for device in devices.filter(|d| d.file_name().is_some_and(|n| n.to_string_lossy().starts_with("event"))) {
        let machine = machine.clone();
        thread::spawn(move || hear(&machine, device));
    }
}

fn hear(machine: &Machine, device: PathBuf) {
    let Ok(mut file) = File::open(device) else { return };
    let mut event = [0; EVENT];
    while file.read_exact(&mut event).is_ok() {
        if is_press(&event) {
            machine.console.say("the power button was pressed");
            let _we_live = signal::raise(signal::SIGTERM);
        }
    }
}

/// `struct input_event`: two words of time, type, code, value.
const EVENT: usize = 24;

fn is_press(event: &[u8; EVENT]) -> bool {
    const KEY: u16 = 1;
    const POWER: u16 = 116;
    let half = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    half(16) == KEY && half(18) == POWER && event[20] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_power_button_s_press_counts() {
        let event = |kind: u16, code: u16, value: u8| {
            let mut event = [0; EVENT];
            event[16..18].copy_from_slice(&kind.to_ne_bytes());
            event[18..20].copy_from_slice(&code.to_ne_bytes());
            event[20] = value;
            event
        };
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 30, 1), event(0, 116, 1)] {
            assert!(!is_press(&other));
        }
    }
}
