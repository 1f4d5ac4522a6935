//! What would go wrong.

use api::rastos::{Cluster, cluster::overlap};
use ipnet::IpNet;

use super::{ImageChoice, Plan, journaled, state_gib};
use crate::{
    Service, repair,
    rights::{self, Right},
    seen::{Made, Seen},
};

/// Roles that look and do not touch.
const LOOKING: [&str; 3] = ["reader", "observer", "auditor"];

pub(super) fn services(seen: &Seen, plan: &mut Plan) {
    let needed = [Service::Compute, Service::Network, Service::Image, Service::BlockStorage, Service::Orchestration];
    for (service, why) in seen.lacking.iter().filter(|(s, _)| needed.contains(s)) {
        let advice = match service {
            Service::Orchestration => {
                "rast cloud up makes Heat stacks; ask for Heat, or take what rast cloud template writes as a plan"
            }
            _ => "rast cloud up cannot do without it; ask the cloud's operators",
        };
        plan.stop(format!("{service}: {why}"), advice);
    }
}

pub(super) fn rights(cluster: &Cluster, seen: &Seen, plan: &mut Plan) {
    if !seen.roles.is_empty() && seen.roles.iter().all(|r| LOOKING.contains(&r.as_str())) {
        let what = format!("the role {} lets you look and make nothing", seen.roles.join(", "));
        return plan.stop(what, "ask for the role member in this project");
    }
    for right in &seen.denied {
        match right {
            Right::Network if cluster.new_network().is_some() => {
                let advice = "ask for the right, or name a network that is there in spec.network.existing";
                plan.stop("you may make no networks in this project", advice);
            }
            Right::Image if matches!(plan.choices.image, ImageChoice::Upload(_)) => {
                let advice = "ask for the right, or name an image that is there in spec.image.name";
                plan.stop("you may upload no images into this project", advice);
            }
            Right::Stack => {
                let advice = "ask for the right; often it is the role heat_stack_owner";
                plan.stop("you may make no Heat stacks in this project", advice);
            }
            Right::Trust => {
                plan.note("this application credential can make no trusts", rights::advice(seen.credential));
            }
            Right::Network | Right::Image => {}
        }
    }
}

pub(super) fn ranges(cluster: &Cluster, seen: &Seen, plan: &mut Plan) {
    let Some(range) = cluster.new_network() else { return };
    let own = seen.machines.as_ref().and_then(|m| m.object("subnet")).unwrap_or_default();
    for subnet in seen.subnets.iter().filter(|s| s.id != own) {
        let Ok(taken) = subnet.cidr.parse::<IpNet>() else { continue };
        if !overlap(&taken, &range) {
            continue;
        }
        let name = if subnet.name.is_empty() { &subnet.id } else { &subnet.name };
        let what = format!("the range {range} overlaps {taken} of subnet {name}");
        if subnet.network == plan.choices.networks.external {
            plan.stop(what + " in the external network", "choose another in spec.network.cidr");
        } else if subnet.own {
            plan.note(
                what,
                "the two can never be joined by a router; choose another in spec.network.cidr if they should",
            );
        }
    }
}

pub(super) fn places(cluster: &Cluster, seen: &Seen, plan: &mut Plan) {
    if let Some(zone) = &cluster.spec.zone
        && seen.answers(Service::Compute)
        && !seen.zones.contains(zone)
    {
        let advice = format!("choose in spec.zone from {}", seen.zones.join(", "));
        plan.stop(format!("there is no available zone {zone:?}"), advice);
    }
    if let Some(kind) = &cluster.spec.state.kind
        && seen.answers(Service::BlockStorage)
        && !seen.volume_types.contains(kind)
    {
        let advice = format!("choose in spec.state.type from {}", seen.volume_types.join(", "));
        plan.stop(format!("there is no volume type {kind:?}"), advice);
    }
}

