//! Keystone's tokens: the question, and what the answer tells.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    Secret,
    config::{Auth, Config, Domain, Project, User},
    service::Catalog,
};

/// A token is renewed this long before it ends, for a request must not outlive it.
const MARGIN: SignedDuration = SignedDuration::from_secs(120);

/// Who we are, for how long, and where everything is.
#[derive(Clone, Debug)]
pub struct Token {
    /// What every request shows.
    pub secret: Secret,
    /// When it ends.
    pub ends: Timestamp,
    /// The project's id; a token may be for none.
    pub project: Option<String>,
    /// The project's name.
    pub project_name: String,
    /// The user's id.
    pub user: String,
    /// The names of the roles held in the project.
    pub roles: Vec<String>,
    /// Whether it comes of an application credential, and whether that one is restricted.
    pub credential: Option<Restriction>,
    /// The services.
    pub catalog: Catalog,
}

/// What an application credential may do beyond its roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restriction {
    /// Neither trusts nor further credentials can be made with it (the default).
    Restricted,
    /// They can.
    Unrestricted,
}

impl Token {
    /// Reads the body that came with a token; `None` when it is no token.
    pub fn read(secret: Secret, body: &Value) -> Option<Self> {
        let token = &body["token"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let roles = token["roles"].as_array().into_iter().flatten().filter_map(|r| text(&r["name"]));
        let credential =
            token["application_credential"].as_object().map(|c| match c.get("restricted").and_then(Value::as_bool) {
                Some(false) => Restriction::Unrestricted,
                _ => Restriction::Restricted,
            });
        Some(Self {
            secret,
            ends: token["expires_at"].as_str()?.parse().ok()?,
            project: text(&token["project"]["id"]),
            project_name: text(&token["project"]["name"]).unwrap_or_default(),
            user: text(&token["user"]["id"])?,
            roles: roles.collect(),
            credential,
            catalog: Catalog::read(&token["catalog"]),
        })
    }

    /// Whether it is good for a while.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.ends > now + MARGIN
    }
}

/// The body that asks for a token.
pub fn request(config: &Config) -> Value {
    let identity = match &config.auth {
        Auth::Password(user, password) => {
            let mut user = self::user(user);
            user["password"] = password.reveal().into();
            json!({"methods": ["password"], "password": {"user": user}})
        }
        Auth::Token(token) => json!({"methods": ["token"], "token": {"id": token.reveal()}}),
        Auth::Credential(id, secret) => {
            let credential = json!({"id": id, "secret": secret.reveal()});
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
        Auth::NamedCredential(name, user, secret) => {
            let credential = json!({"name": name, "user": self::user(user), "secret": secret.reveal()});
            json!({"methods": ["application_credential"], "application_credential": credential})
        }
    };
    let mut auth = json!({"identity": identity});
    // An application credential is for one project; Keystone refuses a scope beside it.
    let scoped = !matches!(config.auth, Auth::Credential(..) | Auth::NamedCredential(..));
    if let Some(project) = config.scope.as_ref().filter(|_| scoped) {
        let project = match project {
            Project::Id(id) => json!({"id": id}),
            Project::Name(name, domain) => json!({"name": name, "domain": self::domain(domain)}),
        };
        auth["scope"] = json!({"project": project});
    }
    json!({"auth": auth})
}

fn user(user: &User) -> Value {
    match user {
        User::Id(id) => json!({"id": id}),
        User::Name(name, domain) => json!({"name": name, "domain": self::domain(domain)}),
    }
}

fn domain(domain: &Domain) -> Value {
    match domain {
        Domain::Id(id) => json!({"id": id}),
        Domain::Name(name) => json!({"name": name}),
    }
}
