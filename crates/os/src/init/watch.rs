//! What PID 1 looks after while the node runs: the API's health, the authority's fingerprint, the state's size, and the
//! minute's summary on the console.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Machine, console::Topic};
use crate::{
    config::metadata::{Metadata, SERVICE},
    state,
};

const BEFORE_READY: Duration = Duration::from_millis(100);
const BEAT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// Looks until all is to end.
pub fn run(machine: &Arc<Machine>) {
    let (mut told, mut next_word, mut minute) = (false, Instant::now(), Instant::now());
    let mut addressed = !machine.net.addresses().is_empty();
    while !machine.service.ending() {
        // The node has its address from its start; crash-only, it is told of the first one by a new start.
        if !addressed && !machine.net.addresses().is_empty() {
            addressed = true;
            machine.console.say("the network is there; rast is started again");
            machine.service.kill();
        }
        let health = machine.node.health();
        let authority = machine.node.authority();
        if let Some(authority) = &authority {
            // Before the API is called ready: then whoever reads this knows whom to trust.
            machine.console.set(Topic::Authority, authority.as_str());
        }
        let ready = health.is_ok();
        machine.console.set(Topic::Api, words(machine, health));
        if let Some(authority) = authority.filter(|_| ready && !told && next_word <= Instant::now()) {
            told = tell(&authority);
            next_word = Instant::now() + MINUTE;
        }
        if minute.elapsed() >= MINUTE {
            minute = Instant::now();
            if let Some(device) = state::device()
                && let Err(e) = state::grow(&device)
            {
                machine.console.set(Topic::State, e.to_string());
            }
            machine.console.repeat();
        }
        machine.service.pause(if ready { BEAT } else { BEFORE_READY });
    }
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

/// Leaves the fingerprint with the cloud, where its owner can read it. `true`: it need not be tried again.
fn tell(authority: &str) -> bool {
    Metadata::new(SERVICE).post_password(&format!("rastos-ca-sha256:{authority}")).is_ok()
}
