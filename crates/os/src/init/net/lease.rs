//! A DHCP client as a pure machine: what it hears and the time go in, what it says and has come out.

use std::{net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;

use super::message::{Answer, Kind, Question};

/// A route that a server gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where it leads.
    pub to: Ipv4Net,
    /// By which router.
    pub via: Ipv4Addr,
}

/// What a server gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address and its network.
    pub network: Ipv4Net,
    /// Who gave it.
    pub server: Option<Ipv4Addr>,
    /// Routes.
    pub ways: Vec<Way>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The network's largest packet.
    pub mtu: Option<u16>,
    /// How long it is ours.
    pub seconds: u32,
    /// When to ask its server for more time.
    pub renew: Option<u32>,
    /// When to ask any server.
    pub rebind: Option<u32>,
}

impl Lease {
    fn renew(&self) -> Duration {
        Duration::from_secs(self.renew.filter(|s| *s < self.seconds).unwrap_or(self.seconds / 2).max(30).into())
    }

    fn rebind(&self) -> Duration {
        let usual = u64::from(self.seconds) * 7 / 8;
        let given = self.rebind.filter(|s| *s < self.seconds).map_or(usual, u64::from);
        Duration::from_secs(given).max(self.renew())
    }

    fn end(&self) -> Duration {
        Duration::from_secs(self.seconds.into()).max(self.rebind())
    }
}

/// To whom a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// Whoever listens.
    All,
    /// The server of our lease.
    Server(Ipv4Addr),
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// A message to send.
    pub send: Option<(To, Vec<u8>)>,
    /// The lease has begun, has changed (`Some`), or has ended (`None`).
    pub lease: Option<Option<Lease>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Looking,
    Asking { offer: Lease, tries: u32 },
    Bound { lease: Lease, since: Duration },
}

/// A client on one card. Times count from any fixed moment.
#[derive(Clone, Debug)]
pub struct Client {
    mac: [u8; 6],
    host: String,
    transaction: u32,
    state: State,
    next: Duration,
    tries: u32,
}

/// The waits between tries: short at first, for a switch or a cloud's agent may just not be ready yet.
fn patience(tries: u32) -> Duration {
    Duration::from_secs(1 << tries.min(4))
}

const ASKS: u32 = 4;
const LEAST: Duration = Duration::from_secs(30);

impl Client {
    /// A client that begins to look at once.
    pub fn new(mac: [u8; 6], host: &str, seed: u32) -> Self {
        let (state, next) = (State::Looking, Duration::ZERO);
        Self { mac, host: host.to_owned(), transaction: seed, state, next, tries: 0 }
    }

    /// When [`Client::time`] is to be called next.
    pub fn next(&self) -> Duration {
        self.next
    }

    /// The time has come for something.
    pub fn time(&mut self, now: Duration) -> Turn {
        if now < self.next {
            return Turn::default();
        }
        match self.state.clone() {
            State::Looking => self.look(now),
            State::Asking { tries, .. } if tries >= ASKS => self.look(now),
            State::Asking { offer, tries } => self.ask(now, offer, tries),
            State::Bound { lease, since } => self.keep(now, &lease, since),
        }
    }

    /// A message has come in.
    pub fn heard(&mut self, now: Duration, bytes: &[u8]) -> Turn {
        let answer = Answer::decode(bytes);
        let Some(answer) = answer.filter(|a| a.transaction == self.transaction && a.mac == self.mac) else {
            return Turn::default();
        };
        match (self.state.clone(), answer.kind) {
            (State::Looking, Kind::Offer) if usable(&answer.lease) => self.ask(now, answer.lease, 0),
            (State::Asking { .. } | State::Bound { .. }, Kind::Ack) if usable(&answer.lease) => {
                let known = match &self.state {
                    State::Bound { lease, .. } => Some(lease.clone()),
                    _ => None,
                };
                self.next = now + answer.lease.renew();
                self.state = State::Bound { lease: answer.lease.clone(), since: now };
                let news = known.as_ref() != Some(&answer.lease);
                Turn { lease: news.then_some(Some(answer.lease)), send: None }
            }
            (State::Bound { .. }, Kind::Nak) => Turn { lease: Some(None), ..self.look(now) },
            (State::Asking { .. }, Kind::Nak) => self.look(now),
            _ => Turn::default(),
        }
    }

    fn look(&mut self, now: Duration) -> Turn {
        self.tries = if self.state == State::Looking { self.tries + 1 } else { 0 };
        self.state = State::Looking;
        self.transaction = self.transaction.wrapping_add(0x9e37_79b9);
        self.next = now + patience(self.tries);
        Turn { send: Some((To::All, self.question(Kind::Discover, None, None, None))), lease: None }
    }

    fn ask(&mut self, now: Duration, offer: Lease, tries: u32) -> Turn {
        self.next = now + patience(tries);
        let question = self.question(Kind::Request, None, Some(offer.network.addr()), offer.server);
        self.state = State::Asking { offer, tries: tries + 1 };
        Turn { send: Some((To::All, question)), lease: None }
    }

