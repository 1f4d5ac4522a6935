//! The two stacks of a cluster as Heat templates. Pure: a cluster, its marks and a list of machines decide them.
//!
//! `rastos-NAME-state` is made first and deleted last. It holds what outlives machines (the volume and the floating
//! IP) and, in its outputs, the cluster's file: it is the journal that lets any machine go on from the name alone.

use std::collections::BTreeMap;

use api::rastos::{
    API_VERSION, Cluster,
    cluster::{Access, Protocol},
    machine::{self, MachineConfig},
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{Mark, heat::Wanted, seen::Made};

/// The oldest template version that knows everything used here (Rocky, 2018).
const VERSION: &str = "2018-08-31";
/// The tag that tells whether a stack is what this program would make of the cluster.
pub const DIGEST: &str = "rastos-template";
/// The tag that tells in which zone the machines were asked for.
const ZONE: &str = "rastos-zone";
/// Where the state volume's serial goes; the volume is known only after its stack is made.
const SERIAL: &str = "STATE_SERIAL";
/// What Nova shows of a volume's id as the disk's serial.
const SERIAL_LENGTH: usize = 20;
/// The server metadata under which hashes of keys to be admitted stand.
pub const ENROL: &str = "rastos-enrol";

/// One machine of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its name: the server's, and the Node's.
    pub name: String,
    /// The id of its flavor.
    pub flavor: String,
    /// What it is made of; `None` for one that lives, which stays as it was made.
    pub birth: Option<Birth>,
}

/// What a machine is made of, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The id of the image.
    pub image: String,
    /// The hash of the key that may enrol first.
    pub enrol: String,
}

/// What the first stack has made, for the second to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The volume's id.
    pub volume: String,
    /// The floating IP's id.
    pub address: String,
}

/// The network's side, found or chosen in the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// The id of the external network.
    pub external: String,
    /// The id of the network that exists and is to be used.
    pub existing: Option<String>,
}

/// The stack that outlives the machines.
pub fn state(cluster: &Cluster, mark: &Mark, networks: &Networks) -> Wanted {
    let mut volume = json!({
        "name": format!("{}-state", cluster.name()),
        "size": cluster.state_gib(),
        "description": "keys and store of a rastOS cluster",
        "metadata": mark.metadata(),
    });
    set(&mut volume, "volume_type", cluster.spec.state.kind.as_deref());
    let address = json!({
        "floating_network": {"get_param": "external_network"},
        "value_specs": {"description": mark.description()},
    });
    let template = json!({
        "heat_template_version": VERSION,
        "description": format!("rastOS cluster {}: what outlives its machines", cluster.name()),
        "parameters": {"external_network": parameter("The network that the floating IP comes from")},
        "resources": {
            "state": {"type": "OS::Cinder::Volume", "properties": volume},
            "address": {"type": "OS::Neutron::FloatingIP", "properties": address},
        },
        "outputs": {
            "volume": {"value": {"get_resource": "state"}},
            "address_id": {"value": {"get_resource": "address"}},
            "address": {"value": {"get_attr": ["address", "floating_ip_address"]}},
            "cluster": {"value": json!(cluster.wish()).to_string()},
        },
    });
    let parameters = Map::from_iter([("external_network".to_owned(), networks.external.clone().into())]);
    wanted(Mark::state_stack(cluster.name()), template, parameters, mark)
}

