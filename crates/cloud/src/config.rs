//! Which cloud, as whom, in which project: clouds.yaml, secure.yaml and the `OS_*` variables.
//!
//! A named cloud (`--os-cloud`, `OS_CLOUD`) comes from the files alone. Without a name, `OS_AUTH_URL` makes the
//! variables count; without that, the only cloud of the files does.

mod environment;
mod files;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::{Map, Value};

pub use environment::Environment;

use crate::Secret;

/// Neutron and Heat may think for a minute on a busy cloud; proxies in front of them give up at about that time too.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// How to reach a cloud and who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Keystone's address, ending in `/v3`.
    pub auth_url: String,
    /// Who is asking.
    pub auth: Auth,
    /// In which project; an application credential brings its own.
    pub scope: Option<Project>,
    /// The region; the catalogue's only one where none is given.
    pub region: Option<String>,
    /// Which of a service's addresses to use.
    pub interface: Interface,
    /// Whom to trust.
    pub tls: Tls,
    /// Addresses to use instead of the catalogue's, by service type.
    pub overrides: BTreeMap<String, String>,
    /// How long an answer is waited for, uploads of images aside.
    pub timeout: Duration,
}

/// Proof of who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A user's password.
    Password(User, Secret),
    /// A token that was issued before; it cannot be renewed.
    Token(Secret),
    /// An application credential by its id.
    Credential(String, Secret),
    /// An application credential by its name, which is its user's.
    NamedCredential(String, User, Secret),
}

/// A user by id, or by name within a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// By id.
    Id(String),
    /// By name.
    Name(String, Domain),
}

/// A project by id, or by name within a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Project {
    /// By id.
    Id(String),
    /// By name.
    Name(String, Domain),
}

/// A domain by id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// The kinds of addresses in a catalogue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// For everyone.
    #[default]
    Public,
    /// Within the cloud.
    Internal,
    /// For administrators.
    Admin,
}

