//! The plugin: an operation named by the environment, a configuration on standard input.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Environment, Output,
    result::{Failure, VERSIONS, added},
};
use crate::{Config, HostPort, Protocol, Request, routed::Host};

/// The configuration as far as the protocol defines it; ours is [`Config`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protocolled {
    #[serde(default)]
    runtime_config: Runtime,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Valid>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    #[serde(default)]
    port_mappings: Vec<Mapping>,
}

/// An entry of the `portMappings` capability.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

type Answer = Result<Option<Value>, Failure>;

/// The whole plugin but for reading its input and writing its output: `rast cni`, or `rast` called by a CNI runtime.
/// Blocks; belongs on a thread that may.
pub fn main(environment: &Environment, stdin: &[u8]) -> Output {
    // Whatever is wrong with it, an error object names a version.
    let config: Option<Value> = serde_json::from_slice(stdin).ok();
    let named = config.as_ref().and_then(|config| config["cniVersion"].as_str());
    let version = named.filter(|version| VERSIONS.contains(version)).unwrap_or("1.1.0");
    match operate(environment, config.as_ref(), named, version) {
        Ok(answer) => Output { code: 0, stdout: answer.map(|answer| answer.to_string()).unwrap_or_default() },
        Err(failure) => Output { code: 1, stdout: failure.json(version).to_string() },
    }
}

/// All that is read of a configuration, for `fuzz/`.
#[cfg(fuzzing)]
pub fn parse(stdin: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Value>(stdin) else { return };
    if let Ok(protocolled) = decode::<Protocolled>(&config) {
        let _refused = ports(&protocolled.runtime_config.port_mappings);
    }
    let _refused = decode::<Config>(&config);
}

fn operate(environment: &Environment, config: Option<&Value>, named: Option<&str>, version: &str) -> Answer {
    let command = variable(environment, "CNI_COMMAND")?;
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": version, "supportedVersions": VERSIONS})));
    }
    let config = config.ok_or_else(|| Failure::new(Failure::DECODE, "the configuration is not JSON"))?;
    if named != Some(version) {
        let message = format!("cniVersion {:?} is not one of {}", config["cniVersion"], VERSIONS.join(", "));
        return Err(Failure::new(Failure::VERSION, message));
    }
    let protocolled: Protocolled = decode(config)?;
    let ours: Config = decode(config)?;
    match command {
        "ADD" => {
            let request = Request {
                id: variable(environment, "CNI_CONTAINERID")?.to_owned(),
                netns: variable(environment, "CNI_NETNS")?.into(),
                host_ports: ports(&protocolled.runtime_config.port_mappings)?,
            };
            let interface = variable(environment, "CNI_IFNAME")?;
            check_interface(interface)?;
            let record = Host::open(ours)?.attach(&request, interface)?;
            Ok(Some(added(&record, version)))
        }
        "DEL" => {
            let id = variable(environment, "CNI_CONTAINERID")?.to_owned();
            let interface = variable(environment, "CNI_IFNAME")?;
            let host = Host::open(ours)?;
            // Under another name it is another attachment, and none of ours.
            if host.records()?.get(&id).is_some_and(|record| record.interface == interface) {
                for result in host.detach(&[id]).into_values() {
                    result?;
                }
            }
            Ok(None)
        }
        "CHECK" => {
            let id = variable(environment, "CNI_CONTAINERID")?;
            let netns = Path::new(variable(environment, "CNI_NETNS")?);
            let interface = variable(environment, "CNI_IFNAME")?;
            let host = Host::open(ours)?;
            let records = host.records()?;
            let known = records.get(id).filter(|record| record.interface == interface);
            let record =
                known.ok_or_else(|| Failure::new(Failure::UNKNOWN_CONTAINER, format!("{id} is not attached")))?;
            let Some(previous) = protocolled.prev_result else {
                return Err(Failure::new(Failure::CONFIG, "prevResult is missing"));
            };
            if previous["ips"] != added(record, version)["ips"] {
                return Err(Failure::new(Failure::BROKEN, format!("{id} has other addresses than prevResult")));
            }
            host.verify(record, netns)?;
            Ok(None)
        }
        "GC" => {
            let Some(valid) = protocolled.valid_attachments else {
                return Err(Failure::new(Failure::CONFIG, "cni.dev/valid-attachments is missing"));
            };
            let host = Host::open(ours)?;
            let records = host.records()?;
            let kept = |valid: &Valid| records.get(&valid.container).is_some_and(|r| r.interface == valid.ifname);
            let live: BTreeSet<String> = valid.iter().filter(|v| kept(v)).map(|v| v.container.clone()).collect();
            host.collect(&live)?;
            Ok(None)
        }
        "STATUS" => match Host::open(ours).and_then(|host| host.room()) {
            Ok(()) => Ok(None),
            Err(e) => Err(Failure { code: Failure::UNAVAILABLE, ..Failure::from(e) }),
        },
        other => Err(Failure::new(Failure::ENVIRONMENT, format!("CNI_COMMAND {other:?} is not an operation"))),
    }
}

fn variable<'a>(environment: &'a Environment, name: &str) -> Result<&'a str, Failure> {
    match environment.get(name).map(String::as_str) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Failure::new(Failure::ENVIRONMENT, format!("{name} is missing"))),
    }
}

fn decode<'a, T: Deserialize<'a>>(config: &'a Value) -> Result<T, Failure> {
    T::deserialize(config).map_err(|e| Failure::new(Failure::DECODE, format!("the configuration: {e}")))
}

fn check_interface(name: &str) -> Result<(), Failure> {
    // What the kernel takes as the name of a link.
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.len() > 15 || name == "." || name == ".." || name.contains(bad) {
        return Err(Failure::new(Failure::ENVIRONMENT, format!("CNI_IFNAME {name:?} cannot be the name of a link")));
    }
    Ok(())
}

fn ports(mappings: &[Mapping]) -> Result<Vec<HostPort>, Failure> {
    let port = |(i, mapping): (usize, &Mapping)| {
        let bad = |what: &str, value: &str| {
            Failure::new(Failure::CONFIG, format!("runtimeConfig.portMappings[{i}].{what}: {value:?} is not served"))
        };
        let protocol = match mapping.protocol.as_deref().unwrap_or("tcp") {
            tcp if tcp.eq_ignore_ascii_case("tcp") => Protocol::Tcp,
            udp if udp.eq_ignore_ascii_case("udp") => Protocol::Udp,
            other => return Err(bad("protocol", other)),
        };
        let address = match mapping.host_ip.as_deref().unwrap_or_default() {
            "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ip => ip.parse().map_err(|_| bad("hostIP", ip))?,
        };
        Ok(HostPort { address, host: mapping.host_port, pod: mapping.container_port, protocol })
    };
    // A mapping to port 0 asks for nothing.
    mappings.iter().enumerate().filter(|(_, mapping)| mapping.host_port != 0).map(port).collect()
}
