//! What the packet filter holds: one table per instance, a pure function of configuration and attachments.

use std::fmt::{self, Display, Formatter};

use ipnet::IpNet;

use crate::{Attachment, Config, Protocol, ports};

/// The whole table, replacing the one there is in one transaction.
///
/// Rules are by range and by the links' common prefix, so that a pod comes and goes without a change here. Only host
/// ports have elements of their own.
pub fn table<'a>(config: &Config, comment: &str, attachments: impl Iterator<Item = &'a Attachment>) -> String {
    let name = &config.instance;
    let pods = format!("\"{}*\"", config.link_prefix());
    let elements: Vec<_> = attachments.flat_map(elements).collect();
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = config.pod_ranges.iter().partition(|range| range.addr().is_ipv4());
    let masquerade: String = [("ip", &v4), ("ip6", &v6)]
        .into_iter()
        .filter(|(_, pods)| !pods.is_empty())
        .map(|(family, pods)| {
            let own = config.unmasqueraded.iter().filter(|range| range.addr().is_ipv4() == (family == "ip"));
            let direct = set(pods.iter().chain(own));
            format!("\n    {family} saddr {} {family} daddr != {direct} masquerade", set(pods.iter()))
        })
        .collect();
    let closed = match config.closed_ports.as_slice() {
        [] => String::new(),
        ports => format!("\n    tcp dport {} reject with tcp reset", set(ports.iter())),
    };
    let maps: String = MAPS
        .iter()
        .map(|(map, kind)| {
            let own: Vec<_> =
                elements.iter().filter(|e| e.map == *map).map(|e| format!("{} : {}", e.key, e.to)).collect();
            let own = if own.is_empty() { String::new() } else { format!("; elements = {{ {} }}", own.join(", ")) };
            format!("\n  map {map} {{ type {kind}{own}; }}")
        })
        .collect();
    format!(
        r#"add table inet {name}
delete table inet {name}
table inet {name} {{
  comment "{comment}"
{maps}

  # A source that is not the pod's own; the host's loopback, which route_localnet (not ours) would open.
  chain sources {{
    type filter hook prerouting priority raw; policy accept;
    iifname {pods} fib saddr . iif oif missing drop
    iifname {pods} ip daddr 127.0.0.0/8 drop
  }}

  chain ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @own4
    dnat ip to meta l4proto . th dport map @any4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @own6
    dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain arriving {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump ports
  }}
  chain from_host {{
    type nat hook output priority -100; policy accept;
    ip daddr 127.0.0.0/8 return
    ip6 daddr ::1 return
    fib daddr type local jump ports
  }}

  # A pod that reaches a pod (perhaps itself) by a host port must get its answers by way of the host.
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname {pods} oifname {pods} ct status dnat masquerade
    oifname {pods} return{masquerade}
  }}

  # Link-local addresses are the host's business: the metadata service (169.254.169.254, fd00:ec2::254) above all.
  chain metadata {{
    ip daddr 169.254.0.0/16 reject
    ip6 daddr fd00:ec2::254 reject
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    iifname != {pods} return
    ct state established,related return
    jump metadata{closed}
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    iifname {pods} jump metadata
  }}
}}
"#
    )
}

/// Adds the host ports of an attachment; again is done.
pub fn open<'a>(config: &Config, attachments: impl Iterator<Item = &'a Attachment>) -> String {
    let add = |e: Element| format!("add element inet {} {} {{ {} : {} }}\n", config.instance, e.map, e.key, e.to);
    attachments.flat_map(elements).map(add).collect()
}

/// Removes them; absent is done (deleting an absent element would fail the script, so it is added before).
pub fn close<'a>(config: &Config, attachments: impl Iterator<Item = &'a Attachment> + Clone) -> String {
    let delete = |e: Element| format!("delete element inet {} {} {{ {} }}\n", config.instance, e.map, e.key);
    open(config, attachments.clone()) + &attachments.flat_map(elements).map(delete).collect::<String>()
}

/// Host ports by family, of any of the host's addresses or of one.
const MAPS: [(&str, &str); 4] = [
    ("any4", "inet_proto . inet_service : ipv4_addr . inet_service"),
    ("own4", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
    ("any6", "inet_proto . inet_service : ipv6_addr . inet_service"),
    ("own6", "ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service"),
];

struct Element {
    map: &'static str,
    key: String,
    to: String,
}

fn elements(attachment: &Attachment) -> Vec<Element> {
    let mut elements = Vec::new();
    for port in &attachment.request.host_ports {
        for ip in attachment.addresses.iter().filter(|ip| ports::serves(port, **ip)) {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let (map, key) = match (ip.is_ipv4(), port.address.is_unspecified()) {
                (true, true) => ("any4", format!("{protocol} . {}", port.host)),
                (true, false) => ("own4", format!("{} . {protocol} . {}", port.address, port.host)),
                (false, true) => ("any6", format!("{protocol} . {}", port.host)),
                (false, false) => ("own6", format!("{} . {protocol} . {}", port.address, port.host)),
            };
            elements.push(Element { map, key, to: format!("{ip} . {}", port.pod) });
        }
    }
    elements
}

fn set<T: Display>(items: impl Iterator<Item = T>) -> Set<T> {
    Set(items.collect())
}

/// An anonymous set of nft.
struct Set<T>(Vec<T>);

impl<T: Display> Display for Set<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{} {item}", if i == 0 { "{" } else { "," })?;
        }
        write!(f, " }}")
    }
}