impl Interface {
    /// As the catalogue writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// Whom to trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate authorities in PEM, instead of the system's.
    pub cacert: Option<PathBuf>,
    /// Trust anyone.
    pub insecure: bool,
    /// This client's own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why no cloud can be named.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nothing names a cloud.
    #[error("no cloud is named: set OS_CLOUD or --os-cloud (clouds.yaml holds {known}), or OS_AUTH_URL and the rest")]
    NoCloud {
        /// The names that there are.
        known: String,
    },
    /// The named cloud is not in the files.
    #[error("no clouds.yaml names the cloud {name:?}; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A value is missing.
    #[error("{origin}: {what} is missing")]
    Missing {
        /// What was read.
        origin: String,
        /// The value, as a user writes it.
        what: &'static str,
    },
    /// A value is of no use.
    #[error("{origin}: {what}")]
    Wrong {
        /// What was read.
        origin: String,
        /// What and why.
        what: String,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl Config {
    /// The cloud that `name` or the environment means.
    pub fn find(name: Option<&str>, environment: &Environment) -> Result<Self, ConfigError> {
        let name = name.or(environment.get("OS_CLOUD"));
        if name.is_none() && environment.get("OS_AUTH_URL").is_some() {
            return Self::of("the environment", &environment.entry(), environment);
        }
        let clouds = files::read(environment)?;
        let known = || match clouds.is_empty() {
            true => "none".to_owned(),
            false => clouds.keys().cloned().collect::<Vec<_>>().join(", "),
        };
        match name {
            Some(name) => {
                let entry = clouds.get(name);
                let entry = entry.ok_or_else(|| ConfigError::Unknown { name: name.into(), known: known() })?;
                Self::of(&format!("cloud {name:?}"), entry, environment)
            }
            None => match clouds.iter().next() {
                Some((name, entry)) if clouds.len() == 1 => Self::of(&format!("cloud {name:?}"), entry, environment),
                _ => Err(ConfigError::NoCloud { known: known() }),
            },
        }
    }

    /// Understands one entry of clouds.yaml.
    fn of(origin: &str, entry: &Map<String, Value>, environment: &Environment) -> Result<Self, ConfigError> {
        let entry = Entry { origin, map: entry, auth: entry.get("auth").and_then(Value::as_object) };
        let version = entry.text("identity_api_version").unwrap_or_else(|| "3".into());
        if version != "3" && version != "3.0" {
            return Err(entry.wrong(format!("identity API version {version} is not served any more; use 3")));
        }
        let path = |key: &str| entry.text(key).map(|text| environment.path(&text));
        let overrides = entry.map.iter().filter_map(|(key, value)| {
            let service = key.strip_suffix("_endpoint_override")?;
            Some((service.replace('_', "-"), value.as_str()?.trim_end_matches('/').to_owned()))
        });
        Ok(Self {
            auth_url: entry.auth_url()?,
            auth: entry.auth()?,
            scope: entry.scope(),
            region: entry.region(),
            interface: entry.interface()?,
            tls: Tls {
                cacert: path("cacert"),
                insecure: entry.flag("insecure").unwrap_or(false) || entry.flag("verify") == Some(false),
                identity: path("cert").zip(path("key")),
            },
            overrides: overrides.collect(),
            timeout: entry.timeout()?,
        })
    }
}

/// One entry being read.
struct Entry<'a> {
    origin: &'a str,
    map: &'a Map<String, Value>,
    auth: Option<&'a Map<String, Value>>,
}

impl Entry<'_> {
    /// A text, looked for in `auth` first. YAML reads unquoted digits as a number: they are meant as text.
    fn text(&self, key: &str) -> Option<String> {
        let found = self.auth.and_then(|a| a.get(key)).or(self.map.get(key))?;
        match found {
            Value::String(text) => Some(text.clone()).filter(|t| !t.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.map.get(key)? {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => Some(matches!(text.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")),
            Value::Number(number) => Some(number.as_i64() == Some(1)),
            _ => None,
        }
    }

    fn needs(&self, key: &str, what: &'static str) -> Result<String, ConfigError> {
        self.text(key).ok_or_else(|| ConfigError::Missing { origin: self.origin.to_owned(), what })
    }

    fn secret(&self, key: &str, what: &'static str) -> Result<Secret, ConfigError> {
        self.needs(key, what).map(Secret::new)
    }

    fn wrong(&self, what: String) -> ConfigError {
        ConfigError::Wrong { origin: self.origin.to_owned(), what }
    }

    /// Keystone's address. Where another version stands, the third is served beside it.
    fn auth_url(&self) -> Result<String, ConfigError> {
        let given = self.needs("auth_url", "auth_url (OS_AUTH_URL)")?;
        if !["http://", "https://"].iter().any(|scheme| given.to_ascii_lowercase().starts_with(scheme)) {
            return Err(self.wrong(format!("auth_url {given} must begin with https:// or http://")));
        }
        let url = given.trim_end_matches('/');
        let bare = ["/v3", "/v2.0"].iter().find_map(|version| url.strip_suffix(version)).unwrap_or(url);
        Ok(format!("{}/v3", bare.trim_end_matches('/')))
    }

    /// A domain's id, or its name, of the user or the project, or of both, or `Default`.
    fn domain(&self, whose: &str) -> Domain {
        let own = |kind: &str| self.text(&format!("{whose}_domain_{kind}"));
        let id = own("id").map(Domain::Id).or_else(|| own("name").map(Domain::Name));
        let shared = || {
            let id = self.text("default_domain_id").or_else(|| self.text("default_domain")).or(self.text("domain_id"));
            id.map(Domain::Id).or_else(|| self.text("domain_name").map(Domain::Name))
        };
        id.or_else(shared).unwrap_or_else(|| Domain::Name("Default".into()))
    }

    fn user(&self) -> Result<User, ConfigError> {
        match self.text("user_id") {
            Some(id) => Ok(User::Id(id)),
            None => Ok(User::Name(self.needs("username", "username (OS_USERNAME)")?, self.domain("user"))),
        }
    }

    fn auth(&self) -> Result<Auth, ConfigError> {
        let given = self.text("auth_type");
        let kind = given.as_deref().unwrap_or_else(|| {
            let has = |key: &str| self.text(key).is_some();
            match () {
                () if has("application_credential_id") || has("application_credential_name") => {
                    "v3applicationcredential"
                }
                () if has("token") && !has("password") => "v3token",
                () => "v3password",
            }
        });
        match kind {
            "password" | "v3password" => {
                Ok(Auth::Password(self.user()?, self.secret("password", "password (OS_PASSWORD)")?))
            }
            "token" | "v3token" | "admin_token" => Ok(Auth::Token(self.secret("token", "token (OS_TOKEN)")?)),
            "v3applicationcredential" => {
                let secret = self.secret("application_credential_secret", "application_credential_secret")?;
                match self.text("application_credential_id") {
                    Some(id) => Ok(Auth::Credential(id, secret)),
                    None => {
                        let name = self.needs("application_credential_name", "application_credential_id")?;
                        Ok(Auth::NamedCredential(name, self.user()?, secret))
                    }
                }
            }
            other => Err(self.wrong(format!(
                "auth_type {other} is not supported; there are v3password, v3token and v3applicationcredential"
            ))),
        }
    }

    fn scope(&self) -> Option<Project> {
        let either = |a: &str, b: &str| self.text(a).or_else(|| self.text(b));
        let id = either("project_id", "tenant_id").map(Project::Id);
        id.or_else(|| either("project_name", "tenant_name").map(|n| Project::Name(n, self.domain("project"))))
    }

    fn region(&self) -> Option<String> {
        let first = || match self.map.get("regions")?.get(0)? {
            Value::String(region) => Some(region.clone()),
            region => region["name"].as_str().map(str::to_owned),
        };
        self.text("region_name").or_else(first)
    }

    fn timeout(&self) -> Result<Duration, ConfigError> {
        let Some(text) = self.text("api_timeout") else { return Ok(ANSWER_TIMEOUT) };
        let wanted = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wanted = wanted.filter(|wanted| !wanted.is_zero());
        wanted.ok_or_else(|| self.wrong(format!("api_timeout {text} must be a number of seconds above 0")))
    }

    fn interface(&self) -> Result<Interface, ConfigError> {
        let word = self.text("interface").or_else(|| self.text("endpoint_type"));
        match word.as_deref().map(|w| w.trim_end_matches("URL")) {
            None | Some("public") => Ok(Interface::Public),
            Some("internal") => Ok(Interface::Internal),
            Some("admin") => Ok(Interface::Admin),
            Some(other) => Err(self.wrong(format!("interface {other} must be public, internal or admin"))),
        }
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
