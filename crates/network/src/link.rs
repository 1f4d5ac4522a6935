//! The veth of a pod and the routes over it.
//!
//! Nothing is resolved on the link: both ends know each other as permanent neighbours, so that no ARP crosses it and
//! the host needs no address there. The pod sends everything to a gateway that exists only as such a neighbour.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::{
    errno::Errno,
    ifaddrs::{InterfaceAddress, getifaddrs},
    net::if_,
};

use crate::netlink::{Socket, within};

/// The pods' gateways. Link-local, so never anyone's destination; the same for all.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// See [`GATEWAY_V4`].
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The host's end of every pod's link; each link is a network of its own.
pub const HOST_MAC: [u8; 6] = [0xee; 6];

/// Links about to go are put into this group, to be deleted by one request. Shared by all instances: whoever deletes
/// it deletes only what was to go.
const DOOMED: u32 = u32::from_be_bytes(*b"rast");

/// Behind any route to a pod, should the range be a single address.
const UNREACHABLE_METRIC: u32 = 1 << 20;

const REPLACE: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// A pod's link.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the host's end.
    pub host: &'a str,
    /// Name of the pod's end.
    pub pod: &'a str,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// MTU of both ends; the kernel's default when absent.
    pub mtu: Option<u32>,
}

impl Veth<'_> {
    /// Makes the link and the routes, or what is missing of them.
    pub fn connect(&self, socket: &mut Socket, netns: &File) -> io::Result<()> {
        match self.create(socket, netns) {
            Err(e) if e.raw_os_error() == Some(Errno::EEXIST as i32) => {
                let inside = within(netns, || Ok(index(self.pod).is_some()))?;
                if index(self.host).is_none() {
                    return Err(io::Error::new(e.kind(), format!("the pod has a link {} already", self.pod)));
                }
                // The name's last owner died on the way out, or the pod has a new namespace.
                if !inside {
                    delete(socket, &[self.host])?;
                    self.create(socket, netns)?;
                }
            }
            other => other?,
        }
        within(netns, || self.furnish_pod())?;
        self.furnish_host(socket)
    }

    /// The MAC address of the pod's end, made of its address.
    pub fn mac(&self) -> [u8; 6] {
        let last = match self.addresses.first() {
            Some(IpAddr::V4(v4)) => v4.octets(),
            Some(IpAddr::V6(v6)) => (u128::from(*v6) as u32).to_be_bytes(),
            None => [0; 4],
        };
        [0x0a, 0x58, last[0], last[1], last[2], last[3]]
    }

    /// Whether both ends, the pod's addresses and the host's routes are there.
    pub fn verify(&self, netns: &File) -> io::Result<()> {
        let missing = |what: String| Err(io::Error::new(io::ErrorKind::NotFound, what));
        let Some(link) = index(self.host) else { return missing(format!("link {}", self.host)) };
        let mut routes = Vec::new();
        let mut ask = RouteMessage::default();
        ask.header.table = RouteHeader::RT_TABLE_MAIN;
        Socket::route()?.dump(NLM_F_DUMP, RouteNetlinkMessage::GetRoute(ask), |answer| {
            if let RouteNetlinkMessage::NewRoute(route) = answer {
                routes.push(route);
            }
        })?;
        let leads = |ip: IpAddr| {
            let (to, by) = (RouteAttribute::Destination(ip.into()), RouteAttribute::Oif(link));
            routes.iter().any(|route| route.attributes.contains(&to) && route.attributes.contains(&by))
        };
        if let Some(ip) = self.addresses.iter().find(|ip| !leads(**ip)) {
            return missing(format!("route to {ip} by {}", self.host));
        }
        let inside = within(netns, || Ok(getifaddrs()?.collect::<Vec<_>>()))?;
        for ip in self.addresses {
            let has = |link: &InterfaceAddress| link.interface_name == self.pod && address_of(link) == Some(*ip);
            if !inside.iter().any(has) {
                return missing(format!("address {ip} of {} in the pod", self.pod));
            }
        }
        Ok(())
    }

    /// Both ends by one request, the pod's straight into its namespace: it never shows up in the host's.
    fn create(&self, socket: &mut Socket, netns: &File) -> io::Result<()> {
        let mut peer = end(self.pod, self.mac(), self.mtu);
        peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        let mut link = end(self.host, HOST_MAC, self.mtu);
        up(&mut link);
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        all(socket.batch(vec![(NLM_F_CREATE | NLM_F_EXCL, RouteNetlinkMessage::NewLink(link))])?)
    }

    fn furnish_pod(&self) -> io::Result<()> {
        let link = index(self.pod).ok_or(Errno::ENODEV)?;
        self.quieten(self.pod)?;
        let mut batch = Vec::new();
        // Every namespace has its loopback as number 1.
        for index in [1, link] {
            let mut message = LinkMessage::default();
            message.header.index = index;
            up(&mut message);
            batch.push((0, RouteNetlinkMessage::SetLink(message)));
        }
        for &ip in self.addresses {
            let gateway = gateway(ip);
            batch.push((REPLACE, address(link, ip)));
            batch.push((REPLACE, neighbour(link, gateway, HOST_MAC)));
            batch.push((REPLACE, default_route(link, gateway)));
        }
        all(Socket::route()?.batch(batch)?)
    }

    fn furnish_host(&self, socket: &mut Socket) -> io::Result<()> {
        let link = index(self.host).ok_or(Errno::ENODEV)?;
        self.quieten(self.host)?;
        let mut batch = Vec::new();
        for &ip in self.addresses {
            batch.push((REPLACE, neighbour(link, ip, self.mac())));
            batch.push((REPLACE, pod_route(link, ip)));
        }
        all(socket.batch(batch)?)
    }

    /// No IPv6 traffic of the kernel's own: none at all without an IPv6 address, and no router's advice with one.
    fn quieten(&self, name: &str) -> io::Result<()> {
        let (key, value) = match self.addresses.iter().any(IpAddr::is_ipv6) {
            true => ("accept_ra", "0"),
            false => ("disable_ipv6", "1"),
        };
        match fs::write(format!("/proc/sys/net/ipv6/conf/{name}/{key}"), value) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            // A kernel without IPv6 is quiet.
            _ => Ok(()),
        }
    }
}

