//! DHCP messages (RFC 2131, 2132; classless routes of RFC 3442).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::lease::{Lease, Way};

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const HEADER: usize = 236;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// A client asks for an address, or for more time.
    Request = 3,
    /// The server says yes.
    Ack = 5,
    /// The server says no.
    Nak = 6,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// What for.
    pub kind: Kind,
    /// The number that the answer will carry.
    pub transaction: u32,
    /// The card's hardware address.
    pub mac: [u8; 6],
    /// The machine's name, for the server's records.
    pub host: &'a str,
    /// Our address, once we have one.
    pub own: Option<Ipv4Addr>,
    /// The address we would like, when we have not.
    pub wanted: Option<Ipv4Addr>,
    /// The server that we answer.
    pub server: Option<Ipv4Addr>,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What for.
    pub kind: Kind,
    /// The question's number.
    pub transaction: u32,
    /// Whom it is for.
    pub mac: [u8; 6],
    /// What it gives.
    pub lease: Lease,
}

/// Options by their numbers.
mod option {
    pub const MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST: u8 = 12;
    pub const MTU: u8 = 26;
    pub const WANTED: u8 = 50;
    pub const LEASE: u8 = 51;
    pub const KIND: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const LIST: u8 = 55;
    pub const RENEW: u8 = 58;
    pub const REBIND: u8 = 59;
    pub const CLIENT: u8 = 61;
    pub const ROUTES: u8 = 121;
}

impl Question<'_> {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[1, 1, 6]); // a request, over Ethernet
        bytes[4..8].copy_from_slice(&self.transaction.to_be_bytes());
        match self.own {
            Some(own) => bytes[12..16].copy_from_slice(&own.octets()),
            None => bytes[10] = 0x80, // answer to all: without an address we hear nothing else
        }
        bytes[28..34].copy_from_slice(&self.mac);
        bytes.extend_from_slice(&MAGIC);
        let mut put = |number: u8, value: &[u8]| {
            bytes.extend_from_slice(&[number, value.len() as u8]);
            bytes.extend_from_slice(value);
        };
        put(option::KIND, &[self.kind as u8]);
        put(option::CLIENT, &[&[1], self.mac.as_slice()].concat());
        if let Some(wanted) = self.wanted {
            put(option::WANTED, &wanted.octets());
        }
        if let Some(server) = self.server {
            put(option::SERVER, &server.octets());
        }
        if !self.host.is_empty() {
            put(option::HOST, &self.host.as_bytes()[..self.host.len().min(63)]);
        }
        use option::{DNS, LEASE, MASK, MTU, REBIND, RENEW, ROUTER, ROUTES};
        put(option::LIST, &[MASK, ROUTES, ROUTER, DNS, MTU, LEASE, RENEW, REBIND]);
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0); // the least that old relays pass on
        bytes
    }
}

impl Answer {
    /// Reads a message; `None` for what is no answer of a server.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..HEADER)?;
        let options = bytes.get(HEADER..)?.strip_prefix(&MAGIC)?;
        if header[..3] != [2, 1, 6] {
            return None;
        }
        let kind = match *of(options, option::KIND).first()? {
            2 => Kind::Offer,
            5 => Kind::Ack,
            6 => Kind::Nak,
            _ => return None,
        };
        let seconds = |number| of(options, number).try_into().ok().map(u32::from_be_bytes);
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?);
        let mask = addresses(&of(options, option::MASK)).next().unwrap_or(Ipv4Addr::BROADCAST);
        let network = Ipv4Net::with_netmask(address, mask).or_else(|_| Ipv4Net::new(address, 32)).ok()?;
        let routes = of(options, option::ROUTES);
        let ways = match routes.is_empty() {
            // A server that sends both means the first alone (RFC 3442).
            false => classless(&routes),
            true => {
                addresses(&of(options, option::ROUTER)).take(1).map(|via| Way { to: Ipv4Net::default(), via }).collect()
            }
        };
        Some(Self {
            kind,
            transaction: u32::from_be_bytes(header[4..8].try_into().ok()?),
            mac: header[28..34].try_into().ok()?,
            lease: Lease {
                network,
                server: addresses(&of(options, option::SERVER)).next(),
                ways,
                dns: addresses(&of(options, option::DNS)).collect(),
                mtu: of(options, option::MTU).try_into().ok().map(u16::from_be_bytes).filter(|mtu| *mtu >= 576),
                seconds: seconds(option::LEASE).unwrap_or(3600),
                renew: seconds(option::RENEW),
                rebind: seconds(option::REBIND),
            },
        })
    }
}

