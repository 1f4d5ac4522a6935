//! What an instance of the network is told.

use std::{net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest instance name: with `_` and five digits it fills the 15 bytes of a link's name.
const INSTANCE_MAX: usize = 9;

/// An instance of the network on one host. Also the configuration of the CNI plugin, in camelCase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Tag of everything made on the host: links `<instance>_xxxxx`, nft table `<instance>`. At most nine of
    /// `a-z`, `0-9` and `-`; no two instances of a host may share it.
    pub instance: String,
    /// Where attachments are recorded. They are useless after a reboot, and collected then.
    pub state_dir: PathBuf,
    /// Where addresses come from: one address of each family that occurs, earlier ranges first. At most 2^25
    /// addresses are used. May not overlap those of another instance.
    pub pod_ranges: Vec<IpNet>,
    /// Destinations that see a pod's own address, besides `pod_ranges`; all others see the node's.
    #[serde(default)]
    pub unmasqueraded: Vec<IpNet>,
    /// TCP ports of the host that are closed to pods, such as the agent's own.
    #[serde(default)]
    pub closed_ports: Vec<u16>,
    /// MTU of the pods' links; the kernel's default (1500) when absent.
    #[serde(default)]
    pub mtu: Option<u32>,
}

impl Config {
    /// Refuses what cannot work, by field.
    pub(crate) fn check(&self) -> Result<()> {
        let instance = &self.instance;
        let named = instance.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if !named || !instance.starts_with(|c: char| c.is_ascii_lowercase()) || instance.len() > INSTANCE_MAX {
            return Err(Error::invalid(
                "instance",
                format!("{instance:?} is not a letter and up to {} of a-z, 0-9 and -", INSTANCE_MAX - 1),
            ));
        }
        if self.pod_ranges.is_empty() {
            return Err(Error::invalid("podRanges", "at least one range is needed"));
        }
        for (i, range) in self.pod_ranges.iter().enumerate() {
            let field = format!("podRanges[{i}]");
            if let Some(other) = self.pod_ranges[..i].iter().find(|other| overlap(other, range)) {
                return Err(Error::invalid(field, format!("{range} overlaps {other}")));
            }
            if unusable(range.network()) {
                return Err(Error::invalid(field, format!("{range} is not a range of unicast addresses")));
            }
        }
        if self.closed_ports.contains(&0) {
            return Err(Error::invalid("closedPorts", "0 is not a port"));
        }
        match self.mtu {
            // 1280 is the least an IPv6 link may have (RFC 8200, 5).
            Some(mtu) if !(1280..=65535).contains(&mtu) => {
                Err(Error::invalid("mtu", format!("{mtu} is not between 1280 and 65535")))
            }
            _ => Ok(()),
        }
    }

    /// What the names of this instance's links begin with. No prefix of another instance's.
    pub(crate) fn link_prefix(&self) -> String {
        format!("{}_", self.instance)
    }
}

/// Whether two ranges have an address in common.
pub(crate) fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn unusable(network: IpAddr) -> bool {
    let link_local = match network {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || network.is_loopback() || network.is_multicast() || network.is_unspecified()
}
