//! What there is in a project, as far as a cluster is concerned: read once, all at once, before anything is decided.

use std::collections::BTreeSet;

use futures::future::join;
use serde_json::Value;

use crate::{
    Error, Mark, Service, Session,
    error::optional,
    heat::{self, Resource, Stack},
    quota::{self, Quota, Rooms},
    rights::Right,
    token::Restriction,
};

impl Server {
    /// Whether it is, or will be again, what it was made for.
    pub fn lives(&self) -> bool {
        !matches!(self.status.as_str(), "ERROR" | "DELETING" | "DELETED") && !self.is_buried()
    }

    /// Whether it was deleted in a cloud that keeps what is deleted for a while, with its ports and volumes.
    pub fn is_buried(&self) -> bool {
        self.status == "SOFT_DELETED"
    }

    /// Nova's action that brings it back to work, when it rests.
    pub fn waking(&self) -> Option<&'static str> {
        match self.status.as_str() {
            "SHUTOFF" => Some("os-start"),
            "PAUSED" => Some("unpause"),
            "SUSPENDED" => Some("resume"),
            "SHELVED" | "SHELVED_OFFLOADED" => Some("unshelve"),
            _ => None,
        }
    }
}

/// A project as it was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The project's id.
    pub project: String,
    /// The roles held in it.
    pub roles: Vec<String>,
    /// Whether an application credential is used, and which sort.
    pub credential: Option<Restriction>,
    /// The rights that are known to be denied.
    pub denied: Vec<Right>,
    /// The services that the cloud lacks or that do not answer, with the reason.
    pub lacking: Vec<(Service, String)>,
    /// The flavors.
    pub flavors: Vec<Flavor>,
    /// The images that the project can see and that matter here.
    pub images: Vec<Image>,
    /// All networks that can be seen.
    pub networks: Vec<Network>,
    /// All subnets that can be seen.
    pub subnets: Vec<Subnet>,
    /// The project's ports.
    pub ports: Vec<Port>,
    /// The project's floating IPs.
    pub addresses: Vec<Address>,
    /// The project's servers.
    pub servers: Vec<Server>,
    /// The ids of everything else that a stack may hold: routers, security groups, volumes.
    pub others: BTreeSet<String>,
    /// The project's routers: id, and the external network that each leads to.
    pub routers: Vec<(String, Option<String>)>,
    /// Nova's zones that are available.
    pub zones: Vec<String>,
    /// Cinder's volume types.
    pub volume_types: Vec<String>,
    /// The project's volumes.
    pub volumes: Vec<Volume>,
    /// The quotas.
    pub rooms: Rooms,
    /// The stack that outlives the machines.
    pub state: Option<Made>,
    /// The stack of all else.
    pub machines: Option<Made>,
}

/// A stack with its resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// The stack.
    pub stack: Stack,
    /// Its resources.
    pub resources: Vec<Resource>,
}

impl Made {
    /// A resource's object.
    pub fn object(&self, name: &str) -> Option<&str> {
        let found = self.resources.iter().find(|r| r.name == name)?;
        Some(found.object.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether Heat is at work on it. When an engine has died, Heat may call a stack complete before it is.
    pub fn is_busy(&self) -> bool {
        let unfinished = |r: &Resource| r.status.ends_with("_IN_PROGRESS") || r.status.starts_with("INIT_");
        self.stack.is_busy() || !self.stack.has_failed() && self.resources.iter().any(unfinished)
    }

    /// Whether something of it failed. What an engine that died had in hand does not count for Heat.
    pub fn has_failed(&self) -> bool {
        self.stack.has_failed() || self.resources.iter().any(|r| r.status.ends_with("_FAILED"))
    }
}

/// A flavor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flavor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Memory in MiB.
    pub ram: u64,
    /// The root disk in GiB.
    pub disk: u64,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `active` when it can be used.
    pub status: String,
    /// SHA-512 of its bytes, once they are there.
    pub sha512: Option<String>,
    /// The least disk in GiB.
    pub min_disk: u64,
    /// The least memory in MiB.
    pub min_ram: u64,
    /// When it was made; as text it sorts by time.
    pub created: String,
    /// The project that owns it.
    pub owner: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether floating IPs come from it.
    pub external: bool,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its network's id.
    pub network: String,
    /// Its range.
    pub cidr: String,
    /// Whether the project owns it.
    pub own: bool,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// What it belongs to: a server's or router's id.
    pub device: String,
    /// Which sort of thing that is.
    pub device_owner: String,
    /// The ids of its subnets.
    pub subnets: Vec<String>,
}

/// A floating IP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Its id.
    pub id: String,
    /// The address.
    pub ip: String,
    /// The port it leads to.
    pub port: Option<String>,
}

