//! The host's own links: what PID 1 makes of a lease or of static configuration.

use std::{fs, io, net::IpAddr, path::Path};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use nix::errno::Errno;

use crate::netlink::Socket;

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name, for instance `eth0`.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// A way to somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads.
    pub to: IpNet,
    /// By which router; directly when absent.
    pub via: Option<IpAddr>,
}

/// What a card is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The largest packet; as it is when absent.
    pub mtu: Option<u32>,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// What its routes cost: of two default routes the cheaper one is taken.
    pub metric: u32,
}

/// The network cards, by name: links with a device behind them, which pods' links have not.
pub fn cards() -> io::Result<Vec<Card>> {
    let root = Path::new("/sys/class/net");
    let mut cards = Vec::new();
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let read = |file: &str| fs::read_to_string(root.join(&name).join(file)).unwrap_or_default().trim().to_owned();
        let (mac, index) = (mac(&read("address")), read("ifindex").parse());
        if let (true, Some(mac), Ok(index)) = (root.join(&name).join("device").exists(), mac, index) {
            cards.push(Card { name, index, mac });
        }
    }
    cards.sort_by_key(|card| card.index);
    Ok(cards)
}

/// A hardware address: six bytes in hex with colons between them.
pub fn mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2));
    let mac: Vec<u8> = bytes.by_ref().take(6).collect::<Option<_>>()?;
    mac.try_into().ok().filter(|_| bytes.next().is_none())
}

/// Sets a link up, by its number.
pub fn up(index: u32) -> io::Result<()> {
    change(index, None)
}

fn change(index: u32, mtu: Option<u32>) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = mtu.map(LinkAttribute::Mtu).into_iter().collect();
    Socket::route()?.batch(vec![(0, RouteNetlinkMessage::SetLink(message))])?.into_iter().collect()
}

/// Gives a card what it is to have, and takes away what earlier calls gave it.
pub fn set(card: &Card, settings: &Settings) -> io::Result<()> {
    change(card.index, settings.mtu)?;
    let mut socket = Socket::route()?;
    let stale: Vec<_> = held(&mut socket, card.index)?
        .into_iter()
        .filter(|(net, _)| !settings.addresses.contains(net))
        .map(|(_, message)| (0, RouteNetlinkMessage::DelAddress(message)))
        .collect();
    all(&mut socket, stale)?;
    let replace = NLM_F_CREATE | NLM_F_REPLACE;
    let given = settings.addresses.iter().map(|net| (replace, RouteNetlinkMessage::NewAddress(address(card, *net))));
    all(&mut socket, given.collect())?;
    let wanted: Vec<RouteMessage> = settings.routes.iter().map(|r| route(card, r, settings.metric)).collect();
    let stale: Vec<_> = routes(&mut socket, card.index)?
        .into_iter()
        .filter(|old| !wanted.iter().any(|new| same(old, new)))
        .map(|old| (0, RouteNetlinkMessage::DelRoute(old)))
        .collect();
    all(&mut socket, stale)?;
    all(&mut socket, wanted.into_iter().map(|r| (replace, RouteNetlinkMessage::NewRoute(r))).collect())
}

/// Carries out all; absent is done. The kernel takes no message without any.
fn all(socket: &mut Socket, requests: Vec<(u16, RouteNetlinkMessage)>) -> io::Result<()> {
    if requests.is_empty() {
        return Ok(());
    }
    let gone = [Errno::ESRCH as i32, Errno::EADDRNOTAVAIL as i32];
    socket.batch(requests)?.into_iter().try_for_each(|result| match result {
        Err(e) if e.raw_os_error().is_some_and(|n| gone.contains(&n)) => Ok(()),
        other => other,
    })
}

/// The IPv4 addresses of a link, and IPv6 ones that are not the kernel's own doing.
fn held(socket: &mut Socket, index: u32) -> io::Result<Vec<(IpNet, AddressMessage)>> {
    let mut held = Vec::new();
    socket.dump(NLM_F_DUMP, RouteNetlinkMessage::GetAddress(AddressMessage::default()), |answer| {
        let RouteNetlinkMessage::NewAddress(message) = answer else { return };
        let ip = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(ip) => Some(*ip),
            AddressAttribute::Address(ip @ IpAddr::V6(_)) => Some(*ip),
            _ => None,
        });
        // A router's advice makes addresses that end by themselves.
        let permanent = message.header.flags.contains(netlink_packet_route::address::AddressHeaderFlags::Permanent);
        let local = matches!(ip, Some(IpAddr::V6(v6)) if v6.is_unicast_link_local());
        let net = ip.and_then(|ip| IpNet::new(ip, message.header.prefix_len).ok());
        if let (Some(net), true) = (net, message.header.index == index && permanent && !local) {
            held.push((net, message));
        }
    })?;
    Ok(held)
}

