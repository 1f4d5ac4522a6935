//! OpenStack's `network_data.json`: what each card is to have.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use network::host::{Route, mac};
use serde::Deserialize;

/// What the machine's cards are to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By hardware address. None at all: every card asks by DHCP.
    pub links: Vec<Link>,
    /// Name servers, besides those that DHCP brings.
    pub dns: Vec<IpAddr>,
}

/// What one card is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// Ask by DHCP.
    pub dhcp: bool,
    /// Fixed addresses.
    pub addresses: Vec<IpNet>,
    /// Fixed routes.
    pub routes: Vec<Route>,
}

impl Plan {
    /// What the card of that hardware address is to have.
    pub fn link(&self, mac: [u8; 6]) -> Option<Link> {
        if self.links.is_empty() {
            return Some(Link { dhcp: true, ..Link::default() });
        }
        self.links.iter().find(|link| link.mac == Some(mac)).cloned()
    }

    /// Reads `network_data.json`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let data: Data = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let mut links: BTreeMap<String, Link> = BTreeMap::new();
        for link in data.links {
            let at = link.ethernet_mac_address.as_deref().and_then(mac);
            let at = at.ok_or_else(|| format!("link {}: no hardware address of six bytes", link.id))?;
            links.insert(link.id, Link { mac: Some(at), mtu: link.mtu.filter(|mtu| *mtu >= 576), ..Link::default() });
        }
        let mut dns: Vec<IpAddr> = data.services.iter().filter_map(Service::dns).collect();
        for network in data.networks {
            let link = links.get_mut(&network.link);
            let link = link.ok_or_else(|| format!("network {}: there is no link {}", network.id, network.link))?;
            network.join(link)?;
            dns.extend(network.services.iter().filter_map(Service::dns));
        }
        let mut seen = Vec::new();
        dns.retain(|server| {
            !seen.contains(server) && {
                seen.push(*server);
                true
            }
        });
        Ok(Self { links: links.into_values().collect(), dns })
    }
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    links: Vec<DataLink>,
    #[serde(default)]
    networks: Vec<Network>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct DataLink {
    id: String,
    ethernet_mac_address: Option<String>,
    mtu: Option<u32>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(default)]
    id: String,
    link: String,
    #[serde(rename = "type")]
    kind: String,
    ip_address: Option<String>,
    netmask: Option<String>,
    gateway: Option<IpAddr>,
    #[serde(default)]
    routes: Vec<DataRoute>,
    #[serde(default)]
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct DataRoute {
    network: String,
    netmask: Option<String>,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    address: Option<IpAddr>,
}

impl Service {
    fn dns(&self) -> Option<IpAddr> {
        self.address.filter(|_| self.kind == "dns")
    }
}

impl Network {
    fn join(&self, link: &mut Link) -> Result<(), String> {
        let wrong = |what: String| format!("network {}: {what}", self.id);
        match self.kind.as_str() {
            "ipv4_dhcp" => link.dhcp = true,
            "ipv4" | "ipv6" => {
                let address = self.ip_address.as_deref().ok_or_else(|| wrong("no ip_address".into()))?;
                link.addresses.push(net(address, self.netmask.as_deref()).map_err(wrong)?);
                for route in &self.routes {
                    let to = net(&route.network, route.netmask.as_deref()).map_err(wrong)?;
                    link.routes.push(Route { to: to.trunc(), via: route.gateway });
                }
                if let Some(via) = self.gateway {
                    let all = if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                    let route = Route { to: net(all, None).map_err(wrong)?, via: Some(via) };
                    if !link.routes.contains(&route) {
                        link.routes.push(route);
                    }
                }
            }
            // Routers advertise these; the kernel listens by itself.
            "ipv6_slaac" | "ipv6_dhcpv6-stateless" | "ipv6_dhcp" | "ipv6_dhcpv6-stateful" => {}
            other => return Err(wrong(format!("type {other:?} is not known"))),
        }
        Ok(())
    }
}

/// `10.0.0.5/24`, or an address and a mask, or a mask's length.
fn net(address: &str, mask: Option<&str>) -> Result<IpNet, String> {
    let wrong = || format!("{address} {} is no address with a netmask", mask.unwrap_or_default());
    if let Ok(net) = address.parse() {
        return Ok(net);
    }
    let ip: IpAddr = address.parse().map_err(|_| wrong())?;
    let whole = if ip.is_ipv4() { 32 } else { 128 };
    match mask {
        None => IpNet::new(ip, whole).map_err(|_| wrong()),
        Some(mask) => match (mask.parse::<u8>(), mask.parse::<IpAddr>()) {
            (Ok(length), _) => IpNet::new(ip, length).map_err(|_| wrong()),
            (_, Ok(mask)) => IpNet::with_netmask(ip, mask).map_err(|_| wrong()),
            _ => Err(wrong()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: &str = r#"{
      "links": [
        {"id": "tap1", "vif_id": "x", "type": "ovs", "mtu": 1442, "ethernet_mac_address": "fa:16:3e:00:00:01"},
        {"id": "tap2", "type": "phy", "mtu": null, "ethernet_mac_address": "fa:16:3e:00:00:02"}],
      "networks": [
        {"id": "network0", "type": "ipv4", "link": "tap1", "ip_address": "10.0.0.5", "netmask": "255.255.255.0",
         "network_id": "n", "services": [{"type": "dns", "address": "10.0.0.2"}],
         "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
                    {"network": "169.254.169.254", "netmask": "255.255.255.255", "gateway": "10.0.0.2"}]},
        {"id": "network1", "type": "ipv6", "link": "tap1", "ip_address": "fd00::5", "netmask": "64", "routes": []},
        {"id": "network2", "type": "ipv4_dhcp", "link": "tap2"}],
      "services": [{"type": "dns", "address": "10.0.0.2"}, {"type": "ntp", "address": "10.0.0.9"}]}"#;

    #[test]
    fn fixed_and_asked_for() {
        let plan = Plan::read(FIXED).unwrap();
        let first = plan.link([0xfa, 0x16, 0x3e, 0, 0, 1]).unwrap();
        assert_eq!((first.mtu, first.dhcp), (Some(1442), false));
        assert_eq!(first.addresses, ["10.0.0.5/24".parse::<IpNet>().unwrap(), "fd00::5/64".parse().unwrap()]);
        assert_eq!(first.routes[0], Route { to: "0.0.0.0/0".parse().unwrap(), via: "10.0.0.1".parse().ok() });
        assert_eq!(first.routes[1].to, "169.254.169.254/32".parse().unwrap());
        assert!(plan.link([0xfa, 0x16, 0x3e, 0, 0, 2]).unwrap().dhcp);
        assert_eq!(plan.link([0; 6]), None);
        assert_eq!(plan.dns, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }

    #[test]
    fn without_any_link_every_card_asks() {
        assert!(Plan::read("{}").unwrap().link([0; 6]).unwrap().dhcp);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (from, to, said) in [
            ("255.255.255.0", "255.0.255.0", "network network0"),
            ("\"link\": \"tap2\"", "\"link\": \"tap3\"", "there is no link tap3"),
            ("ipv4_dhcp", "ipv9", "type \"ipv9\""),
            ("fa:16:3e:00:00:02", "", "link tap2"),
        ] {
            let error = Plan::read(&FIXED.replace(from, to)).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(at in 0..FIXED.len(), with in ".{0,8}", text: String) {
            let mut broken = FIXED.to_owned();
            broken.replace_range(at..at + 1, &with);
            let _judged = (Plan::read(&broken), Plan::read(&text));
        }
    }
}
