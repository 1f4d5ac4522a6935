//! Where an instance lives on its host: the fixed paths, all below one root.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The places of one instance. Several live on one machine side by side, each below its own root.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    instance: String,
}

impl Host {
    /// The instance below `root`. Cgroups, links and packet filter tables carry its name: `rast` for `/`, else
    /// `rast-` and four digits that the root decides.
    pub fn below(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let instance = match root.parent() {
            None => "rast".to_owned(),
            Some(_) => format!("rast-{}", &hex::encode(Sha256::digest(root.as_os_str().as_encoded_bytes()))[..4]),
        };
        Self { root, instance }
    }

    /// The instance's name.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// `/etc/rastos`.
    pub fn etc(&self) -> PathBuf {
        self.root.join("etc/rastos")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.etc().join("kubeconfig.yaml")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.etc().join("config.yaml")
    }

    /// What outlives a reboot.
    pub fn state(&self) -> PathBuf {
        self.root.join("var/lib/rastos")
    }

    /// What a reboot ends: sockets, locks, namespaces.
    pub fn run(&self) -> PathBuf {
        self.root.join("run/rastos")
    }

    /// The containers' logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("var/log/pods")
    }

    /// The audit log's directory.
    pub fn audit(&self) -> PathBuf {
        self.root.join("var/log/rastos")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_root_has_the_fixed_paths() {
        let host = Host::below(Path::new("/"));
        assert_eq!(host.kubeconfig(), Path::new("/etc/rastos/kubeconfig.yaml"));
        assert_eq!(host.instance(), "rast");
    }

    #[test]
    fn two_roots_are_two_instances() {
        assert_ne!(Host::below(Path::new("/a")).instance(), Host::below(Path::new("/b")).instance());
    }
}
