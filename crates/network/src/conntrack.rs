//! Tracked connections of addresses that are no more: they would send answers, or datagrams for a host port, to
//! whoever gets the address next.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::{NLM_F_DUMP, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable};
use nix::errno::Errno;

use crate::netlink::Socket;

// linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Family, version, resource.
const HEADER: usize = 4;

/// Forgets every connection in which an address takes part that `gone` tells, on either side of a translation.
pub fn flush(gone: impl Fn(IpAddr) -> bool) -> io::Result<()> {
    let mut socket = Socket::netfilter()?;
    let mut doomed = Vec::new();
    for family in [libc_family(true), libc_family(false)] {
        let request = Message { kind: GET, body: vec![family, 0, 0, 0] };
        let listed = socket.dump(NLM_F_DUMP, request, |entry| {
            if addresses(&entry.body).into_iter().any(&gone) {
                doomed.push((0, Message { kind: DELETE, body: key(&entry.body) }));
            }
        });
        match listed {
            // A kernel without nf_conntrack_netlink: entries run out by themselves, and addresses rest before reuse.
            Err(e) if e.raw_os_error() == Some(Errno::EINVAL as i32) => {
                tracing::debug!("connection tracking cannot be asked: stale entries are left to time out");
                return Ok(());
            }
            other => other?,
        }
    }
    let mut rest = doomed.into_iter().peekable();
    while rest.peek().is_some() {
        // The kernel takes a request of up to half a socket buffer.
        for result in socket.batch(rest.by_ref().take(256).collect())? {
            match result {
                // It ended by itself.
                Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn libc_family(v4: bool) -> u8 {
    let family = if v4 { nix::sys::socket::AddressFamily::Inet } else { nix::sys::socket::AddressFamily::Inet6 };
    family as i32 as u8
}

/// A message of conntrack, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }
    fn buffer_len(&self) -> usize {
        self.body.len()
    }
    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..self.body.len()].copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;
    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> io::Result<Self> {
        Ok(Self { kind: header.message_type, body: payload.to_vec() })
    }
}

/// A netlink attribute.
struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
    /// With its header.
    whole: &'a [u8],
}

/// The attributes one after the other, up to the first that is none.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    /// NLA_F_NESTED and NLA_F_NET_BYTEORDER.
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let &[l0, l1, k0, k1, ..] = bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let whole = bytes.get(..length)?;
        let value = whole.get(4..)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind: u16::from_ne_bytes([k0, k1]) & !FLAGS, value, whole })
    })
}

/// Sources and destinations, of both directions.
fn addresses(body: &[u8]) -> Vec<IpAddr> {
    let tuples = attributes(body.get(HEADER..).unwrap_or_default());
    tuples
        .filter(|tuple| [TUPLE_ORIG, TUPLE_REPLY].contains(&tuple.kind))
        .flat_map(|tuple| attributes(tuple.value).filter(|part| part.kind == TUPLE_IP))
        .flat_map(|ip| attributes(ip.value))
        .filter_map(|address| {
            let v4 = <[u8; 4]>::try_from(address.value).map(|octets| Ipv4Addr::from(octets).into());
            v4.or_else(|_| <[u8; 16]>::try_from(address.value).map(|octets| Ipv6Addr::from(octets).into())).ok()
        })
        .collect()
}

/// What tells one connection from all others.
fn key(body: &[u8]) -> Vec<u8> {
    let (header, rest) = body.split_at(HEADER.min(body.len()));
    let mut key = header.to_vec();
    for attribute in attributes(rest).filter(|a| [TUPLE_ORIG, ID, ZONE].contains(&a.kind)) {
        key.extend_from_slice(attribute.whole);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(0u8..20, 0..64)) {
            addresses(&bytes);
            key(&bytes);
        }
    }
}