/// The stack of all else.
pub fn machines(cluster: &Cluster, mark: &Mark, networks: &Networks, state: &State, machines: &[Machine]) -> Wanted {
    let mut resources = network(cluster, mark);
    let serial: String = state.volume.chars().take(SERIAL_LENGTH).collect();
    let mut parameters = BTreeMap::from([
        ("state_volume", (parameter("The volume that holds keys and store"), Some(state.volume.clone()))),
        ("address", (parameter("The floating IP"), Some(state.address.clone()))),
        ("state_serial", (parameter("The first 20 characters of that volume's id"), Some(serial))),
    ]);
    match &networks.existing {
        Some(id) => parameters.insert("network", (parameter("The network of the machines"), Some(id.clone()))),
        None => {
            let external = parameter("The network that the router leads to");
            parameters.insert("external_network", (external, Some(networks.external.clone())))
        }
    };
    let mut all: Map<String, Value> = Map::new();
    let mut given = Map::new();
    for (name, (definition, value)) in parameters {
        all.insert(name.to_owned(), definition);
        given.extend(value.map(|v| (name.to_owned(), v.into())));
    }
    for (at, machine) in machines.iter().enumerate() {
        let config = config(cluster, mark, &machine.name);
        let mut define = |name: &str, definition: Value, value: Option<String>| {
            let name = format!("machine_{at}_{name}");
            given.extend(value.map(|v| (name.clone(), v.into())));
            all.insert(name.clone(), definition);
            json!({"get_param": name})
        };
        let birth = machine.birth.as_ref();
        let text = |default: &str, words: &str| json!({"type": "string", "default": default, "description": words});
        let image = define("image", parameter("The image"), birth.map(|b| b.image.clone()));
        let flavor = define("flavor", parameter("The flavor"), Some(machine.flavor.clone()));
        let definition = text(&config, "What the machine is told at its first boot");
        let config = define("config", definition, birth.map(|_| config.clone()));
        let enrol = text("", "SHA-256 of the key that may enrol first");
        let enrol = define("enrol", enrol, birth.map(|b| b.enrol.clone()));
        resources.insert(format!("port_{at}"), port(cluster, mark, networks, &machine.name));
        let server = server(cluster, mark, at, &machine.name, [image, flavor, config, enrol]);
        resources.insert(format!("server_{at}"), server);
    }
    let mut association = json!({"type": "OS::Neutron::FloatingIPAssociation", "properties": {
        "floatingip_id": {"get_param": "address"}, "port_id": {"get_resource": "port_0"},
    }});
    if networks.existing.is_none() {
        association["depends_on"] = "router_interface".into();
    }
    resources.insert("association".into(), association);
    let template = json!({
        "heat_template_version": VERSION,
        "description": format!("rastOS cluster {}: its network and machines", cluster.name()),
        "parameters": all,
        "resources": resources,
    });
    let mut stack = wanted(Mark::stack(cluster.name()), template, given, mark);
    stack.tags.push(format!("{ZONE}={}", zone(cluster)));
    stack
}

fn zone(cluster: &Cluster) -> &str {
    cluster.spec.zone.as_deref().unwrap_or("any")
}

/// Whether the machines of a stack must move to another zone.
pub fn moved(cluster: &Cluster, made: &Made) -> bool {
    made.stack.tag(ZONE).is_some_and(|made_for| made_for != zone(cluster))
}

fn network(cluster: &Cluster, mark: &Mark) -> Map<String, Value> {
    let mut resources = Map::new();
    let name = cluster.name();
    let mut add = |key: &str, kind: &str, properties: Value| {
        resources.insert(key.to_owned(), json!({"type": kind, "properties": properties}));
    };
    if let Some(cidr) = cluster.new_network() {
        add("network", "OS::Neutron::Net", marked(mark, json!({"name": name})));
        let subnet = json!({"name": name, "network": {"get_resource": "network"}, "cidr": cidr, "ip_version": 4});
        let mut subnet = marked(mark, subnet);
        if !cluster.spec.network.nameservers.is_empty() {
            subnet["dns_nameservers"] = json!(cluster.spec.network.nameservers);
        }
        add("subnet", "OS::Neutron::Subnet", subnet);
        let gateway = json!({"network": {"get_param": "external_network"}});
        let router = json!({"name": name, "external_gateway_info": gateway});
        add("router", "OS::Neutron::Router", marked(mark, router));
        let interface = json!({"router": {"get_resource": "router"}, "subnet": {"get_resource": "subnet"}});
        add("router_interface", "OS::Neutron::RouterInterface", interface);
    }
    add(
        "security_group",
        "OS::Neutron::SecurityGroup",
        json!({
            "name": name, "description": mark.description(), "rules": rules(&cluster.spec.access),
        }),
    );
    resources
}

/// The marks on one of Neutron's objects: as tags, and as words, for Heat gives it its tags only once it is there.
fn marked(mark: &Mark, mut object: Value) -> Value {
    object["tags"] = json!(mark.tags());
    object["value_specs"] = json!({"description": mark.description()});
    object
}

fn rules(access: &[Access]) -> Vec<Value> {
    let mut rules = Vec::new();
    for entry in access {
        let protocol = match entry.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let anywhere = || vec!["0.0.0.0/0".parse().unwrap_or_default()];
        let from = if entry.from.is_empty() { anywhere() } else { entry.from.clone() };
        rules.extend(from.iter().map(|from| {
            let version = if from.addr().is_ipv6() { "IPv6" } else { "IPv4" };
            json!({
                "direction": "ingress", "protocol": protocol, "ethertype": version, "remote_ip_prefix": from,
                "port_range_min": entry.port, "port_range_max": entry.end_port.unwrap_or(entry.port),
            })
        }));
    }
    rules
}