/// The links of this namespace whose names begin with `prefix`.
pub fn names(prefix: &str) -> io::Result<Vec<String>> {
    let names = if_::if_nameindex()?;
    let names = names.iter().map(|link| link.name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with(prefix)).collect())
}

/// The IP address of an entry, if it is one.
pub fn address_of(entry: &InterfaceAddress) -> Option<IpAddr> {
    let address = entry.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// Deletes links with all that hangs on them; absent is done. However many, the kernel waits once for its readers
/// (tens of milliseconds, during which no other link can be changed).
pub fn delete(socket: &mut Socket, names: &[&str]) -> io::Result<()> {
    let absent_is_done = |results: Vec<io::Result<()>>| -> io::Result<()> {
        let gone = |e: &io::Error| e.raw_os_error() == Some(Errno::ENODEV as i32);
        results.into_iter().try_for_each(|result| match result {
            Err(e) if gone(&e) => Ok(()),
            other => other,
        })
    };
    let named = |name: &&str, also: Option<LinkAttribute>| {
        let mut message = LinkMessage::default();
        message.attributes = [LinkAttribute::IfName((*name).to_owned())].into_iter().chain(also).collect();
        message
    };
    if let [name] = names {
        let request = RouteNetlinkMessage::DelLink(named(name, None));
        return absent_is_done(socket.batch(vec![(0, request)])?);
    }
    // The kernel takes a request of up to half a socket buffer.
    for some in names.chunks(256) {
        let doom = |name| (0, RouteNetlinkMessage::SetLink(named(name, Some(LinkAttribute::Group(DOOMED)))));
        absent_is_done(socket.batch(some.iter().map(doom).collect())?)?;
    }
    let mut doomed = LinkMessage::default();
    doomed.attributes.push(LinkAttribute::Group(DOOMED));
    absent_is_done(socket.batch(vec![(0, RouteNetlinkMessage::DelLink(doomed))])?)
}

/// Answers for all addresses of a range that no pod has, which else would leave by the default route.
pub fn reserve(socket: &mut Socket, range: &IpNet) -> io::Result<()> {
    let route = RouteNetlinkMessage::NewRoute(unreachable(range));
    match all(socket.batch(vec![(NLM_F_CREATE | NLM_F_EXCL, route)])?) {
        Err(e) if e.raw_os_error() == Some(Errno::EEXIST as i32) => Ok(()),
        other => other,
    }
}

/// Undoes [`reserve`]; absent is done.
pub fn unreserve(socket: &mut Socket, range: &IpNet) -> io::Result<()> {
    match all(socket.batch(vec![(0, RouteNetlinkMessage::DelRoute(unreachable(range)))])?) {
        Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
        other => other,
    }
}

fn index(name: &str) -> Option<u32> {
    if_::if_nametoindex(name).ok()
}

fn all(results: Vec<io::Result<()>>) -> io::Result<()> {
    results.into_iter().collect()
}

fn end(name: &str, mac: [u8; 6], mtu: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        // One queue each: memory is per queue, and a pod's traffic is the work of the CPU that sends it.
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
    ];
    message.attributes.extend(mtu.map(LinkAttribute::Mtu));
    message
}

fn up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

/// The gateway of a pod with this address.
pub fn gateway(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => GATEWAY_V4.into(),
        IpAddr::V6(_) => GATEWAY_V6.into(),
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn host_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn address(link: u32, ip: IpAddr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = host_length(ip);
    message.header.index = link;
    // It is ours alone: detecting duplicates would only delay its first use by a second.
    message.header.flags = if ip.is_ipv6() { AddressHeaderFlags::Nodad } else { AddressHeaderFlags::empty() };
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    RouteNetlinkMessage::NewAddress(message)
}

fn neighbour(link: u32, ip: IpAddr, mac: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    let destination = match ip {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes =
        vec![NeighbourAttribute::Destination(destination), NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    RouteNetlinkMessage::NewNeighbour(message)
}

fn route(ip: IpAddr, length: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.attributes = attributes;
    message
}

fn default_route(link: u32, gateway: IpAddr) -> RouteNetlinkMessage {
    let mut message = route(gateway, 0, vec![RouteAttribute::Gateway(gateway.into()), RouteAttribute::Oif(link)]);
    message.header.flags = RouteFlags::Onlink;
    RouteNetlinkMessage::NewRoute(message)
}

fn pod_route(link: u32, ip: IpAddr) -> RouteNetlinkMessage {
    let to = vec![RouteAttribute::Destination(ip.into()), RouteAttribute::Oif(link)];
    let mut message = route(ip, host_length(ip), to);
    message.header.scope = if ip.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
    RouteNetlinkMessage::NewRoute(message)
}

fn unreachable(range: &IpNet) -> RouteMessage {
    let to = vec![RouteAttribute::Destination(range.network().into()), RouteAttribute::Priority(UNREACHABLE_METRIC)];
    let mut message = route(range.network(), range.prefix_len(), to);
    message.header.kind = RouteType::Unreachable;
    message
}
