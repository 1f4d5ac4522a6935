//! What PID 1 looks after while the node runs: the API's health, the authority's fingerprint, the state's size, and the
//! minute's summary on the console.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Machine, console::Topic};
use crate::{
    boot,
    config::metadata::{Metadata, SERVICE},
    state,
};

const BEFORE_READY: Duration = Duration::from_secs(1);
const BEAT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// Looks until all is to end.
pub fn run(machine: &Arc<Machine>) {
    let (mut checked, mut told, mut next_word, mut minute) = (false, false, Instant::now(), Instant::now());
    let mut addressed = !machine.net.addresses().is_empty();
    let mut before = false;
    while !machine.service.ending() {
        // The node has its address from its start; crash-only, it is told of the first one by a new start.
        if !addressed && !machine.net.addresses().is_empty() {
            addressed = true;
            machine.console.say("the network is there; rast is started again");
            machine.service.kill();
        }
        let word = machine.service.ready(BEFORE_READY);
        let health = match (word, before) {
            (false, _) => Err("rast up has not said yet that it is".to_owned()),
            // Its first word is enough, for it has asked itself.
            (true, false) => Ok(()),
            (true, true) => machine.node.health(),
        };
        before = word;
        let authority = if word { machine.node.authority() } else { None };
        if let Some(authority) = &authority {
            // Before the API is called ready: then whoever reads this knows whom to trust.
            machine.console.set(Topic::Authority, authority.as_str());
        }
        if let Some(damage) = state::damage() {
            machine.console.set(Topic::State, damage);
        }
        let ready = health.is_ok();
        machine.console.set(Topic::Api, words(machine, health));
        if ready && !checked {
            checked = true;
            grow_state(machine);
            check_boot(machine);
        }
        if let Some(authority) = authority.filter(|_| ready && !told && next_word <= Instant::now()) {
            told = tell(&authority);
            next_word = Instant::now() + MINUTE;
        }
        if minute.elapsed() >= MINUTE {
            minute = Instant::now();
            grow_state(machine);
            machine.console.repeat();
            if let Some(words) = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory) {
                machine.console.say(&words);
            }
        }
        if word {
            machine.service.pause(if ready { BEAT } else { BEFORE_READY });
        }
    }
}

/// The disk may be larger than when it was looked at last.
fn grow_state(machine: &Machine) {
    if let Some(device) = state::device()
        && let Err(e) = state::grow(&device)
    {
        machine.console.set(Topic::State, e.to_string());
    }
}

/// Looks whether the machine could be started again, for the firmware does not: once, since it takes a while.
fn check_boot(machine: &Arc<Machine>) {
    let console = machine.console.clone();
    thread::spawn(move || {
        let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let words = match boot::check(&line) {
            Ok(wrong) if wrong.is_empty() => return,
            Ok(wrong) => format!("damaged or changed: {}; put the image on the disk again", wrong.join(" ")),
            Err(e) => format!("it cannot be read: {e}"),
        };
        console.set(Topic::Boot, words);
    });
}

fn words(machine: &Machine, health: Result<(), String>) -> String {
    let port = machine.node.port();
    match health {
        Ok(()) => {
            let urls = machine.net.addresses().into_iter().map(|ip| format!("https://{}", SocketAddr::new(ip, port)));
            format!("ready at {}", urls.collect::<Vec<_>>().join(" "))
        }
        Err(why) => format!("not ready: {why}"),
    }
}

/// What of the memory is in use and could not be had back by forgetting caches.
fn memory(meminfo: &str) -> Option<String> {
    let kibibytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    let (all, free) = (kibibytes("MemTotal")?, kibibytes("MemAvailable")?);
    Some(format!("memory: {} of {} MiB in use", all.saturating_sub(free) >> 10, all >> 10))
}

/// Leaves the fingerprint with the cloud, where its owner can read it. `true`: it need not be tried again.
fn tell(authority: &str) -> bool {
    Metadata::new(SERVICE).post_password(&format!("rastos-ca-sha256:{authority}")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_words() {
        let meminfo = "MemTotal:         503040 kB\nMemFree:          101 kB\nMemAvailable:     401920 kB\n";
        assert_eq!(memory(meminfo).unwrap(), "memory: 98 of 491 MiB in use");
        assert_eq!(memory("MemTotal: many kB\n"), None);
    }
}
