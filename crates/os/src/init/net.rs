//! The machine's network: each card by DHCP or as its configuration says, name servers, and what came of it.

mod lease;
mod message;
mod udp;

#[cfg(fuzzing)]
pub use lease::converse;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use network::host::{self, Card, Route, Settings};

use super::console::{Console, Topic};
use crate::config::network::{Link, Plan};
use lease::{Client, Lease, To};
use udp::Port;

/// How often cards that have come late are looked for, and how long a wait for a message may be.
const GLANCE: Duration = Duration::from_secs(1);
/// Routes of the first card cost this, of each further one as much more.
const METRIC: u32 = 100;

/// What a card has, and from whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    settings: Settings,
    dns: Vec<IpAddr>,
    dhcp: bool,
    trouble: Option<String>,
}

/// The network of this machine.
pub struct Net {
    console: Arc<Console>,
    held: Mutex<BTreeMap<String, Held>>,
    changed: Condvar,
    plan: Mutex<Option<Arc<Plan>>>,
}

impl Net {
    /// A network that does nothing before it has a plan.
    pub fn new(console: Arc<Console>) -> Arc<Self> {
        let (held, plan) = (Mutex::default(), Mutex::default());
        Arc::new(Self { console, held, changed: Condvar::new(), plan })
    }

    /// Goes by this plan from now on. The same plan again changes nothing.
    pub fn follow(self: &Arc<Self>, plan: &Plan, host: &str) {
        let mut current = self.plan();
        if current.as_deref() == Some(plan) {
            return;
        }
        let plan = Arc::new(plan.clone());
        *current = Some(plan.clone());
        drop(current);
        let (net, host) = (self.clone(), host.to_owned());
        thread::spawn(move || net.watch_cards(&plan, &host));
    }

    /// Waits until any card has an address, at most so long. Tells whether one has.
    pub fn wait(&self, at_most: Duration) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let none = |held: &mut BTreeMap<String, Held>| held.values().all(|h| h.settings.addresses.is_empty());
        let waited = self.changed.wait_timeout_while(held, at_most, none);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// All addresses of the machine.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.values().flat_map(|h| h.settings.addresses.iter().map(IpNet::addr)).collect()
    }

    fn plan(&self) -> MutexGuard<'_, Option<Arc<Plan>>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self, plan: &Arc<Plan>) -> bool {
        self.hold(plan).is_some()
    }

    /// Holding it, no other plan is followed; none when another one is already.
    fn hold(&self, plan: &Arc<Plan>) -> Option<MutexGuard<'_, Option<Arc<Plan>>>> {
        Some(self.plan()).filter(|current| current.as_ref().is_some_and(|p| Arc::ptr_eq(p, plan)))
    }

    /// Gives each card a thread as it comes; ends when there is another plan.
    fn watch_cards(self: &Arc<Self>, plan: &Arc<Plan>, host: &str) {
        let mut known: Vec<Card> = Vec::new();
        while self.current(plan) {
            let cards = host::cards().unwrap_or_default();
            for (at, card) in cards.iter().enumerate().filter(|(_, card)| !known.contains(card)) {
                let metric = METRIC * (at as u32 + 1);
                let (net, plan, card, host) = (self.clone(), plan.clone(), card.clone(), host.to_owned());
                thread::spawn(move || net.keep(&plan, &card, &host, metric));
            }
            known = cards;
            if known.is_empty() {
                self.console.set(Topic::Network, "no network card yet");
            }
            self.pause(GLANCE);
        }
    }

    /// Waits for a while; news of another card may end it early, which does no harm.
    fn pause(&self, at_most: Duration) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout(held, at_most));
    }

    /// Keeps one card, as long as the plan stands.
    fn keep(&self, plan: &Arc<Plan>, card: &Card, host: &str, metric: u32) {
        let Some(link) = plan.link(card.mac) else {
            self.note(plan, card, Held { trouble: Some("not in the configuration".into()), ..Held::default() });
            return;
        };
        let fixed = Held {
            settings: Settings {
                mtu: link.mtu,
                addresses: link.addresses.clone(),
                routes: link.routes.clone(),
                metric,
            },
            dns: plan.dns.clone(),
            ..Held::default()
        };
        while self.current(plan) {
            let kept = match link.dhcp {
                true => self.keep_lease(plan, card, host, &link, &fixed),
                false => self.apply(plan, card, fixed.clone()),
            };
            match kept {
                Ok(()) if !link.dhcp => return,
                Ok(()) => {}
                Err(e) => self.note(plan, card, Held { trouble: Some(e.to_string()), ..fixed.clone() }),
            }
            self.pause(GLANCE);
        }
    }

    fn keep_lease(&self, plan: &Arc<Plan>, card: &Card, host: &str, link: &Link, fixed: &Held) -> io::Result<()> {
        host::up(card.index)?;
        self.note(plan, card, Held { dhcp: true, trouble: Some("waiting for DHCP".into()), ..fixed.clone() });
        let (port, begun) = (Port::open(&card.name)?, Instant::now());
        let mut client = Client::new(card.mac, host, seed(card.mac));
        let mut bytes = [0; 1500];
        while self.current(plan) {
            let turn = match port.receive(&mut bytes, client.next().saturating_sub(begun.elapsed()).min(GLANCE))? {
                Some(length) => client.heard(begun.elapsed(), &bytes[..length]),
                None => client.time(begun.elapsed()),
            };
            match turn.lease {
                Some(Some(lease)) => self.apply(plan, card, with_lease(fixed, link, &lease))?,
                Some(None) => {
                    let trouble = Some("the DHCP lease has ended; asking again".into());
                    self.apply(plan, card, Held { dhcp: true, trouble, ..fixed.clone() })?;
                }
                None => {}
            }
            if let Some((to, message)) = turn.send {
                // A link that is down for a moment: the next try comes by itself.
                if let Err(e) = port.send(&message, matches!(to, To::Server(_)).then(|| server(to)).flatten()) {
                    self.trouble(plan, card, format!("send a DHCP message: {e}"));
                }
            }
        }
        Ok(())
    }

    fn apply(&self, plan: &Arc<Plan>, card: &Card, held: Held) -> io::Result<()> {
        let Some(_held_still) = self.hold(plan) else { return Ok(()) };
        host::set(card, &held.settings)?;
        self.write_down(card, held);
        self.write_resolv_conf()
    }

    fn trouble(&self, plan: &Arc<Plan>, card: &Card, trouble: String) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&card.name).cloned();
        self.note(plan, card, Held { trouble: Some(trouble), ..held.unwrap_or_default() });
    }

    fn note(&self, plan: &Arc<Plan>, card: &Card, held: Held) {
        if let Some(_held_still) = self.hold(plan) {
            self.write_down(card, held);
        }
    }

    fn write_down(&self, card: &Card, held: Held) {
        let mut all = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(card.name.clone(), held);
        let words: Vec<String> = all.iter().map(|(name, held)| words(name, held)).collect();
        drop(all);
        self.console.set(Topic::Network, words.join("; "));
        self.changed.notify_all();
    }

    /// All cards' name servers, whole or not at all.
    fn write_resolv_conf(&self) -> io::Result<()> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut servers: Vec<IpAddr> = Vec::new();
        for server in held.values().flat_map(|h| &h.dns) {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        let mut file = fs::File::create("/etc/resolv.conf.new")?;
        for server in servers.iter().take(3) {
            writeln!(file, "nameserver {server}")?;
        }
        drop(file);
        fs::rename("/etc/resolv.conf.new", "/etc/resolv.conf")
    }
}