/// An option's value: all its parts, one behind the other (RFC 3396).
fn of(options: &[u8], wanted: u8) -> Vec<u8> {
    let (mut value, mut rest) = (Vec::new(), options);
    while let [number, tail @ ..] = rest {
        match (number, tail) {
            (0, _) => rest = tail,
            (255, _) => break,
            (_, [length, tail @ ..]) if tail.len() >= usize::from(*length) => {
                let (part, tail) = tail.split_at(usize::from(*length));
                if *number == wanted {
                    value.extend_from_slice(part);
                }
                rest = tail;
            }
            _ => break,
        }
    }
    value
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    value.as_chunks::<4>().0.iter().map(|four| Ipv4Addr::from(*four)).collect::<Vec<_>>().into_iter()
}

/// Pairs of a network, as short as its prefix lets it be, and a router.
fn classless(mut rest: &[u8]) -> Vec<Way> {
    let mut ways = Vec::new();
    while let [length @ 0..=32, tail @ ..] = rest {
        let significant = usize::from(length.div_ceil(8));
        let Some((to, tail)) = tail.split_at_checked(significant) else { break };
        let Some((via, tail)) = tail.split_first_chunk::<4>() else { break };
        let mut four = [0; 4];
        four[..significant].copy_from_slice(to);
        if let Ok(to) = Ipv4Net::new(four.into(), *length) {
            ways.push(Way { to: to.trunc(), via: (*via).into() });
        }
        rest = tail;
    }
    ways
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A server's answer to a question.
    pub fn answer(question: &[u8], kind: Kind, options: &[u8]) -> Vec<u8> {
        let mut bytes = question[..HEADER].to_vec();
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[option::KIND, 1, kind as u8]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        bytes
    }

    fn question() -> Question<'static> {
        Question {
            kind: Kind::Discover,
            transaction: 0xdead_beef,
            mac: [2, 0, 0, 0, 0, 1],
            host: "one",
            own: None,
            wanted: None,
            server: None,
        }
    }

    #[test]
    fn what_a_server_gives() {
        let options = [
            [1, 4, 255, 255, 255, 0].as_slice(),
            &[3, 4, 10, 0, 0, 1],
            &[6, 4, 10, 0, 0, 2],
            &[6, 4, 10, 0, 0, 3], // a value in two parts
            &[26, 2, 5, 170],
            &[51, 4, 0, 0, 14, 16],
            &[54, 4, 10, 0, 0, 254],
        ]
        .concat();
        let got = Answer::decode(&answer(&question().encode(), Kind::Offer, &options)).unwrap();
        assert_eq!((got.kind, got.transaction, got.mac), (Kind::Offer, 0xdead_beef, [2, 0, 0, 0, 0, 1]));
        assert_eq!(got.lease.network, "10.0.0.9/24".parse().unwrap());
        assert_eq!(got.lease.dns, ["10.0.0.2".parse::<Ipv4Addr>().unwrap(), "10.0.0.3".parse().unwrap()]);
        assert_eq!((got.lease.mtu, got.lease.seconds), (Some(1450), 3600));
        assert_eq!(got.lease.ways, [Way { to: Ipv4Net::default(), via: "10.0.0.1".parse().unwrap() }]);
    }

    #[test]
    fn classless_routes_come_before_the_router() {
        let routes = [121, 14, 32, 169, 254, 169, 254, 10, 0, 0, 2, 0, 10, 0, 0, 1];
        let options = [&[3, 4, 10, 0, 0, 7], routes.as_slice()].concat();
        let got = Answer::decode(&answer(&question().encode(), Kind::Ack, &options)).unwrap();
        let way = |to: &str, via: &str| Way { to: to.parse().unwrap(), via: via.parse().unwrap() };
        assert_eq!(got.lease.ways, [way("169.254.169.254/32", "10.0.0.2"), way("0.0.0.0/0", "10.0.0.1")]);
    }

    #[test]
    fn a_client_s_own_words_are_no_answer() {
        assert_eq!(Answer::decode(&question().encode()), None);
        assert_eq!(question().encode()[10] & 0x80, 0x80);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, options: Vec<u8>) {
            Answer::decode(&bytes);
            Answer::decode(&answer(&question().encode(), Kind::Ack, &options));
        }
    }
}