fn port(cluster: &Cluster, mark: &Mark, networks: &Networks, name: &str) -> Value {
    let network = match networks.existing {
        Some(_) => json!({"get_param": "network"}),
        None => json!({"get_resource": "network"}),
    };
    let groups = json!([{"get_resource": "security_group"}]);
    let properties = marked(mark, json!({"name": name, "network": network, "security_groups": groups}));
    let mut port = json!({"type": "OS::Neutron::Port", "properties": properties});
    if cluster.new_network().is_some() {
        // Without a subnet a port is made without an address, and never gets one. Neutron holds only ports that are
        // asked for to the quota, but counts a router's: made last, this one tells whether there is room for all.
        port["depends_on"] = "router_interface".into();
    }
    port
}

fn server(cluster: &Cluster, mark: &Mark, at: usize, name: &str, [image, flavor, config, enrol]: [Value; 4]) -> Value {
    let mut metadata = json!(mark.metadata());
    metadata[ENROL] = enrol;
    let mut properties = json!({
        "name": name,
        "image": image,
        "flavor": flavor,
        "flavor_update_policy": "RESIZE",
        "networks": [{"port": {"get_resource": format!("port_{at}")}}],
        "metadata": metadata,
        "config_drive": true,
        "user_data_format": "RAW",
        "user_data": {"str_replace": {"template": config, "params": {SERIAL: {"get_param": "state_serial"}}}},
    });
    if at == 0 {
        let volume = json!({"get_param": "state_volume"});
        let disk = json!({"volume_id": volume, "boot_index": -1, "delete_on_termination": false});
        properties["block_device_mapping_v2"] = json!([disk]);
    }
    set(&mut properties, "availability_zone", cluster.spec.zone.as_deref());
    let mut server = json!({"type": "OS::Nova::Server", "properties": properties});
    if cluster.new_network().is_some() {
        // A machine that boots before its network leads anywhere waits for nothing.
        server["depends_on"] = "router_interface".into();
    }
    server
}

/// What a machine is told at its first boot. It depends on nothing that may change while the machine lives.
fn config(cluster: &Cluster, mark: &Mark, name: &str) -> String {
    let config = MachineConfig {
        api_version: API_VERSION.into(),
        kind: "MachineConfig".into(),
        metadata: machine::Metadata { name: name.into() },
        spec: machine::Spec {
            cluster: Some(machine::ClusterIdentity { name: mark.name.clone(), uid: mark.uid.clone() }),
            state: machine::State { serial: Some(SERIAL.into()) },
            images: machine::Images {
                mirrors: cluster.spec.registries.mirrors.clone(),
                ca: cluster.spec.registries.ca.clone(),
            },
            ..machine::Spec::default()
        },
    };
    // JSON is YAML, and says the same to every reader.
    serde_json::to_string_pretty(&config).unwrap_or_default()
}

/// Machines' names are few now and many later: `NAME-0`, `NAME-1` …
pub fn machine_name(cluster: &str, at: usize) -> String {
    format!("{cluster}-{at}")
}

fn wanted(name: String, template: Value, parameters: Map<String, Value>, mark: &Mark) -> Wanted {
    let mut tags = mark.tags();
    tags.push(format!("{DIGEST}={}", digest(&template, &parameters)));
    Wanted { name, template, parameters, tags }
}

/// What a stack is compared by: all but what machines were born with.
fn digest(template: &Value, parameters: &Map<String, Value>) -> String {
    let born = |name: &str| ["_image", "_config", "_enrol"].iter().any(|end| name.ends_with(end));
    let mut template = template.clone();
    for (name, definition) in template["parameters"].as_object_mut().into_iter().flatten() {
        if born(name) {
            *definition = Value::Null;
        }
    }
    let kept: BTreeMap<&String, &Value> = parameters.iter().filter(|(name, _)| !born(name)).collect();
    let bytes = json!([template, kept]).to_string();
    hex::encode(&Sha256::digest(bytes)[..8])
}

