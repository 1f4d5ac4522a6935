//! What making a cluster takes, and what would go wrong. Pure: a project as it was seen and a cluster decide it.

mod choose;
mod judge;

use std::collections::BTreeMap;

use api::rastos::Cluster;

pub use choose::{ImageChoice, LocalImage};

use crate::{
    Mark,
    quota::{Amounts, Quota},
    seen::{Flavor, Made, Seen},
    template::Networks,
};

/// What is to be made, from what, and what stands in the way.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every object, in the order in which it is made.
    pub items: Vec<Item>,
    /// What would go wrong, and what is worth knowing.
    pub problems: Vec<Problem>,
    /// What was left to us.
    pub choices: Choices,
}

/// What a cluster leaves open, as chosen in this project.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// The machines' flavor.
    pub flavor: Option<Flavor>,
    /// What machines boot from.
    pub image: ImageChoice,
    /// The network's side.
    pub networks: Networks,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What happens to it.
    pub act: Act,
    /// What it is: `server`, `volume` …
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it counts against the quotas.
    pub counts: Amounts,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// It is made.
    Make,
    /// It is there and stays as it is.
    Keep,
    /// It was there and is gone: it is made again.
    Repair,
    /// The volume gets larger. Only what it grows by counts.
    Grow,
    /// The server gets another flavor: Nova stops and starts it. Only what it grows by counts.
    Resize,
    /// The server is deleted and made anew; its state volume stays.
    Replace,
}

/// Something that stands in the way, or is worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether `up` would fail.
    pub stops: bool,
    /// What.
    pub what: String,
    /// What to do.
    pub advice: String,
}

impl Plan {
    /// Whether `up` would succeed, as far as can be told.
    pub fn holds(&self) -> bool {
        self.problems.iter().all(|p| !p.stops)
    }

    /// What the objects to be made count in all.
    pub fn needs(&self) -> Amounts {
        let mut needs = BTreeMap::new();
        for item in self.items.iter().filter(|i| i.act != Act::Keep) {
            for (quota, amount) in &item.counts {
                *needs.entry(*quota).or_default() += amount;
            }
        }
        needs
    }

    fn stop(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { stops: true, what: what.into(), advice: advice.into() });
    }

    fn note(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { stops: false, what: what.into(), advice: advice.into() });
    }
}

/// Plans a cluster of one machine.
pub fn plan(cluster: &Cluster, local: Option<&LocalImage>, seen: &Seen) -> Plan {
    let mut plan = Plan::default();
    judge::services(seen, &mut plan);
    plan.choices.networks = choose::networks(cluster, seen, &mut plan);
    plan.choices.image = choose::image(cluster, local, seen, &mut plan);
    plan.choices.flavor = choose::flavor(cluster, local, seen, &mut plan);
    judge::rights(cluster, seen, &mut plan);
    judge::ranges(cluster, seen, &mut plan);
    judge::places(cluster, seen, &mut plan);
    judge::changes(cluster, seen, &mut plan);
    judge::image(seen, &mut plan);
    plan.items = items(cluster, seen, &plan.choices);
    judge::quotas(seen, &mut plan);
    plan
}

/// The cluster's file as the last `up` wrote it into the project.
pub fn journaled(seen: &Seen) -> Option<Cluster> {
    let text = seen.state.as_ref()?.stack.output("cluster")?;
    Cluster::read(&serde_json::from_str(text).ok()?).ok()
}

/// The size of the state volume that there is, in GiB: what was asked for last may have failed.
fn state_gib(seen: &Seen) -> Option<u64> {
    let id = seen.state.as_ref()?.object("state")?;
    let volume = seen.volumes.iter().find(|v| v.id == id);
    volume.map(|v| v.gib).or_else(|| journaled(seen).map(|before| before.state_gib()))
}