/// A server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `ACTIVE`, `SHUTOFF`, `ERROR` …, or `DELETING`.
    pub status: String,
    /// The id of its flavor.
    pub flavor: String,
    /// The id of its image.
    pub image: String,
    /// Why it is in ERROR.
    pub fault: String,
    /// What may enrol.
    pub enrol: String,
    /// The cluster's uid.
    pub uid: String,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub id: String,
    /// `available`, `in-use` …
    pub status: String,
    /// Its size in GiB.
    pub gib: u64,
    /// The servers it is attached to.
    pub servers: Vec<String>,
}

/// Reads the project. A service that the cloud lacks is noted, not an error; one that refuses us is too, for the
/// plan to tell.
pub async fn read(session: &Session, name: &str) -> Result<Seen, Error> {
    let token = session.token().await?;
    let own = format!("project_id={}", session.project());
    let details = format!("/quotas/{}/details", session.project());
    let (ports, addresses) = (format!("/ports?{own}"), format!("/floatingips?{own}"));
    let (routers, groups) = (format!("/routers?{own}"), format!("/security-groups?{own}"));
    use Service::{BlockStorage, Compute, Image as Glance, Network as Neutron};
    let list = |service, path: &str, key: &'static str| {
        let path = path.to_owned();
        async move { (key, service, session.list(service, &path, key, &format!("list {key}")).await) }
    };
    let get = |service, path: &str| {
        let path = path.to_owned();
        async move { (service, session.get(service, path, "read the quotas").await) }
    };
    let lists = futures::future::join_all([
        list(Compute, "/flavors/detail", "flavors"),
        list(Compute, "/servers/detail", "servers"),
        list(Compute, "/os-availability-zone", "availabilityZoneInfo"),
        list(Glance, "/images?limit=200", "images"),
        list(Neutron, "/networks", "networks"),
        list(Neutron, "/subnets", "subnets"),
        list(Neutron, &ports, "ports"),
        list(Neutron, &addresses, "floatingips"),
        list(Neutron, &routers, "routers"),
        list(Neutron, &groups, "security_groups"),
        list(BlockStorage, "/volumes/detail", "volumes"),
        list(BlockStorage, "/types", "volume_types"),
    ]);
    let limits =
        futures::future::join_all([get(Compute, "/limits"), get(BlockStorage, "/limits"), get(Neutron, &details)]);
    // First the stacks, then what they stand for: an object that is made in between is not missed.
    let (state, machines) = join(made(session, Mark::state_stack(name)), made(session, Mark::stack(name))).await;
    let (lists, limits) = join(lists, limits).await;

    let mut seen = Seen { roles: token.roles.clone(), credential: token.credential, ..Seen::default() };
    seen.project = session.project().to_owned();
    let mut there = [(Quota::SecurityGroups, 0), (Quota::Rules, 0)];
    for (key, service, result) in lists {
        let Some(list) = seen.noted(service, result) else { continue };
        if key == "security_groups" {
            let rules = list.iter().filter_map(|g| g["security_group_rules"].as_array()).map(Vec::len).sum();
            there = [(Quota::SecurityGroups, list.len()), (Quota::Rules, rules)];
        }
        seen.take(key, &list);
    }
    let readers = [quota::of_nova, quota::of_cinder, quota::of_neutron];
    for ((service, result), read) in limits.into_iter().zip(readers) {
        match result {
            Ok(body) => seen.rooms.extend(read(&body)),
            // A cloud that does not tell its quotas can be worked with all the same: the plan shows them as unknown.
            Err(error) => tracing::info!(%service, %error, "its quotas are not known"),
        }
    }
    // Neutron gives a project its default group when it is first asked for its groups: perhaps just now.
    for (quota, there) in there {
        seen.rooms.entry(quota).and_modify(|room| room.used = room.used.max(there as u64));
    }
    seen.state = seen.noted(Service::Orchestration, state).flatten();
    seen.machines = seen.noted(Service::Orchestration, machines).flatten();
    Ok(seen)
}

impl Seen {
    /// Takes a list that a service answered, by its key.
    pub(crate) fn take(&mut self, key: &str, list: &[Value]) {
        match key {
            "flavors" => self.flavors = list.iter().map(flavor).collect(),
            "servers" => self.servers = list.iter().map(server).collect(),
            "availabilityZoneInfo" => {
                let available = list.iter().filter(|z| z["zoneState"]["available"] == true);
                self.zones = available.map(|z| text(z, "zoneName")).collect();
            }
            "images" => self.images = list.iter().map(image).collect(),
            "networks" => self.networks = list.iter().map(network).collect(),
            "subnets" => self.subnets = list.iter().map(|s| subnet(s, &self.project)).collect(),
            "ports" => self.ports = list.iter().map(port).collect(),
            "floatingips" => self.addresses = list.iter().map(address).collect(),
            "routers" => {
                let gateway = |r: &Value| r["external_gateway_info"]["network_id"].as_str().map(str::to_owned);
                self.routers = list.iter().map(|r| (text(r, "id"), gateway(r))).collect();
            }
            "volumes" => self.volumes = list.iter().map(volume).collect(),
            "volume_types" => self.volume_types = list.iter().map(|t| text(t, "name")).collect(),
            _ => {}
        }
        if ["networks", "subnets", "routers", "security_groups", "volumes"].contains(&key) {
            self.others.extend(list.iter().map(|object| text(object, "id")));
        }
    }