fn parameter(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn set(map: &mut Value, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        map[key] = value.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { name: "demo".into(), uid: "8d5f4c1e-0000-4000-8000-000000000000".into() }
    }

    fn all(cluster: &Cluster, birth: Option<Birth>) -> Wanted {
        let networks = Networks { external: "ext".into(), existing: cluster.spec.network.existing.clone() };
        let state = State { volume: "0123456789abcdef0123456789".into(), address: "fip".into() };
        let machine = Machine { name: machine_name("demo", 0), flavor: "f".into(), birth };
        machines(cluster, &mark(), &networks, &state, &[machine])
    }

    fn birth() -> Option<Birth> {
        Some(Birth { image: "i".into(), enrol: "00".into() })
    }

    #[test]
    fn a_machine_is_told_a_valid_configuration_without_secrets() {
        let stack = all(&Cluster::named("demo"), birth());
        let text = stack.parameters["machine_0_config"].as_str().unwrap();
        let text = text.replace(SERIAL, stack.parameters["state_serial"].as_str().unwrap());
        let config = MachineConfig::read(&text).unwrap();
        assert_eq!(config.spec.state.serial.as_deref(), Some("0123456789abcdef0123"));
        assert_eq!(config.spec.cluster.unwrap().uid, mark().uid);
        assert!(!text.contains("PRIVATE"));
    }

    #[test]
    fn a_living_machine_keeps_what_it_was_born_with() {
        let cluster = Cluster::named("demo");
        let (born, lives) = (all(&cluster, birth()), all(&cluster, None));
        assert!(born.parameters.contains_key("machine_0_image") && !lives.parameters.contains_key("machine_0_image"));
        assert_eq!((born.template, born.tags), (lives.template, lives.tags));
        // Another image, another registry: only for a machine that is to be made.
        let mut later = cluster.clone();
        later.spec.registries.ca = Some("-----BEGIN CERTIFICATE-----".into());
        assert_eq!(all(&later, None).tags, all(&cluster, None).tags);
        later.spec.access[0].port = 6000;
        later.spec.access[0].end_port = Some(7000);
        assert_ne!(all(&later, None).tags, all(&cluster, None).tags);
    }

    #[test]
    fn every_object_names_its_cluster_from_its_first_moment() {
        let mut stacks = vec![all(&Cluster::named("demo"), birth())];
        stacks.push(state(&Cluster::named("demo"), &mark(), &Networks::default()));
        for stack in stacks {
            for (name, resource) in stack.template["resources"].as_object().unwrap() {
                let mut properties = resource["properties"].clone();
                properties["tags"].take();
                let properties = &properties;
                let marked = !Mark::on(properties).is_empty() || !Mark::on(&properties["value_specs"]).is_empty();
                let only_a_link = ["router_interface", "association"].contains(&name.as_str());
                assert!(marked || only_a_link, "{name}");
            }
        }
    }

    #[test]
    fn every_reference_has_its_object() {
        let mut existing = Cluster::named("demo");
        existing.spec.network.existing = Some("n".into());
        for cluster in [Cluster::named("demo"), existing] {
            let stack = all(&cluster, birth());
            let text = stack.template.to_string();
            let names = |mark: &str| -> Vec<String> {
                let after = text.split(mark).skip(1).filter_map(|t| t.strip_prefix("\":\"")?.split('"').next());
                after.map(str::to_owned).collect()
            };
            for name in names("get_resource").iter().chain(&names("depends_on")) {
                assert!(stack.template["resources"].get(name).is_some(), "{name}");
            }
            for name in names("get_param") {
                assert!(stack.template["parameters"].get(&name).is_some(), "{name}");
            }
            for (name, _) in &stack.parameters {
                assert!(stack.template["parameters"].get(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn access_becomes_rules_and_nothing_else_does() {
        let mut cluster = Cluster::named("demo");
        let from = vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        cluster.spec.access.push(Access { port: 80, end_port: Some(90), protocol: Protocol::Udp, from });
        let stack = all(&cluster, birth());
        let rules = stack.template["resources"]["security_group"]["properties"]["rules"].as_array().unwrap();
        let shown: Vec<String> = rules
            .iter()
            .map(|r| format!("{} {} {}", r["protocol"], r["port_range_min"], r["remote_ip_prefix"]).replace('"', ""))
            .collect();
        let wanted = ["tcp 6443 0.0.0.0/0", "udp 80 192.0.2.0/24", "udp 80 2001:db8::/32"];
        assert_eq!(shown, wanted);
    }
}
