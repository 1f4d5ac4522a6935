//! `rast init`: PID 1 of rastOS's own image.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use api::rastos::MachineConfig;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, Stream,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};

use crate::{
    exit::{Exit, Failure},
    host::Host,
    settings::{Machine, Settings},
};

/// Runs the machine, for as long as it runs.
pub fn run() -> Result<()> {
    if std::process::id() != 1 {
        return Err(Failure::new(Exit::Usage, "rast init is the first process of a machine; run rast up").into());
    }
    match os::init::run(Box::new(Rast { host: Host::below(Path::new("/")) }))? {}
}

/// This program as PID 1 sees it.
struct Rast {
    host: Host,
}

impl os::init::Node for Rast {
    fn version(&self) -> String {
        let kernel = rustix::system::uname();
        format!("rastOS {}, Linux {}", env!("CARGO_PKG_VERSION"), kernel.release().to_string_lossy())
    }

    fn configure(&self, config: &MachineConfig) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&settings(config))?;
        fs::create_dir_all(self.host.etc())?;
        fs::write(self.host.config(), text)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("machine");
        command
    }

    fn health(&self) -> Result<(), String> {
        let ca = self.ca().ok_or("it has no certificate yet")?;
        let answer = ask(&ca, self.port()).map_err(|e| e.to_string())?;
        match answer.split(' ').nth(1) {
            Some("200") => Ok(()),
            _ => Err(answer.lines().next().unwrap_or_default().to_owned()),
        }
    }

    fn authority(&self) -> Option<String> {
        Some(hex::encode(Sha256::digest(self.ca()?)))
    }

    fn port(&self) -> u16 {
        Settings::default().api_port
    }
}

impl Rast {
    /// The authority's certificate. Its key lies behind it in the same file.
    fn ca(&self) -> Option<CertificateDer<'static>> {
        let text = fs::read(self.host.state().join("pki/ca.pem")).ok()?;
        CertificateDer::from_pem_slice(&text).ok()
    }
}

/// What an instance is told on a machine of this configuration.
fn settings(config: &MachineConfig) -> Settings {
    let (name, spec) = (&config.metadata.name, &config.spec);
    let cluster = spec.cluster.as_ref().map_or(name, |cluster| &cluster.name);
    let api = format!("api.{cluster}.rastos.internal");
    let plain = spec.images.mirrors.iter().filter_map(|m| m.endpoint.strip_prefix("http://"));
    Settings {
        node_name: Some(name.clone()),
        plain_http_registries: plain.map(str::to_owned).collect(),
        mirrors: spec.images.mirrors.clone(),
        registry_ca: spec.images.ca.clone(),
        machine: Some(Machine {
            names: [api].into_iter().chain(spec.api.names.iter().cloned()).collect(),
            addresses: spec.api.addresses.clone(),
            enrol: spec.enrol.keys.clone(),
        }),
        ..Settings::default()
    }
}

/// Asks the API whether it is still ready, over TLS, as any client would.
fn ask(ca: &CertificateDer<'static>, port: u16) -> io::Result<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut tcp = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(io::Error::other)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    let mut stream = Stream::new(&mut tls, &mut tcp);
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 512];
    let length = stream.read(&mut head)?;
    Ok(String::from_utf8_lossy(&head[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_is_told_what_the_machine_was() {
        let config = MachineConfig::read(
            "apiVersion: rastos.io/v1alpha1\nkind: MachineConfig\nmetadata: {name: one-0}\nspec:\n  cluster: {name: one, \
             uid: 6d7c1a52-6f0e-4f0d-9d0c-1d9d4f1c2b3a}\n  api: {addresses: [172.24.4.9]}\n  images:\n    \
             mirrors: [{registry: docker.io, endpoint: 'http://10.0.0.1:5000'}]\n",
        );
        let settings = settings(&config.unwrap());
        let text = serde_json::to_string_pretty(&settings).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        fs::write(&file, &text).unwrap();
        let read = Settings::read(&file).unwrap();
        assert_eq!(read.machine, settings.machine);
        assert_eq!(read.machine.unwrap().names, ["api.one.rastos.internal"]);
        assert_eq!((read.node_name.as_deref(), read.mirrors.len()), (Some("one-0"), 1));
        assert_eq!(read.plain_http_registries, ["10.0.0.1:5000"]);
    }
}
