//! Frames with descriptors over a unix stream socket.
//!
//! A frame is two little-endian `u32`, the length of its body and how many descriptors travel with it,
//! then the body. The descriptors are attached (SCM_RIGHTS) to the frame's first byte.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

/// No frame is longer.
pub const MAX_FRAME: usize = 64 << 20;
/// No frame carries more descriptors.
pub const MAX_FDS: usize = 16;
const HEADER: usize = 8;

/// A received frame.
pub type Frame = (Vec<u8>, Vec<OwnedFd>);

/// Takes frames out of what a socket delivers.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Reads once without waiting; `Ok(0)` is the end of the stream.
    pub fn fill(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let got = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&chunk[..got.bytes]);
        Ok(got.bytes)
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// The peer broke the framing: the connection is of no further use.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        let Some((header, rest)) = self.bytes.split_at_checked(HEADER) else { return Ok(None) };
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (len, fds) = (word(0) as usize, word(4) as usize);
        if len > MAX_FRAME || fds > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too large"));
        }
        if rest.len() < len {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors missing"));
        }
        let body = rest[..len].to_vec();
        self.bytes.drain(..HEADER + len);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some((body, self.fds.drain(..fds).collect())))
    }
}

/// Frames that wait until the peer reads them.
#[derive(Default)]
pub struct Outbox {
    frames: VecDeque<(Vec<u8>, usize, Vec<OwnedFd>)>,
}

impl Outbox {
    /// Queues a frame.
    pub fn push(&mut self, body: &[u8], fds: Vec<OwnedFd>) {
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend((fds.len() as u32).to_le_bytes());
        bytes.extend(body);
        self.frames.push_back((bytes, 0, fds));
    }

    /// Whether all was sent.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.frames.iter().map(|(bytes, at, _)| bytes.len() - at).sum()
    }

    /// Sends what the socket takes without waiting.
    pub fn flush(&mut self, socket: impl AsFd) -> io::Result<()> {
        while let Some((bytes, at, fds)) = self.frames.front_mut() {
            let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes[*at..])], &mut ancillary, flags) {
                Ok(sent) => {
                    *at += sent;
                    fds.clear();
                    if *at == bytes.len() {
                        self.frames.pop_front();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_with_their_frame() {
        let (a, b) = UnixStream::pair().unwrap();
        let mut out = Outbox::default();
        out.push(b"none", vec![]);
        out.push(b"two", vec![a.try_clone().unwrap().into(), b.try_clone().unwrap().into()]);
        out.push(&vec![7; 100_000], vec![a.try_clone().unwrap().into()]);
        let mut inbox = Inbox::default();
        let mut frames = vec![];
        while frames.len() < 3 {
            out.flush(&a).unwrap();
            inbox.fill(&b).unwrap();
            while let Some((body, fds)) = inbox.next().unwrap() {
                frames.push((body.len(), fds.len()));
            }
        }
        assert_eq!(frames, [(4, 0), (3, 2), (100_000, 1)]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let mut inbox = Inbox { bytes, ..Default::default() };
            while let Ok(Some(_)) = inbox.next() {}
        }
    }
}