fn items(cluster: &Cluster, seen: &Seen, choices: &Choices) -> Vec<Item> {
    use Quota::{Cores, FloatingIps, Gigabytes, Instances, Networks, Ports, Ram, Routers, Rules, SecurityGroups};
    let name = cluster.name();
    let mut items = Vec::new();
    let mut add = |act: Act, kind: &'static str, name: &str, counts: &[(Quota, u64)]| {
        items.push(Item { act, kind, name: name.to_owned(), counts: counts.iter().copied().collect() });
    };
    let stack = |made: &Option<Made>| if made.is_some() { Act::Keep } else { Act::Make };
    let of = |made: &Option<Made>, resource: &str| act(made.as_ref(), resource, seen);
    add(stack(&seen.state), "stack", &Mark::state_stack(name), &[]);
    let gib = cluster.state_gib();
    let (act, counts) = match (of(&seen.state, "state"), state_gib(seen)) {
        (Act::Keep, Some(held)) if held < gib => (Act::Grow, vec![(Gigabytes, gib - held)]),
        (act, _) => (act, vec![(Quota::Volumes, 1), (Gigabytes, gib)]),
    };
    add(act, "volume", &format!("{name}-state"), &counts);
    add(of(&seen.state, "address"), "floating IP", name, &[(FloatingIps, 1)]);
    match &choices.image {
        ImageChoice::Present { name, .. } => add(Act::Keep, "image", name, &[]),
        ImageChoice::Upload(local) => add(Act::Make, "image", &local.name(), &[]),
        ImageChoice::Missing => {}
    }
    add(stack(&seen.machines), "stack", &Mark::stack(name), &[]);
    let of = |resource: &str| of(&seen.machines, resource);
    if cluster.new_network().is_some() {
        // The network's own port, for DHCP and metadata, counts too.
        add(of("network"), "network", name, &[(Networks, 1), (Ports, 1)]);
        add(of("subnet"), "subnet", name, &[(Quota::Subnets, 1)]);
        add(of("router"), "router", name, &[(Routers, 1)]);
        add(of("router_interface"), "router interface", name, &[(Ports, 1)]);
    }
    // Two rules come with every group.
    let rules = 2 + cluster.spec.access.iter().map(|a| a.from.len().max(1) as u64).sum::<u64>();
    add(of("security_group"), "security group", name, &[(SecurityGroups, 1), (Rules, rules)]);
    let machine = crate::template::machine_name(name, 0);
    add(of("port_0"), "port", &machine, &[(Ports, 1)]);
    let flavor = choices.flavor.clone().unwrap_or_default();
    let living = seen.machines.as_ref().and_then(|m| m.object("server_0"));
    let living = living.and_then(|id| seen.servers.iter().find(|s| s.id == id));
    let act = match living {
        Some(server) if !server.lives() => Act::Replace,
        Some(server) if !flavor.id.is_empty() && server.flavor != flavor.id => Act::Resize,
        Some(_) if seen.machines.as_ref().is_some_and(|m| crate::template::moved(cluster, m)) => Act::Replace,
        _ => of("server_0"),
    };
    // A server that is there counts already, whatever its state, with the flavor that it has.
    let counted = living.and_then(|server| seen.flavors.iter().find(|f| f.id == server.flavor)).unwrap_or(&flavor);
    let counts = match act {
        Act::Resize | Act::Replace => {
            let grows = |new: u64, old: u64| new.saturating_sub(old);
            vec![(Cores, grows(flavor.vcpus, counted.vcpus)), (Ram, grows(flavor.ram, counted.ram))]
        }
        _ => vec![(Instances, 1), (Cores, flavor.vcpus), (Ram, flavor.ram)],
    };
    add(act, "server", &machine, &counts);
    items
}

fn act(made: Option<&Made>, resource: &str, seen: &Seen) -> Act {
    match made.and_then(|m| m.object(resource)) {
        None => Act::Make,
        Some(_) if made.is_some_and(|m| crate::repair::is_gone(m, resource, seen)) => Act::Repair,
        Some(_) => Act::Keep,
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
pub(crate) mod tests;
