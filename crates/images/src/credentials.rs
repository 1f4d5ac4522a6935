//! Credentials from Docker's `config.json`, which is also the payload of `kubernetes.io/dockerconfigjson` secrets.

use crate::{
    Credentials, Reference,
    error::{Error, Result},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use std::{collections::BTreeMap, fmt};

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Anonymous => f.write_str("Anonymous"),
            Credentials::Basic { user, .. } => write!(f, "Basic({user}, …)"),
            Credentials::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

/// Credentials for many registries.
#[derive(Clone, Debug, Default)]
pub struct Keyring(Vec<(Pattern, Credentials)>);

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

impl Keyring {
    /// Reads a `config.json` (`{"auths": {…}}`), or the older `.dockercfg`, which is what `auths` holds.
    ///
    /// Credential helpers are not run. Entries without credentials are passed over.
    ///
    /// # Errors
    /// [`Error::BadCredentials`]; the message never holds a secret.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        // serde_json's own messages quote the input.
        let broken = |reason: &str| Error::BadCredentials { reason: reason.into() };
        let mut file: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(bytes).map_err(|e| broken(&format!("not a JSON object (line {})", e.line())))?;
        let auths = file.remove("auths").unwrap_or_else(|| {
            file.retain(|_, v| v.is_object());
            file.into()
        });
        let auths: BTreeMap<String, Entry> =
            serde_json::from_value(auths).map_err(|_| broken("auths is not a map of objects"))?;
        let mut ring = Keyring::default();
        for (key, entry) in auths {
            if let Some(credentials) = entry.read().map_err(|reason| broken(&format!("{key}: {reason}")))? {
                ring.0.push((Pattern::new(&key), credentials));
            }
        }
        Ok(ring)
    }

    /// Adds those of `other`; where both match alike, the ones already here win.
    pub fn extend(&mut self, other: Keyring) {
        self.0.extend(other.0);
    }

    /// The credentials whose keys match, the closest first: same host (a `*` stands for one label or part of one), same port,
    /// longest path. Only anonymous if none does. To be tried in turn as long as access is denied.
    pub fn matching(&self, reference: &Reference) -> Vec<Credentials> {
        let mut all: Vec<_> = self.0.iter().filter(|(p, _)| p.matches(reference)).collect();
        all.sort_by_key(|(p, _)| std::cmp::Reverse(p.weight()));
        let mut keys: Vec<Credentials> = Vec::new();
        for (_, key) in all {
            // Tried once each: registries lock out who comes with a wrong password again and again.
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        if keys.is_empty() { vec![Credentials::Anonymous] } else { keys }
    }
}

impl Entry {
    fn read(self) -> Result<Option<Credentials>, &'static str> {
        if let Some(token) = self.registrytoken.filter(|t| !t.is_empty()) {
            return Ok(Some(Credentials::Bearer(token)));
        }
        if let (Some(user), Some(password)) = (self.username.filter(|u| !u.is_empty()), self.password) {
            return Ok(Some(Credentials::Basic { user, password }));
        }
        let Some(auth) = self.auth.filter(|a| !a.is_empty()) else { return Ok(None) };
        let text = BASE64_STANDARD.decode(auth.trim()).map_err(|_| "auth is not base64")?;
        let text = String::from_utf8(text).map_err(|_| "auth is not UTF-8")?;
        let (user, password) = text.split_once(':').ok_or("auth is not user:password")?;
        // Docker pads passwords with NUL.
        let password = password.trim_end_matches('\0');
        Ok(Some(Credentials::Basic { user: user.into(), password: password.into() }))
    }
}

/// A key of `auths`: `host[:port][/path]`, with or without a scheme.
#[derive(Clone, Debug)]
struct Pattern {
    labels: Vec<String>,
    port: Option<String>,
    path: String,
}

impl Pattern {
    fn new(key: &str) -> Self {
        let key = key.split_once("://").map_or(key, |(_, rest)| rest);
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        let path = path.trim_matches('/');
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let (labels, port) = split_host(host);
        Pattern { labels, port, path: path.into() }
    }

