//! What outlives machines: a volume, an administrator's key, a port to be reached by.

use std::{
    fs::File,
    net::TcpListener,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Admin, Client, Disk, Machine, Parts, eventually, machine::image, pods::container, registry};

/// What a machine says when its API answers.
pub const READY: &str = "rastos: API ready at ";
/// The volume's serial.
pub const SERIAL: &str = "3f0c9a4e-77f1-4d2b-9";
/// The size of the state's blocks.
const BLOCK: u64 = 4096;
/// The uid of the cluster whose state the volume holds.
pub const CLUSTER: &str = "6d7c1a52-6f0e-4f0d-9d0c-1d9d4f1c2b3a";

/// What outlives machines: a volume, an administrator's key, a port to be reached by.
pub struct Place {
    /// For what belongs to it.
    pub dir: TempDir,
    /// Its administrator.
    pub admin: Admin,
    /// The port of loopback that leads to the API.
    pub port: u16,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// A place with a blank volume.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rast-place-").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        let place = Self { dir, admin: Admin::new(), port };
        place.volume_of(2 << 30);
        place
    }

    /// A blank volume instead of the one there is.
    pub fn volume_of(&self, bytes: u64) {
        File::create(self.volume()).unwrap().set_len(bytes).unwrap();
    }

    /// The volume's file.
    pub fn volume(&self) -> PathBuf {
        self.dir.path().join("volume")
    }

    /// The machine's configuration.
    pub fn config(&self) -> String {
        format!(
            "apiVersion: rastos.io/v1alpha1\nkind: MachineConfig\nmetadata: {{name: one}}\nspec:\n  \
             cluster: {{name: shop, uid: {CLUSTER}}}\n  state: {{serial: {SERIAL}}}\n  enrol: {{keys: [{}]}}\n  \
             images:\n    mirrors: [{{registry: '{}', endpoint: 'http://10.0.2.100:5000'}}]\n",
            self.admin.hash,
            registry()
        )
    }

    /// Turns over one bit of the volume.
    pub fn flip(&self, at: u64) {
        let volume = File::options().read(true).write(true).open(self.volume()).unwrap();
        let mut byte = [0];
        volume.read_exact_at(&mut byte, at).unwrap();
        volume.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }

    /// Where the inode of a file of the volume lies: `located at block B, offset 0xO`.
    pub fn inode(&self, path: &str) -> u64 {
        let said = self.debugfs(&format!("imap {path}"));
        let (_, at) = said.split_once("located at block ").expect(&said);
        let (block, offset) = at.trim().split_once(", offset 0x").expect(&said);
        block.parse::<u64>().unwrap() * BLOCK + u64::from_str_radix(offset, 16).unwrap()
    }

    /// Where a block of a file of the volume lies.
    pub fn block_of(&self, path: &str, number: u64) -> u64 {
        let said = self.debugfs(&format!("bmap {path} {number}"));
        said.trim().parse::<u64>().expect(&said) * BLOCK
    }

    fn debugfs(&self, request: &str) -> String {
        let asked = Command::new("debugfs").args(["-R", request]).arg(self.volume()).output();
        String::from_utf8(asked.expect("debugfs of e2fsprogs").stdout).unwrap()
    }

    /// A machine that reads its configuration on the kernel's command line, with the volume and the registry.
    pub fn machine(&self) -> Parts {
        self.machine_on(&self.volume())
    }

    /// The same with the volume behind a write cache, part of which is lost with the power.
    pub fn machine_behind_a_cache(&self) -> (Parts, Disk) {
        let disk = Disk::serve(&self.volume(), self.dir.path().join("disk"));
        (self.machine_on(&disk.url()), disk)
    }

    fn machine_on(&self, volume: &Path) -> Parts {
        let port = registry().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT");
        let word = format!("rastos.config={}", BASE64_STANDARD.encode(self.config()));
        let parts = Parts::direct(&image(), &word).volume(volume, SERIAL).memory(512);
        parts.forward(self.port, 6443).serve(5000, port)
    }

    /// Waits for the API, and becomes its administrator.
    pub fn enrol(&self, machine: &mut Machine) -> Client {
        let line = machine.says("rastos: CA sha256 ");
        machine.says(READY);
        self.admit(line.rsplit(' ').next().unwrap())
    }

    /// Becomes administrator of the machine whose API answers and whose authority has that fingerprint.
    pub fn admit(&self, authority: &str) -> Client {
        self.client(&self.admin.enrol(self.port, "shop", authority))
    }

    /// A client of the machine.
    pub fn client(&self, kubeconfig: &Path) -> Client {
        Client::new("kubectl-1.36").arg("--kubeconfig").arg(kubeconfig.to_string_lossy())
    }
}

/// Waits until a pod is ready; gives it.
#[track_caller]
pub fn ready(kubectl: &Client, name: &str) -> Value {
    eventually(&format!("{name} is ready"), || {
        let answer = kubectl.run(&["get", "pod", name, "-o", "json"]);
        let pod: Value = serde_json::from_str(&answer.out).map_err(|_| answer.err.clone())?;
        if container(&pod)["ready"] == true { Ok(pod) } else { Err(pod["status"].to_string()) }
    })
}