fn server(to: To) -> Option<std::net::Ipv4Addr> {
    match to {
        To::Server(server) => Some(server),
        To::All => None,
    }
}

/// What a card has with a lease on top of what is fixed.
fn with_lease(fixed: &Held, link: &Link, lease: &Lease) -> Held {
    let mut held = Held { dhcp: true, ..fixed.clone() };
    held.settings.addresses.push(lease.network.into());
    held.settings.mtu = link.mtu.or(lease.mtu.map(u32::from));
    held.settings.routes.extend(lease.ways.iter().map(|way| Route { to: way.to.into(), via: Some(way.via.into()) }));
    held.dns.extend(lease.dns.iter().map(|ip| IpAddr::from(*ip)));
    held
}

fn words(name: &str, held: &Held) -> String {
    let list = |items: Vec<String>| items.join(" ");
    let mut words = vec![name.to_owned()];
    words.extend(held.settings.addresses.iter().map(ToString::to_string));
    let default = held.settings.routes.iter().find(|r| r.to.prefix_len() == 0).and_then(|r| r.via);
    words.extend(default.map(|via| format!("by {via}")));
    words.extend(held.settings.mtu.map(|mtu| format!("MTU {mtu}")));
    words.extend(held.trouble.clone().map(|trouble| format!("({trouble})")));
    if held.trouble.is_none() {
        words.push(if held.dhcp { "(DHCP)".into() } else { "(fixed)".into() });
    }
    list(words)
}

/// Differs between cards, and needs no entropy.
fn seed(mac: [u8; 6]) -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos() ^ u32::from_be_bytes([mac[2], mac[3], mac[4], mac[5]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_no_longer_stands_changes_nothing() {
        let net = Net::new(Arc::new(Console::to(io::sink())));
        let (old, new) = (Arc::new(Plan::default()), Arc::new(Plan::default()));
        *net.plan() = Some(new.clone());
        let card = Card { name: "none0".into(), index: u32::MAX, mac: [2; 6] };
        net.apply(&old, &card, Held::default()).unwrap();
        net.note(&old, &card, Held::default());
        assert!(net.held.lock().unwrap().is_empty());
        assert!(net.apply(&new, &card, Held::default()).is_err(), "there is no such card");
        net.note(&new, &card, Held::default());
        assert_eq!(net.held.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_card_in_words() {
        let card = Held {
            settings: Settings {
                mtu: Some(1450),
                addresses: vec!["10.0.0.9/24".parse().unwrap()],
                routes: vec![Route { to: "0.0.0.0/0".parse().unwrap(), via: Some("10.0.0.1".parse().unwrap()) }],
                metric: 100,
            },
            dhcp: true,
            ..Held::default()
        };
        assert_eq!(words("eth0", &card), "eth0 10.0.0.9/24 by 10.0.0.1 MTU 1450 (DHCP)");
        let waiting = Held { trouble: Some("waiting for DHCP".into()), ..Held::default() };
        assert_eq!(words("eth1", &waiting), "eth1 (waiting for DHCP)");
    }
}
