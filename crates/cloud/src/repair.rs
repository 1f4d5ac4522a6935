//! What was removed behind Heat's back. Pure.

use crate::{
    Service,
    seen::{Made, Seen},
};

/// Whether the object that a resource stands for is gone, or no longer does what it is there for. What cannot be
/// seen counts as there.
pub fn is_gone(made: &Made, resource: &str, seen: &Seen) -> bool {
    let Some(found) = made.resources.iter().find(|r| r.name == resource) else { return false };
    let id = &found.object;
    // Heat knows an object before its service lists it.
    if id.is_empty() || made.is_busy() {
        return false;
    }
    let network = seen.answers(Service::Network);
    match found.kind.as_str() {
        "OS::Nova::Server" => seen.answers(Service::Compute) && !seen.servers.iter().any(|s| &s.id == id && s.lives()),
        "OS::Neutron::Port" => network && !seen.ports.iter().any(|p| &p.id == id),
        "OS::Neutron::FloatingIP" => network && !seen.addresses.iter().any(|a| &a.id == id),
        "OS::Neutron::RouterInterface" => network && !is_joined(made, seen),
        "OS::Cinder::Volume" => seen.answers(Service::BlockStorage) && !seen.others.contains(id),
        "OS::Neutron::Net" | "OS::Neutron::Subnet" | "OS::Neutron::Router" | "OS::Neutron::SecurityGroup" => {
            network && !seen.others.contains(id)
        }
        _ => false,
    }
}

/// The resources whose objects are gone.
pub fn gone(made: &Made, seen: &Seen) -> Vec<String> {
    made.resources.iter().map(|r| r.name.clone()).filter(|name| is_gone(made, name, seen)).collect()
}

/// The floating IP and the port that it should lead to and does not. Heat must not make this resource again: it would
/// join the two first and part them afterwards, when it removes the old one.
pub fn parted(made: &Made, seen: &Seen) -> Option<(String, String)> {
    let (address, port) = (made.stack.parameter("address")?, made.object("port_0")?);
    let found = seen.addresses.iter().find(|a| a.id == address)?;
    (found.port.as_deref() != Some(port)).then(|| (address.to_owned(), port.to_owned()))
}

fn is_joined(made: &Made, seen: &Seen) -> bool {
    let (Some(router), Some(subnet)) = (made.object("router"), made.object("subnet")) else { return false };
    seen.ports.iter().any(|p| p.device == router && p.subnets.iter().any(|s| s == subnet))
}

/// Whether the server's port is gone while it lives: Nova could give it another, but the machine would not see its
/// network change, so it is made anew.
pub fn is_cut_off(made: &Made, seen: &Seen) -> bool {
    let lives = made.object("server_0").is_some_and(|id| seen.servers.iter().any(|s| s.id == id && s.lives()));
    lives && is_gone(made, "port_0", seen)
}
