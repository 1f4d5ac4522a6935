//! The kernel's word on devices as they come and go: uevents, over netlink.

use std::{io, os::fd::OwnedFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with},
};

/// The kernel's own limit is 2 KiB.
const LONGEST: usize = 4096;

/// Everything that the kernel announces, from when this was opened.
pub struct Uevents(OwnedFd);

/// What was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Devices, among them those that ask for a driver by these modaliases.
    Devices(Vec<String>),
    /// More than could be kept: whoever wants to know must look for himself.
    Lost,
}

impl Uevents {
    /// Begins to listen.
    pub fn open() -> io::Result<Self> {
        let kind = Some(netlink::KOBJECT_UEVENT);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, kind)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, 1))?;
        Ok(Self(socket))
    }

    /// Waits for the next announcement, and takes all that there are. `None` when there is none for so long.
    pub fn wait(&self, at_most: Option<&Timespec>) -> io::Result<Option<News>> {
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], at_most) {
            Ok(0) => return Ok(None),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let (mut message, mut devices) = ([0; LONGEST], Vec::new());
        loop {
            match recv(&self.0, &mut message, RecvFlags::DONTWAIT) {
                Ok((length, _)) => devices.extend(modalias(&message[..length.min(LONGEST)])),
                Err(Errno::AGAIN) => return Ok(Some(News::Devices(devices))),
                Err(Errno::NOBUFS) => return Ok(Some(News::Lost)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// What the device of a message asks for: `add@/devices/…`, then `NAME=value`s, each ended by a zero byte.
fn modalias(message: &[u8]) -> Option<String> {
    let mut words = message.split(|byte| *byte == 0);
    words.next().filter(|head| head.starts_with(b"add@"))?;
    let alias = words.find_map(|word| word.strip_prefix(b"MODALIAS="))?;
    Some(String::from_utf8_lossy(alias).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_added_may_ask_for_a_driver() {
        let words = b"add@/devices/pci0\0ACTION=add\0MODALIAS=pci:v00001AF4\0SEQNUM=1\0";
        assert_eq!(modalias(words).as_deref(), Some("pci:v00001AF4"));
        assert_eq!(modalias(b"add@/devices/virtual/net/veth0\0ACTION=add\0"), None);
        assert_eq!(modalias(b"remove@/devices/pci0\0ACTION=remove\0MODALIAS=pci:v00001AF4\0"), None);
        assert_eq!(modalias(b""), None);
    }
}
