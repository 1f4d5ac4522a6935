//! What the plugin answers (CNI 1.1, section 5).

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{Error, ledger::Record, link};

/// Versions of the protocol that are spoken. 0.x results have another form, and no one who needs it.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// An error of the plugin; codes below 100 are the specification's, those from 100 on ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its code.
    pub code: u16,
    /// What it is about.
    pub message: String,
    /// The causes.
    pub details: String,
}

impl Failure {
    /// The version of the configuration is not spoken here.
    pub const VERSION: u16 = 1;
    /// The container is unknown.
    pub const UNKNOWN_CONTAINER: u16 = 3;
    /// An environment variable is missing or wrong.
    pub const ENVIRONMENT: u16 = 4;
    /// Reading or writing failed.
    pub const IO: u16 = 5;
    /// The configuration is not JSON, or not of the right form.
    pub const DECODE: u16 = 6;
    /// The configuration cannot work.
    pub const CONFIG: u16 = 7;
    /// The plugin cannot serve requests now.
    pub const UNAVAILABLE: u16 = 50;
    /// No address is left.
    pub const EXHAUSTED: u16 = 100;
    /// A port of the host is taken.
    pub const PORT_TAKEN: u16 = 101;
    /// CHECK found something missing.
    pub const BROKEN: u16 = 102;

    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The error object.
    pub fn json(&self, version: &str) -> Value {
        json!({"cniVersion": version, "code": self.code, "msg": self.message, "details": self.details})
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        let code = match &e {
            Error::Exhausted { .. } => Self::EXHAUSTED,
            Error::PortTaken { .. } => Self::PORT_TAKEN,
            Error::NotFound(_) => Self::UNKNOWN_CONTAINER,
            Error::Invalid { field, .. } if field == "id" => Self::ENVIRONMENT,
            Error::Invalid { .. } => Self::CONFIG,
            Error::Io { .. } => Self::IO,
        };
        let causes = std::iter::successors(std::error::Error::source(&e), |cause| cause.source());
        let details = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self { code, message: e.to_string(), details }
    }
}

/// The result of ADD.
pub fn added(record: &Record, version: &str) -> Value {
    let attachment = &record.attachment;
    let pod =
        link::Veth { host: &attachment.link, pod: &record.interface, addresses: &attachment.addresses, mtu: None };
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    let (gateways, everywhere) =
        (|ip: &IpAddr| link::gateway(*ip), |ip: &IpAddr| if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" });
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": attachment.link, "mac": mac(link::HOST_MAC)},
            {"name": record.interface, "mac": mac(pod.mac()), "sandbox": attachment.request.netns},
        ],
        "ips": attachment.addresses.iter().map(|ip| json!({
            "interface": 1,
            "address": ipnet::IpNet::from(*ip).to_string(),
            "gateway": gateways(ip),
        })).collect::<Vec<_>>(),
        "routes": attachment.addresses.iter().map(|ip| json!({
            "dst": everywhere(ip),
            "gw": gateways(ip),
        })).collect::<Vec<_>>(),
        "dns": {},
    })
}
