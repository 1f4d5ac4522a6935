//! The client's port on one card: plain UDP, for answers come to all.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket,
    sockopt::{BindToDevice, Broadcast, ReuseAddr},
};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;

/// The port.
pub struct Port(UdpSocket);

impl Port {
    /// Opens it on the card of that name; other cards have their own.
    pub fn open(card: &str) -> io::Result<Self> {
        let socket: OwnedFd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, ReuseAddr, &true)?;
        setsockopt(&socket, Broadcast, &true)?;
        setsockopt(&socket, BindToDevice, &OsString::from(card))?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(0, 0, 0, 0, CLIENT))?;
        Ok(Self(UdpSocket::from(socket)))
    }

    /// Sends to a server, or to all.
    pub fn send(&self, message: &[u8], to: Option<Ipv4Addr>) -> io::Result<()> {
        self.0.send_to(message, SocketAddrV4::new(to.unwrap_or(Ipv4Addr::BROADCAST), SERVER)).map(drop)
    }

    /// A message, if one comes in time.
    pub fn receive(&self, into: &mut [u8], at_most: Duration) -> io::Result<Option<usize>> {
        self.0.set_read_timeout(Some(at_most.max(Duration::from_millis(1))))?;
        match self.0.recv(into) {
            Ok(length) => Ok(Some(length)),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(e) if e.raw_os_error() == Some(nix::errno::Errno::ENETDOWN as i32) => Ok(None),
            Err(e) => Err(e),
        }
    }
}