    /// What a service answered; a failure is noted once for each service.
    fn noted<T>(&mut self, service: Service, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(answer) => Some(answer),
            Err(error) => {
                if self.answers(service) {
                    self.lacking.push((service, error.to_string()));
                }
                None
            }
        }
    }

    /// Whether a service answered everything that it was asked.
    pub fn answers(&self, service: Service) -> bool {
        self.silence(service).is_none()
    }

    /// Why a service did not answer everything that it was asked.
    pub fn silence(&self, service: Service) -> Option<&str> {
        self.lacking.iter().find(|(s, _)| *s == service).map(|(_, why)| why.as_str())
    }

    /// The id of the volume that holds the state.
    pub fn state_volume(&self) -> Option<String> {
        self.state.as_ref()?.stack.output("volume").map(str::to_owned)
    }

    /// The cluster's uid, when it has been here.
    pub fn mark(&self) -> Option<Mark> {
        [&self.state, &self.machines].into_iter().flatten().find_map(|made| made.stack.mark())
    }
}

/// A stack and its resources, by its name.
pub async fn made(session: &Session, name: String) -> Result<Option<Made>, Error> {
    let Some(stack) = heat::find(session, &name).await? else { return Ok(None) };
    let resources = optional(heat::resources(session, &stack).await)?.unwrap_or_default();
    Ok(Some(Made { stack, resources }))
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().to_owned()
}

fn number(object: &Value, key: &str) -> u64 {
    object[key].as_u64().unwrap_or(0)
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
}

fn flavor(f: &Value) -> Flavor {
    let (vcpus, ram, disk) = (number(f, "vcpus"), number(f, "ram"), number(f, "disk"));
    Flavor { id: text(f, "id"), name: text(f, "name"), vcpus, ram, disk }
}

fn image(i: &Value) -> Image {
    Image {
        id: text(i, "id"),
        name: text(i, "name"),
        status: text(i, "status"),
        sha512: i["os_hash_value"].as_str().filter(|_| i["os_hash_algo"] == "sha512").map(str::to_owned),
        min_disk: number(i, "min_disk"),
        min_ram: number(i, "min_ram"),
        created: text(i, "created_at"),
        owner: text(i, "owner"),
        tags: texts(&i["tags"]),
    }
}

fn network(n: &Value) -> Network {
    Network { id: text(n, "id"), name: text(n, "name"), external: n["router:external"] == true }
}

fn subnet(s: &Value, project: &str) -> Subnet {
    let own = s["project_id"] == project || s["tenant_id"] == project;
    Subnet { id: text(s, "id"), name: text(s, "name"), network: text(s, "network_id"), cidr: text(s, "cidr"), own }
}

fn port(p: &Value) -> Port {
    let subnets = p["fixed_ips"].as_array().into_iter().flatten().map(|f| text(f, "subnet_id")).collect();
    Port { id: text(p, "id"), device: text(p, "device_id"), device_owner: text(p, "device_owner"), subnets }
}

fn address(a: &Value) -> Address {
    let port = a["port_id"].as_str().map(str::to_owned);
    Address { id: text(a, "id"), ip: text(a, "floating_ip_address"), port }
}

/// A server as Nova shows it; one that is being deleted still says ACTIVE there.
pub fn server(s: &Value) -> Server {
    let status = if s["OS-EXT-STS:task_state"] == "deleting" { "DELETING".to_owned() } else { text(s, "status") };
    Server {
        id: text(s, "id"),
        name: text(s, "name"),
        status,
        flavor: text(&s["flavor"], "id"),
        image: text(&s["image"], "id"),
        fault: text(&s["fault"], "message"),
        enrol: text(&s["metadata"], crate::template::ENROL),
        uid: text(&s["metadata"], crate::mark::UID),
    }
}

/// A volume as Cinder shows it.
pub fn volume(v: &Value) -> Volume {
    let servers = v["attachments"].as_array().into_iter().flatten().map(|a| text(a, "server_id")).collect();
    Volume { id: text(v, "id"), status: text(v, "status"), gib: number(v, "size"), servers }
}