    fn matches(&self, reference: &Reference) -> bool {
        let (labels, port) = split_host(reference.registry());
        self.port == port
            && self.labels.len() == labels.len()
            && self.labels.iter().zip(&labels).all(|(p, l)| glob(p, l))
            && (self.path.is_empty()
                || reference.repository().strip_prefix(&self.path).is_some_and(|r| r.is_empty() || r.starts_with('/')))
    }

    /// Longer paths first, then fewer wildcards.
    fn weight(&self) -> (usize, bool) {
        (self.path.len(), !self.labels.iter().any(|l| l.contains('*')))
    }
}

fn split_host(host: &str) -> (Vec<String>, Option<String>) {
    let host = host.to_ascii_lowercase();
    let host =
        if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") { "docker.io".into() } else { host };
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port.to_string())),
        _ => (host.as_str(), None),
    };
    (name.split('.').map(str::to_string).collect(), port)
}

/// `*` within one label; several are allowed.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let (last, middle) = parts.split_last().expect("a pattern with a star has two parts");
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(ring: &Keyring, reference: &str) -> String {
        match ring.matching(&reference.parse().unwrap()).swap_remove(0) {
            Credentials::Basic { user, .. } => user,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn closest_key_wins() {
        let entry = |user: &str| serde_json::json!({"auth": BASE64_STANDARD.encode(format!("{user}:a:b"))});
        let file = serde_json::json!({"auths": {
            "https://index.docker.io/v1/": entry("hub"),
            "reg.io": entry("reg"), "reg.io/team": entry("team"), "*.cloud.io": entry("glob"), "one.cloud.io": entry("one"),
            "127.0.0.1:5000": entry("local"), "empty.io": {}, "x.io": {"username": "u", "password": "p"},
            "t.io": {"registrytoken": "secret"},
        }});
        let ring = Keyring::parse(file.to_string().as_bytes()).unwrap();
        for (reference, want) in [
            ("busybox", "hub"),
            ("reg.io/a", "reg"),
            ("reg.io/team/a", "team"),
            ("reg.io/teamwork", "reg"),
            ("reg.io:1/a", "Anonymous"),
            ("two.cloud.io/a", "glob"),
            ("one.cloud.io/a", "one"),
            ("a.b.cloud.io/a", "Anonymous"),
            ("127.0.0.1:5000/a", "local"),
            ("empty.io/a", "Anonymous"),
            ("x.io/a", "u"),
            ("t.io/a", "Bearer(…)"),
        ] {
            assert_eq!(user(&ring, reference), want, "{reference}");
        }
        let all = |reference: &str| {
            ring.matching(&reference.parse().unwrap()).iter().map(|c| format!("{c:?}")).collect::<Vec<_>>()
        };
        assert_eq!(all("reg.io/team/a"), vec!["Basic(team, …)".to_string(), "Basic(reg, …)".into()]);
        let Credentials::Basic { password, .. } = ring.matching(&"busybox".parse().unwrap()).swap_remove(0) else {
            panic!()
        };
        assert_eq!(password, "a:b");
    }

    #[test]
    fn errors_hold_no_secret() {
        for bad in [
            r#"{"auths":{"a":{"auth":"hunter2!"}}}"#,
            r#"{"auths":"hunter2"}"#,
            r#"hunter2"#,
            r#"{"auths":{"a":{"auth":[7]}}}"#,
        ] {
            let message = Keyring::parse(bad.as_bytes()).unwrap_err().to_string();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,80}", pattern in "[a*.]{0,8}", host in "[a.]{0,8}") {
            let _ = Keyring::parse(text.as_bytes());
            let _ = Keyring::parse(format!(r#"{{"auths":{{"{text}":{{"auth":"{text}"}}}}}}"#).as_bytes());
            let _ = glob(&pattern, &host);
        }
    }
}
