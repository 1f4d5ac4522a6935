//! Netlink, as little as needed: a batch of requests in one write, an answer to each.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    thread,
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

/// A netlink socket of the network namespace it was opened in. The kernel answers before `send` returns, so that
/// nothing here waits for anyone but the kernel's own locks.
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// A socket for links, addresses, routes and neighbours.
    pub fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for connection tracking.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends all requests, each with its flags besides REQUEST and ACK; one result for each, in their order. A
    /// request is carried out even if one before it failed.
    pub fn batch<M>(&mut self, requests: Vec<(u16, M)>) -> io::Result<Vec<io::Result<()>>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let first = self.sequence + 1;
        let mut results: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        let mut bytes = Vec::new();
        for (flags, message) in requests {
            append(&mut bytes, NLM_F_REQUEST | NLM_F_ACK | flags, self.next(), message);
        }
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        while results.iter().any(Option::is_none) {
            self.receive(|message: NetlinkMessage<M>| {
                let at = message.header.sequence_number.wrapping_sub(first) as usize;
                if let (NetlinkPayload::Error(answer), Some(slot)) = (message.payload, results.get_mut(at)) {
                    *slot = Some(match answer.code {
                        None => Ok(()),
                        Some(_) => Err(answer.to_io()),
                    });
                }
            })?;
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// Sends a request with NLM_F_DUMP and hands over what comes back.
    pub fn dump<M>(&mut self, flags: u16, request: M, mut each: impl FnMut(M)) -> io::Result<()>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let sequence = self.next();
        let mut bytes = Vec::new();
        append(&mut bytes, NLM_F_REQUEST | flags, sequence, request);
        send(self.fd.as_raw_fd(), &bytes, MsgFlags::empty())?;
        let mut end = None;
        while end.is_none() {
            self.receive(|message: NetlinkMessage<M>| match message.payload {
                _ if message.header.sequence_number != sequence => {}
                NetlinkPayload::InnerMessage(inner) => each(inner),
                NetlinkPayload::Done(_) => end = Some(Ok(())),
                NetlinkPayload::Error(answer) => end = Some(answer.code.map_or(Ok(()), |_| Err(answer.to_io()))),
                _ => {}
            })?;
        }
        end.unwrap_or(Ok(()))
    }

    fn next(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn receive<M: NetlinkDeserializable>(&self, mut each: impl FnMut(NetlinkMessage<M>)) -> io::Result<()> {
        // The kernel fills at most 32 KiB at a time.
        let mut buffer = vec![0; 32 << 10];
        let length = loop {
            match recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to four bytes.
            let taken = (message.header.length as usize).next_multiple_of(4).max(4);
            each(message);
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(())
    }
}

fn append<M: NetlinkSerializable>(bytes: &mut Vec<u8>, flags: u16, sequence: u32, message: M) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
    message.serialize(&mut bytes[start..]);
}

/// Runs `work` in another network namespace, on a thread of its own that ends with it: a thread of a pool that could
/// not return to its own namespace would do its next work in the wrong one.
pub fn within<T: Send>(netns: &File, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let entered = move || {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, entered)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}
