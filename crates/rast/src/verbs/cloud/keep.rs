//! What this machine keeps of clusters: keys, certificates and kubeconfigs, for their owner alone.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use api::rastos::cluster::name_rule;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use cloud::{
    Mark,
    enrol::{Admission, Key, api_name},
};
use serde_json::{Value, json};

use crate::{
    cli::Context,
    exit::{Exit, Failure},
};

/// The place of one cluster: `$XDG_CONFIG_HOME/rastos/NAME`. Names come back, uids do not: keys are kept by uid.
pub struct Keep {
    dir: PathBuf,
    mark: Mark,
}

impl Keep {
    /// The place of this cluster.
    pub fn of(mark: &Mark) -> Result<Self> {
        // The mark comes from tags in the project, and becomes part of paths.
        if name_rule(&mark.name).is_some() || uuid::Uuid::try_parse(&mark.uid).is_err() {
            let message = format!("the stacks' tags name no cluster of rastOS ({:?}, uid {:?})", mark.name, mark.uid);
            return Err(Failure::new(Exit::Invalid, message).into());
        }
        Ok(Self { dir: dir(&mark.name)?, mark: mark.clone() })
    }

    /// The key of this cluster: the one that was made for it before, or a new one. It is on disk before anybody
    /// hears of it.
    pub fn key(&self) -> Result<Key> {
        let path = self.file("key");
        if let Some(pem) = text(&path)? {
            return Key::from_pem(&pem).with_context(|| format!("{} holds no key", path.display()));
        }
        let key = Key::new()?;
        private(&path, &key.pem())?;
        Ok(key)
    }

    /// The certificate that was got before.
    pub fn admission(&self) -> Result<Option<Admission>> {
        Ok(text(&self.file("certificate"))?.and_then(|t| serde_json::from_str(&t).ok()))
    }

    /// Keeps a certificate.
    pub fn admit(&self, admission: &Admission) -> Result<()> {
        let both = json!({"certificate": admission.certificate, "ca": admission.ca});
        private(&self.file("certificate"), &both.to_string())
    }

    /// Writes the kubeconfig.
    pub fn kubeconfig(&self, path: &Path, address: &str, admission: &Admission) -> Result<()> {
        let ours = |text: &str| {
            let config = kube::config::Kubeconfig::from_yaml(text);
            config.is_ok_and(|c| c.clusters.iter().all(|c| c.name == self.mark.name))
        };
        if text(path)?.is_some_and(|old| !ours(&old)) {
            let message =
                format!("{} holds other clusters and is left alone: give another --kubeconfig", path.display());
            return Err(Failure::new(Exit::Usage, message).into());
        }
        private(path, &kubeconfig(&self.mark.name, address, &self.key()?.pem(), admission))
    }

    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.mark.uid))
    }
}

/// Where a cluster's kubeconfig lies: where the command line says, else here.
pub fn kubeconfig_path(context: &Context, name: &str) -> Result<PathBuf> {
    match &context.kubeconfig {
        Some(path) => Ok(path.clone()),
        None => Ok(dir(name)?.join("kubeconfig.yaml")),
    }
}

/// Forgets a cluster that is no more. Another cloud may hold one of that name: what is kept of it stays.
pub fn forget(name: &str, uids: &[String]) -> Result<()> {
    let dir = dir(name)?;
    let remove = |file: &str| match fs::remove_file(dir.join(file)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.join(file).display()))
        }
        _ => Ok(()),
    };
    for uid in uids {
        remove(&format!("{uid}.key"))?;
        remove(&format!("{uid}.certificate"))?;
    }
    let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
    if !entries.map(|e| e.path()).any(|path| path.extension().is_some_and(|e| e == "key")) {
        remove("kubeconfig.yaml")?;
        let _holds_something = fs::remove_dir(&dir);
    }
    Ok(())
}

fn dir(name: &str) -> Result<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".config"));
    let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let config = config.ok_or_else(|| Failure::new(Exit::Usage, "neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(config.join("rastos").join(name))
}

fn text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

fn private(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.with_context(|| format!("make {}", dir.display()))?;
    }
    Ok(apiserver::pki::write_private(path, text.as_bytes())?)
}

/// The address may change; the name in the certificate does not.
fn kubeconfig(name: &str, address: &str, key: &str, admission: &Admission) -> String {
    let base64 = |text: &str| BASE64_STANDARD.encode(text);
    let server = json!({
        "server": format!("https://{address}:{}", api::rastos::cluster::API_PORT),
        "tls-server-name": api_name(name),
        "certificate-authority-data": base64(&admission.ca),
    });
    let user = json!({"client-certificate-data": base64(&admission.certificate), "client-key-data": base64(key)});
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin"}}],
        "current-context": name,
    });
    serde_saphyr::to_string(&config).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_the_certificate_s_name_not_the_address() {
        let admission = Admission { certificate: "cert".into(), ca: "ca".into() };
        let text = kubeconfig("demo", "192.0.2.1", "key", &admission);
        let config: kube::config::Kubeconfig = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://192.0.2.1:6443"));
        assert_eq!(cluster.tls_server_name.as_deref(), Some("api.demo.rastos.internal"));
    }
}
