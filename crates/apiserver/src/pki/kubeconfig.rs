//! The kubeconfig that administrators and their clients read.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::Value;

use super::{Credentials, Error, Pki, files};

impl Pki {
    /// A kubeconfig for `server` (`https://127.0.0.1:6443`) with these credentials in it.
    pub fn kubeconfig(&self, server: &str, user: &str, credentials: &Credentials) -> String {
        let base64 = |text: &str| BASE64_STANDARD.encode(text);
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: rastos\n  \
               cluster:\n    \
                 certificate-authority-data: {ca}\n    \
                 server: {server}\n\
             users:\n\
             - name: {user}\n  \
               user:\n    \
                 client-certificate-data: {cert}\n    \
                 client-key-data: {key}\n\
             contexts:\n\
             - name: rastos\n  \
               context:\n    \
                 cluster: rastos\n    \
                 user: {user}\n\
             current-context: rastos\n",
            ca = base64(&self.ca),
            server = Value::from(server),
            user = Value::from(user),
            cert = base64(&credentials.cert),
            key = base64(&credentials.key),
        )
    }

    /// Writes the administrator's kubeconfig (mode 0600) unless the one that lies there is for this authority and
    /// server and not due.
    pub fn admin_kubeconfig(&self, path: &Path, server: &str, now: Timestamp) -> Result<(), Error> {
        if let Some(text) = files::read(path)?
            && let Some(kept) = credentials(&text)
            && kept.fresh(now)
            && self.issued(&kept)
            && text == self.kubeconfig(server, "admin", &kept)
        {
            return Ok(());
        }
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|source| Error::Io {
                doing: "create directory",
                path: dir.to_owned(),
                source,
            })?;
        }
        files::write_private(path, self.kubeconfig(server, "admin", &self.admin(now)?).as_bytes())
    }
}

/// The credentials in a kubeconfig that was written here.
pub(super) fn credentials(kubeconfig: &str) -> Option<Credentials> {
    let value = |name: &str| {
        let line = kubeconfig.lines().find_map(|l| l.trim_start().strip_prefix(name))?;
        String::from_utf8(BASE64_STANDARD.decode(line.trim()).ok()?).ok()
    };
    Some(Credentials { cert: value("client-certificate-data:")?, key: value("client-key-data:")? })
}