    /// Asks for more time: its server first, then any, until it is over.
    fn keep(&mut self, now: Duration, lease: &Lease, since: Duration) -> Turn {
        let age = now.saturating_sub(since);
        if age >= lease.end() {
            return Turn { lease: Some(None), ..self.look(now) };
        }
        let (to, until) = match lease.server {
            Some(server) if age < lease.rebind() => (To::Server(server), lease.rebind()),
            _ => (To::All, lease.end()),
        };
        // Half of what is left, as RFC 2131 (4.4.5) wants it.
        self.next = (now + ((until - age) / 2).max(LEAST)).min(since + lease.end());
        self.transaction = self.transaction.wrapping_add(0x9e37_79b9);
        let question = self.question(Kind::Request, Some(lease.network.addr()), None, None);
        Turn { send: Some((to, question)), lease: None }
    }

    fn question(
        &self,
        kind: Kind,
        own: Option<Ipv4Addr>,
        wanted: Option<Ipv4Addr>,
        server: Option<Ipv4Addr>,
    ) -> Vec<u8> {
        Question { kind, transaction: self.transaction, mac: self.mac, host: &self.host, own, wanted, server }.encode()
    }
}

/// A server may be wrong about what an address is.
fn usable(lease: &Lease) -> bool {
    let ip = lease.network.addr();
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast()
}

/// Servers that say these messages to a client, 512 bytes each, made to be for it.
#[cfg(fuzzing)]
pub fn converse(bytes: &[u8]) {
    let mut client = Client::new([2; 6], "fuzz", 1);
    for message in bytes.chunks(512) {
        let mut message = message.to_vec();
        if let Some([_, mac @ ..]) = message.get_mut(27..34) {
            mac.copy_from_slice(&client.mac);
            message[4..8].copy_from_slice(&client.transaction.to_be_bytes());
        }
        let now = client.next();
        client.time(now);
        client.heard(now, &message);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message::tests::answer, *};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SERVER: [u8; 12] = [54, 4, 10, 0, 0, 254, 51, 4, 0, 0, 14, 16];

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn sent(turn: &Turn) -> &[u8] {
        &turn.send.as_ref().unwrap().1
    }

    fn bound() -> (Client, Lease) {
        let mut client = Client::new(MAC, "one", 7);
        let discover = client.time(seconds(0));
        let request = client.heard(seconds(0), &answer(sent(&discover), Kind::Offer, &SERVER));
        let ack = client.heard(seconds(0), &answer(sent(&request), Kind::Ack, &SERVER));
        (client, ack.lease.unwrap().unwrap())
    }

    #[test]
    fn an_offer_is_asked_for_and_kept() {
        let (mut client, lease) = bound();
        assert_eq!(lease.network.addr(), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(client.next(), seconds(1800));
        let renew = client.time(seconds(1800));
        assert_eq!(renew.send.as_ref().unwrap().0, To::Server(Ipv4Addr::new(10, 0, 0, 254)));
        let again = client.heard(seconds(1801), &answer(sent(&renew), Kind::Ack, &SERVER));
        assert_eq!((again.lease, client.next()), (None, seconds(1801 + 1800)));
    }

    #[test]
    fn a_silent_server_is_waited_for() {
        let mut client = Client::new(MAC, "", 7);
        let mut now = seconds(0);
        for _ in 0..100 {
            assert_eq!(client.time(now).send.unwrap().0, To::All);
            assert!(client.next() > now && client.next() <= now + seconds(16));
            now = client.next();
        }
        let discover = client.time(client.next());
        assert!(client.heard(now, &answer(sent(&discover), Kind::Offer, &SERVER)).send.is_some());
    }

    #[test]
    fn a_lease_that_nobody_renews_ends() {
        let (mut client, _) = bound();
        let mut ended = false;
        let mut all = false;
        while !ended {
            let turn = client.time(client.next());
            all |= turn.send.as_ref().is_some_and(|(to, _)| *to == To::All) && turn.lease.is_none();
            ended = turn.lease == Some(None);
        }
        assert!(all, "any server was asked before the end");
        assert!(client.next() >= seconds(3600) && client.next() <= seconds(3602), "{:?}", client.next());
    }

    #[test]
    fn a_refusal_ends_it_at_once() {
        let (mut client, _) = bound();
        let renew = client.time(client.next());
        let turn = client.heard(seconds(1801), &answer(sent(&renew), Kind::Nak, &[]));
        assert!(turn.lease == Some(None) && turn.send.is_some());
    }

    #[test]
    fn another_s_answer_is_not_ours() {
        let mut client = Client::new(MAC, "", 7);
        let discover = client.time(seconds(0));
        let mut other = answer(sent(&discover), Kind::Offer, &SERVER);
        other[28] = 9;
        assert_eq!(client.heard(seconds(0), &other), Turn::default());
    }

    proptest::proptest! {
        /// Whatever a server says and whenever: the client goes on, and never later than a lease may last.
        #[test]
        fn it_always_goes_on(steps in proptest::collection::vec((0u64..100_000, 0u8..4, proptest::collection::vec(0u8.., 0..40)), 0..60)) {
            let mut client = Client::new(MAC, "x", 1);
            let (mut now, mut last) = (seconds(0), client.time(seconds(0)));
            for (pass, kind, options) in steps {
                now += seconds(pass);
                let kind = [Kind::Offer, Kind::Ack, Kind::Nak, Kind::Ack][usize::from(kind)];
                if let Some((_, bytes)) = last.send.clone() {
                    client.heard(now, &answer(&bytes, kind, &options));
                }
                let turn = client.time(now);
                if turn.send.is_some() {
                    last = turn;
                }
                proptest::prop_assert!(client.next() > now);
            }
        }
    }
}
