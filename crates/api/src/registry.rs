//! The kinds that are served.

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;

use crate::faults::{Cause, Faults};

/// A name of a kind: static for those built in, owned for those that come at run time.
pub type Str = Cow<'static, str>;

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In one namespace each.
    Namespaced,
    /// In none.
    Cluster,
}

/// What can be done with objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Get,
    List,
    Watch,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// All of them, by name.
    pub const ALL: &[Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// Its name in discovery and in rights.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// The verb of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.name() == name)
    }
}

/// A part of an object with its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Subresource {
    Status,
    Scale,
    Log,
    Exec,
    Attach,
    PortForward,
    Proxy,
    Binding,
    Eviction,
    EphemeralContainers,
    Token,
    Finalize,
}

impl Subresource {
    /// How it is written in a path.
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Log => "log",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::Proxy => "proxy",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Token => "token",
            Self::Finalize => "finalize",
        }
    }
}

/// A column of the table that `kubectl get` prints. A kind lists all of its columns in order, `Name` and `Age`
/// among them, since upstream's tables are free to leave either out or to put others behind them.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading, e.g. `Ready`.
    pub name: &'static str,
    /// The OpenAPI type: `string`, `integer`, `boolean`, `number`.
    pub kind: &'static str,
    /// The OpenAPI format: `name` marks the column that names the object; else empty.
    pub format: &'static str,
    /// Shown only with `-o wide` (priority 1).
    pub wide: bool,
    /// What stands there for an object at a moment (ages are printed as `3m5s`).
    pub value: fn(&Value, jiff::Timestamp) -> Value,
}

/// What is particular to a kind. Functions get the object in JSON; the helpers in this crate lift typed ones.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// Decodes into the kind's type and back: refuses wrong types with their path, drops unknown fields (which
    /// [`crate::registry::Kind::unknown_fields`] tells by comparing).
    pub decode: fn(&Value) -> Result<Value, Faults>,
    /// Fills in what was left out.
    pub default: fn(&mut Value),
    /// Refuses what may not stand.
    pub validate: fn(&Value, &mut Faults),
    /// Refuses what may not change: new, old.
    pub validate_update: fn(&Value, &Value, &mut Faults),
    /// Before a create: drops status, sets generation 1.
    pub before_create: fn(&mut Value),
    /// Before an update of the main resource: keeps the old status, counts the generation. New, old.
    pub before_update: fn(&mut Value, &Value),
    /// Before an update of `status`: keeps everything else old. New, old.
    pub before_status: fn(&mut Value, &Value),
    /// Field selectors beside `metadata.name` and `metadata.namespace`: name and value.
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
    /// Seconds of grace that a delete waits for a node to finish; 0 removes at once. The object and the grace
    /// asked for.
    pub grace: fn(&Value, Option<i64>) -> i64,
}

/// Another form of the objects of a kind: kept once, served in both.
#[derive(Clone, Copy)]
pub struct View {
    /// The group of the kind as which they are kept, with the same plural; empty for the core group.
    pub group: &'static str,
    /// From the form in which they are kept.
    pub read: fn(&mut Value),
    /// Into it.
    pub write: fn(&mut Value),
}

/// One kind of resource.
#[derive(Clone)]
pub struct Kind {
    /// The API group; empty for the core group.
    pub group: Str,
    /// The version, e.g. `v1`.
    pub version: Str,
    /// E.g. `Deployment`.
    pub kind: Str,
    /// E.g. `deployments`.
    pub plural: Str,
    /// E.g. `deployment`.
    pub singular: Str,
    /// E.g. `deploy`.
    pub short: &'static [&'static str],
    /// E.g. `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// What can be done.
    pub verbs: &'static [Verb],
    /// What has its own address.
    pub subresources: &'static [Subresource],
    /// What `kubectl get` shows.
    pub columns: &'static [Column],
    /// Whether objects are kept; a review is answered and forgotten.
    pub stored: bool,
    /// Its objects are those of another kind in another form.
    pub view: Option<View>,
    /// A delete answers with the object as it was, instead of a `Status`: what clients with typed answers expect.
    pub returns_deleted: bool,
    /// The name of its OpenAPI definition, e.g. `io.k8s.api.core.v1.Pod`.
    pub definition: Str,
    /// Adds its OpenAPI definition, and those it refers to, to a generator. Use [`crate::schema`].
    pub schema: fn(&mut schemars::SchemaGenerator),
    /// What is particular to it.
    pub strategy: Strategy,
}

impl Kind {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// An object as a create would have it: decoded, with its defaults. All of its faults at once, fields that are
    /// not known among them.
    pub fn complete(&self, object: &Value) -> Result<Value, Faults> {
        let mut complete = (self.strategy.decode)(object)?;
        let mut bad = Faults::default();
        for path in self.unknown_fields(object, &complete) {
            bad.push(path, Cause::NotSupported, "is not known");
        }
        (self.strategy.default)(&mut complete);
        (self.strategy.validate)(&complete, &mut bad);
        if bad.is_empty() { Ok(complete) } else { Err(bad) }
    }