/// What of a cluster that is there may not change.
pub(super) fn changes(cluster: &Cluster, seen: &Seen, plan: &mut Plan) {
    let going = [&seen.state, &seen.machines].into_iter().flatten().find(|m| m.stack.is_going());
    if let Some(made) = going {
        let what = format!("stack {} is being deleted ({})", made.stack.name, made.stack.status);
        plan.stop(what, format!("finish it: rast cloud down {}", cluster.name()));
    }
    for made in [&seen.state, &seen.machines].into_iter().flatten() {
        if made.stack.mark().is_none_or(|m| m.name != cluster.name()) {
            let what = format!("stack {} is there and not rastOS's", made.stack.name);
            plan.stop(what, "choose another name for the cluster; what rastOS did not make it does not touch");
        }
    }
    let orphaned = || seen.machines.as_ref()?.stack.mark().filter(|m| m.name == cluster.name());
    if seen.state.is_none() && seen.answers(Service::Orchestration) && orphaned().is_some() {
        let advice =
            format!("the data is lost; rast cloud down {0} and up again makes an empty cluster", cluster.name());
        plan.stop("somebody has deleted the stack that holds the state volume", advice);
    }
    if seen.state.as_ref().is_some_and(|m| repair::is_gone(m, "state", seen)) {
        let advice =
            format!("the data is lost; rast cloud down {0} and up again makes an empty cluster", cluster.name());
        plan.stop("somebody has deleted the state volume", advice);
    }
    let suspect = |m: &&Made| m.resources.iter().any(|r| r.name == "state" && r.status == "CHECK_FAILED");
    if let Some(made) = seen.state.as_ref().filter(suspect) {
        // Heat replaces whatever is in CHECK_FAILED at the next update, however well it is: with an empty volume.
        let advice = format!("when the volume is well: openstack stack check {}, and up again", made.stack.name);
        plan.stop("a check of the state volume has failed, and Heat would put an empty one in its place", advice);
    }
    let volume = seen.state.as_ref().and_then(|made| made.resources.iter().find(|r| r.name == "state"));
    let broken = |id: &str| seen.volumes.iter().any(|v| v.id == id && v.status == "error");
    // One that was never made holds nothing. Heat replaces another in error once anything was tried with it in vain.
    if let Some(state) = volume.filter(|r| !r.status.starts_with("CREATE_FAILED") && broken(&r.object)) {
        let advice = "the cloud's operators can set it right; until then Heat might put an empty one in its place";
        plan.stop(format!("the state volume {} is in error", state.object), advice);
    }
    let Some(before) = journaled(seen) else { return };
    let (old, new) = (&before.spec, &cluster.spec);
    let (held, gib) = (state_gib(seen).unwrap_or_default(), cluster.state_gib());
    // Where the file stays as it was, a volume that somebody has made larger does no harm.
    if gib < held && gib != before.state_gib() {
        plan.stop("a volume cannot shrink", format!("leave spec.state.size at {held}Gi"));
    } else if gib > held && seen.machines.is_some() {
        plan.stop(
            "the state volume is in use, and not every cloud lets such a volume grow",
            "rast cloud down --keep-state, then up again with the new size",
        );
    }
    if old.state.kind != new.state.kind {
        plan.stop("the state volume's type cannot change", "leave spec.state.type as it was");
    }
    if old.external_network != new.external_network {
        plan.stop("the floating IP's network cannot change", "leave spec.externalNetwork as it was");
    }
    if seen.machines.is_some() && old.network != new.network {
        let advice = "rast cloud down --keep-state, then up again with the new network";
        plan.stop("the network of machines that run cannot change", advice);
    }
    if seen.machines.is_some() && old.registries != new.registries {
        plan.note("spec.registries counts when a machine is made", "a machine that lives keeps what it was told");
    }
}

/// An image counts when a machine is made: one that lives keeps what it was made of, and is updated in place.
pub(super) fn image(seen: &Seen, plan: &mut Plan) {
    let server = seen.machines.as_ref().and_then(|made| made.object("server_0"));
    let living = server.and_then(|id| seen.servers.iter().find(|s| s.id == id && s.lives()));
    let Some(server) = living.filter(|s| !s.image.is_empty()) else { return };
    let name = match &plan.choices.image {
        ImageChoice::Upload(local) => local.name(),
        ImageChoice::Present { id, name } if *id != server.image => name.clone(),
        _ => return,
    };
    let advice = format!(
        "it stays as it is; to replace it by one of this image, its state kept: openstack server delete {}, and up again",
        server.name
    );
    plan.note(format!("image {name} is what a machine boots first, and {} was made of another", server.name), advice);
}

pub(super) fn quotas(seen: &Seen, plan: &mut Plan) {
    // While Heat is at work, what it has made may count already and not yet stand in the stack.
    if [&seen.state, &seen.machines].into_iter().flatten().any(Made::is_busy) {
        return;
    }
    for (quota, need) in plan.needs() {
        let Some(room) = seen.rooms.get(&quota) else { continue };
        if room.free() < need {
            let limit = room.limit.unwrap_or_default();
            plan.stop(
                format!("quota: {need} {quota} are needed, {} of {limit} are free", room.free()),
                "delete what is not needed (rast cloud inventory shows it), or ask for a larger quota",
            );
        }
    }
}
