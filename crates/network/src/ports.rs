//! Ports of the host: who holds which.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use crate::{Error, HostPort, Protocol, Request, Result};

/// Refuses ports that cannot be served.
pub fn check(ports: &[HostPort]) -> Result<()> {
    for (i, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("hostPorts[{i}].{name}");
        if port.host == 0 {
            return Err(Error::invalid(field("host"), "0 is not a port"));
        }
        if port.pod == 0 {
            return Err(Error::invalid(field("pod"), "0 is not a port"));
        }
        // Serving it would take route_localnet, which opens the host's own loopback listeners to its neighbours.
        if port.address.is_loopback() {
            return Err(Error::invalid(field("address"), "a loopback address is not served; use one of the node's"));
        }
    }
    Ok(())
}

/// Refuses ports that another of `requests`, the request itself or a process of this host holds.
pub fn free<'a>(request: &Request, requests: impl Iterator<Item = &'a Request>) -> Result<()> {
    let held: Vec<_> = requests.flat_map(|r| r.host_ports.iter().map(move |port| (r.id.as_str(), port))).collect();
    for (i, want) in request.host_ports.iter().enumerate() {
        let own = request.host_ports[..i].iter().map(|port| (request.id.as_str(), port));
        let taken = |holder: String| Error::PortTaken { port: want.host, protocol: want.protocol, holder };
        if let Some((id, _)) = held.iter().copied().chain(own).find(|(_, port)| clash(port, want)) {
            return Err(taken(format!("sandbox {id}")));
        }
        if let Some(process) = listener(want) {
            return Err(taken(process));
        }
    }
    Ok(())
}

fn clash(a: &HostPort, b: &HostPort) -> bool {
    let same_address = a.address == b.address || a.address.is_unspecified() || b.address.is_unspecified();
    a.host == b.host && a.protocol == b.protocol && same_address
}

/// The process that listens there, if one does: what binding it says, for nothing else knows as well.
fn listener(want: &HostPort) -> Option<String> {
    let at = SocketAddr::new(want.address, want.host);
    let bound = match want.protocol {
        Protocol::Tcp => TcpListener::bind(at).map(drop),
        Protocol::Udp => UdpSocket::bind(at).map(drop),
    };
    match bound {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Some(holder(want).unwrap_or("a process".to_owned())),
        _ => None,
    }
}

/// `name (pid n)` of the process behind a local port.
fn holder(want: &HostPort) -> Option<String> {
    let tables = match want.protocol {
        Protocol::Tcp => ["tcp", "tcp6"],
        Protocol::Udp => ["udp", "udp6"],
    };
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| text.lines().skip(1).filter_map(|line| local(line, want)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |process: &fs::DirEntry| {
        if process.file_name().to_string_lossy().parse::<u32>().is_err() {
            return false;
        }
        let Ok(open) = fs::read_dir(process.path().join("fd")) else { return false };
        open.flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    };
    let process = fs::read_dir("/proc").ok()?.flatten().find(holds)?;
    let name = fs::read_to_string(process.path().join("comm")).ok()?;
    Some(format!("{} (pid {})", name.trim_end(), process.file_name().display()))
}

/// The inode of a line of /proc/net/{tcp,udp}{,6} if its socket listens on the port.
fn local(line: &str, want: &HostPort) -> Option<String> {
    /// TCP_LISTEN; 07 (TCP_CLOSE) is how a bound UDP socket is shown.
    const LISTENING: [&str; 2] = ["0A", "07"];
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = fields.get(1)?.rsplit_once(':')?;
    let on = u16::from_str_radix(port, 16).ok()? == want.host && LISTENING.contains(fields.get(3)?);
    on.then(|| fields.get(9).map(ToString::to_string)).flatten()
}

/// Whether traffic for an address of the host's may go to this one of a pod's.
pub fn serves(port: &HostPort, pod: IpAddr) -> bool {
    port.address.is_unspecified() || port.address.is_ipv4() == pod.is_ipv4()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(address: &str, host: u16, protocol: Protocol) -> HostPort {
        HostPort { address: address.parse().unwrap(), host, pod: 80, protocol }
    }

    #[test]
    fn any_address_clashes_with_each() {
        let any = port("0.0.0.0", 80, Protocol::Tcp);
        assert!(clash(&any, &port("10.0.0.1", 80, Protocol::Tcp)));
        assert!(clash(&port("::1", 80, Protocol::Tcp), &any));
        assert!(!clash(&any, &port("0.0.0.0", 80, Protocol::Udp)));
        assert!(!clash(&port("10.0.0.1", 80, Protocol::Tcp), &port("10.0.0.2", 80, Protocol::Tcp)));
    }

    #[test]
    fn a_port_twice_in_one_request() {
        let twice = Request {
            id: "a".into(),
            netns: "/".into(),
            host_ports: vec![port("0.0.0.0", 17, Protocol::Udp), port("0.0.0.0", 17, Protocol::Udp)],
        };
        assert!(matches!(free(&twice, [].into_iter()), Err(Error::PortTaken { port: 17, .. })));
    }

    #[test]
    fn a_listening_process_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let want = port("127.0.0.1", listener.local_addr().unwrap().port(), Protocol::Tcp);
        let named = super::listener(&want).unwrap();
        assert!(named.ends_with(&format!("(pid {})", std::process::id())), "{named}");
        drop(listener);
        assert_eq!(super::listener(&want), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,80}") {
            local(&line, &port("0.0.0.0", 1, Protocol::Tcp));
        }
    }
}