    /// The store's key of an object, or with `name` empty the prefix of all in `namespace` (both empty: of all).
    pub fn key(&self, namespace: &str, name: &str) -> String {
        let group = self.view.map_or(&*self.group, |view| view.group);
        let group = if group.is_empty() { "core" } else { group };
        match (self.scope, namespace) {
            (Scope::Namespaced, "") => format!("/registry/{group}/{}/", self.plural),
            (Scope::Namespaced, ns) => format!("/registry/{group}/{}/{ns}/{name}", self.plural),
            (Scope::Cluster, _) => format!("/registry/{group}/{}/{name}", self.plural),
        }
    }
}

/// All kinds that are served: those built in, then those that came at run time.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<Arc<Kind>>,
}

impl Registry {
    /// With these kinds.
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self { kinds: kinds.into_iter().map(Arc::new).collect() }
    }

    /// All kinds, in the order of discovery.
    pub fn kinds(&self) -> &[Arc<Kind>] {
        &self.kinds
    }

    /// The kind served at `/apis/GROUP/VERSION/PLURAL`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.kinds.iter().find(|k| k.group == group && k.version == version && k.plural == plural)
    }

    /// The kind of objects with this `apiVersion` and `kind`.
    pub fn object(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds.iter().find(|k| k.group == group && k.version == version && k.kind == kind)
    }

    /// The kind that a person means by `pod`, `pods`, `po`, `Pod`, `deployments.apps` or `deployments.v1.apps`.
    /// Kinds listed first win.
    pub fn named(&self, word: &str) -> Option<&Arc<Kind>> {
        let word = word.to_ascii_lowercase();
        let (name, rest) = word.split_once('.').unwrap_or((&word, ""));
        self.kinds.iter().find(|k| {
            (k.plural == name || k.singular == name || k.short.contains(&name))
                && (rest.is_empty() || rest == k.group || rest == format!("{}.{}", k.version, k.group))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::builtin;

    #[test]
    fn every_kind_is_named_once_and_ends_its_name_column_well() {
        let registry = builtin();
        for (at, kind) in registry.kinds().iter().enumerate() {
            for other in &registry.kinds()[at + 1..] {
                assert!((&kind.group, &kind.plural) != (&other.group, &other.plural), "{} twice", kind.plural);
                assert!(kind.short.iter().all(|s| !other.short.contains(s)), "{} shares a short name", kind.plural);
            }
            assert_eq!(kind.columns.iter().filter(|c| c.format == "name").count(), 1, "{}", kind.plural);
            assert_eq!(kind.verbs.contains(&Verb::List), kind.stored, "{}", kind.plural);
        }
        assert_eq!(registry.kinds().len(), crate::kinds::ALL.len());
    }

    #[test]
    fn kinds_are_found_by_the_names_that_people_use() {
        let registry = builtin();
        for word in ["deploy", "Deployment", "deployments", "deployments.apps", "deploy.v1.apps"] {
            assert_eq!(registry.named(word).map(|k| &*k.kind), Some("Deployment"), "{word}");
        }
        assert!(registry.named("deployments.batch").is_none());
        assert_eq!(registry.object("apps/v1", "ReplicaSet").map(|k| &*k.plural), Some("replicasets"));
    }

    #[test]
    fn a_status_write_keeps_the_spec_and_a_spec_write_the_status() {
        for kind in builtin().kinds().iter().filter(|k| k.subresources.contains(&Subresource::Status)) {
            let old = json!({"metadata": {"name": "a", "generation": 3, "resourceVersion": "7"},
                "spec": {"x": 1}, "status": {"y": 1}});
            let asked = json!({"metadata": {"name": "a", "generation": 9, "resourceVersion": "8",
                "annotations": {"why": "x"}, "labels": {"mine": "x"}},
                "spec": {"x": 2}, "status": {"y": 2}});
            let mut new = asked.clone();
            (kind.strategy.before_status)(&mut new, &old);
            assert_eq!((&new["spec"], &new["status"]), (&old["spec"], &asked["status"]), "{}", kind.plural);
            let metadata = json!({"name": "a", "generation": 3, "resourceVersion": "8", "annotations": {"why": "x"}});
            assert_eq!(new["metadata"], metadata, "{}", kind.plural);
            let mut new = asked.clone();
            (kind.strategy.before_update)(&mut new, &old);
            assert_eq!(new["status"], old["status"], "{}", kind.plural);
            if &*kind.kind != "Namespace" {
                assert_eq!((&new["spec"], new["metadata"]["generation"].as_i64()), (&asked["spec"], Some(4)));
            }
        }
    }
}
