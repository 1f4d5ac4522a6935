//! What a project may still make.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

/// What clouds count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// Nova's servers.
    Instances,
    /// Nova's virtual CPUs.
    Cores,
    /// Nova's memory, in MiB.
    Ram,
    /// Cinder's volumes.
    Volumes,
    /// Cinder's GiB.
    Gigabytes,
    /// Neutron's networks.
    Networks,
    /// Neutron's subnets.
    Subnets,
    /// Neutron's routers.
    Routers,
    /// Neutron's ports.
    Ports,
    /// Neutron's floating IPs.
    FloatingIps,
    /// Neutron's security groups.
    SecurityGroups,
    /// Neutron's rules of security groups.
    Rules,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instances => "instances",
            Self::Cores => "cores",
            Self::Ram => "RAM (MiB)",
            Self::Volumes => "volumes",
            Self::Gigabytes => "volume gigabytes",
            Self::Networks => "networks",
            Self::Subnets => "subnets",
            Self::Routers => "routers",
            Self::Ports => "ports",
            Self::FloatingIps => "floating IPs",
            Self::SecurityGroups => "security groups",
            Self::Rules => "security group rules",
        })
    }
}

/// A limit and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The most there may be; none for "as many as you like".
    pub limit: Option<u64>,
    /// What there is, promised things included.
    pub used: u64,
}

impl Room {
    /// What may still be made.
    pub fn free(self) -> u64 {
        self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.used))
    }
}

/// Amounts of what is counted.
pub type Amounts = BTreeMap<Quota, u64>;
/// What there is room for.
pub type Rooms = BTreeMap<Quota, Room>;

fn room(limit: &Value, used: u64) -> Option<Room> {
    let limit = limit.as_i64()?;
    Some(Room { limit: u64::try_from(limit).ok(), used })
}

/// Nova's `limits`.
pub fn of_nova(body: &Value) -> Rooms {
    use Quota::{Cores, Instances, Ram};
    absolute(
        body,
        &[
            (Instances, "maxTotalInstances", "totalInstancesUsed"),
            (Cores, "maxTotalCores", "totalCoresUsed"),
            (Ram, "maxTotalRAMSize", "totalRAMUsed"),
        ],
    )
}

/// Cinder's `limits`.
pub fn of_cinder(body: &Value) -> Rooms {
    use Quota::{Gigabytes, Volumes};
    absolute(
        body,
        &[
            (Volumes, "maxTotalVolumes", "totalVolumesUsed"),
            (Gigabytes, "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
        ],
    )
}

fn absolute(body: &Value, keys: &[(Quota, &str, &str)]) -> Rooms {
    let limits = &body["limits"]["absolute"];
    let read = |(quota, most, used): &(Quota, &str, &str)| {
        Some((*quota, room(&limits[*most], limits[*used].as_u64().unwrap_or(0))?))
    };
    keys.iter().filter_map(read).collect()
}

/// Neutron's quota details.
pub fn of_neutron(body: &Value) -> Rooms {
    use Quota::{FloatingIps, Networks, Ports, Routers, Rules, SecurityGroups, Subnets};
    let keys = [
        (Networks, "network"),
        (Subnets, "subnet"),
        (Routers, "router"),
        (Ports, "port"),
        (FloatingIps, "floatingip"),
        (SecurityGroups, "security_group"),
        (Rules, "security_group_rule"),
    ];
    let read = |(quota, key): (Quota, &str)| {
        let detail = &body["quota"][key];
        let number = |key: &str| detail[key].as_u64().unwrap_or(0);
        Some((quota, room(&detail["limit"], number("used") + number("reserved"))?))
    };
    keys.into_iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn no_limit_leaves_room_for_everything() {
        let nova = of_nova(&json!({"limits": {"absolute": {
            "maxTotalInstances": 10, "totalInstancesUsed": 3, "maxTotalCores": -1, "totalCoresUsed": 7}}}));
        assert_eq!(nova[&Quota::Instances].free(), 7);
        assert_eq!(nova[&Quota::Cores].free(), u64::MAX);
        let neutron = of_neutron(&json!({"quota": {"port": {"limit": 5, "used": 4, "reserved": 1}}}));
        assert_eq!(neutron[&Quota::Ports].free(), 0);
        assert!(!neutron.contains_key(&Quota::Networks));
    }
}