/// The routes of a link that [`set`] made.
fn routes(socket: &mut Socket, index: u32) -> io::Result<Vec<RouteMessage>> {
    let mut found = Vec::new();
    let mut ask = RouteMessage::default();
    ask.header.table = RouteHeader::RT_TABLE_MAIN;
    socket.dump(NLM_F_DUMP, RouteNetlinkMessage::GetRoute(ask), |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            let ours = route.header.protocol == RouteProtocol::Dhcp && route.header.table == RouteHeader::RT_TABLE_MAIN;
            if ours && route.attributes.contains(&RouteAttribute::Oif(index)) {
                found.push(route);
            }
        }
    })?;
    Ok(found)
}

fn same(a: &RouteMessage, b: &RouteMessage) -> bool {
    let key = |m: &RouteMessage| {
        let of = |wanted: fn(&RouteAttribute) -> bool| m.attributes.iter().find(|a| wanted(a)).cloned();
        (
            m.header.destination_prefix_length,
            of(|a| matches!(a, RouteAttribute::Destination(_))),
            of(|a| matches!(a, RouteAttribute::Gateway(_))),
            of(|a| matches!(a, RouteAttribute::Priority(_))),
        )
    };
    key(a) == key(b)
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address(card: &Card, net: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(net.addr());
    message.header.prefix_len = net.prefix_len();
    message.header.index = card.index;
    message.attributes = vec![AddressAttribute::Local(net.addr()), AddressAttribute::Address(net.addr())];
    if let IpNet::V4(v4) = net {
        message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
    }
    message
}

fn route(card: &Card, route: &Route, metric: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let to = route.to.trunc();
    message.header.address_family = family(to.addr());
    message.header.destination_prefix_length = to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Dhcp;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(card.index), RouteAttribute::Priority(metric)];
    if to.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(to.addr().into()));
    }
    match route.via.filter(|via| !via.is_unspecified()) {
        // A router need not lie in the network of our address (a /32 of some clouds).
        Some(via) => {
            message.attributes.push(RouteAttribute::Gateway(via.into()));
            message.header.flags = RouteFlags::Onlink;
        }
        None if to.addr().is_ipv4() => message.header.scope = RouteScope::Link,
        None => {}
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        assert_eq!(mac("52:54:00:12:34:5f"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x5f]));
        for bad in ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52:54:00:12:34:5g", "5254:0:12:34:56"] {
            assert_eq!(mac(bad), None, "{bad}");
        }
    }

    /// In a network namespace of its own.
    #[test]
    fn what_is_no_longer_wanted_goes() {
        std::thread::scope(|scope| {
            let within = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                use netlink_packet_route::link::{InfoKind, LinkInfo};
                let mut pair = LinkMessage::default();
                pair.attributes = vec![
                    LinkAttribute::IfName("card0".into()),
                    LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
                ];
                let mut socket = Socket::route().unwrap();
                all(&mut socket, vec![(NLM_F_CREATE, RouteNetlinkMessage::NewLink(pair))]).unwrap();
                let index = nix::net::if_::if_nametoindex("card0").unwrap();
                let card = Card { name: "card0".into(), index, mac: [0; 6] };
                let net = |text: &str| text.parse::<IpNet>().unwrap();
                let via = |to: &str, via: &str| Route { to: net(to), via: Some(via.parse().unwrap()) };
                let mut settings = Settings {
                    mtu: Some(1400),
                    addresses: vec![net("10.7.0.5/24"), net("fd00:7::5/64")],
                    routes: vec![via("0.0.0.0/0", "10.7.0.1"), via("10.8.0.0/16", "10.7.0.2")],
                    metric: 100,
                };
                let seen = || {
                    let mut socket = Socket::route().unwrap();
                    let held: Vec<IpNet> = held(&mut socket, index).unwrap().into_iter().map(|(net, _)| net).collect();
                    (held, routes(&mut socket, index).unwrap().len())
                };
                for _ in 0..2 {
                    set(&card, &settings).unwrap();
                    let (held, routes) = seen();
                    assert!(settings.addresses.iter().all(|a| held.contains(a)), "{held:?}");
                    assert_eq!(routes, 2);
                }
                settings.addresses = vec![net("10.7.0.6/24")];
                settings.routes.truncate(1);
                set(&card, &settings).unwrap();
                assert_eq!(seen(), (settings.addresses.clone(), 1));
            });
            within.join().unwrap();
        });
    }
}
