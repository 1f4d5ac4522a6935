//! How lists merge: keys for strategic merge patch and server-side apply, and what a field holds.
//!
//! The types of `k8s-openapi` do not carry these, so the table is ours; tests hold it against the types.

use std::{collections::HashMap, sync::LazyLock};

/// How the items of a list are told apart (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Not at all: the list is one value.
    Atomic,
    /// By their value.
    Set,
    /// By these fields.
    Map(&'static [&'static str]),
}

/// How a field merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Server-side apply.
    pub list: ListType,
    /// Strategic merge patch: the one field by which items are told apart (`x-kubernetes-patch-merge-key`).
    pub patch_key: Option<&'static str>,
    /// Strategic merge patch: `merge`, `retainKeys`, `merge,retainKeys`; absent means replace
    /// (`x-kubernetes-patch-strategy`).
    pub strategy: Option<&'static str>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The definition of the field, of the list's items or of the map's values, if it is one with fields.
    pub definition: Option<&'static str>,
    /// Whether it is one value, a list or a map.
    pub shape: Shape,
    /// How it merges, for strategic merge patch: see [`Rule::patch_key`].
    pub patch_key: Option<&'static str>,
    /// See [`Rule::strategy`].
    pub strategy: Option<&'static str>,
    /// For server-side apply: this value is replaced as a whole.
    pub atomic: bool,
}

/// Whether a field is one value, a list or a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One value.
    Single,
    /// A list.
    List(ListType),
    /// A map from strings.
    Map,
}

const fn by(keys: &'static [&'static str]) -> Rule {
    Rule { list: ListType::Map(keys), patch_key: Some(keys[0]), strategy: Some("merge") }
}

const fn retaining(keys: &'static [&'static str]) -> Rule {
    Rule { strategy: Some("merge,retainKeys"), ..by(keys) }
}

const NAME: Rule = by(&["name"]);
const SET: Rule = Rule { list: ListType::Set, patch_key: None, strategy: Some("merge") };
const TYPE: Rule = by(&["type"]);
/// Merged by a key in patches, but one value to server-side apply.
const fn patched(key: &'static str) -> Rule {
    Rule { list: ListType::Atomic, patch_key: Some(key), strategy: Some("merge") }
}

/// Every list that is not atomic, and the one map with a strategy of its own. What is not here is atomic to apply
/// and replaced by a patch.
const RULES: &[(&str, &str, Rule)] = &[
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "finalizers", SET),
    ("apimachinery.pkg.apis.meta.v1.ObjectMeta", "ownerReferences", by(&["uid"])),
    ("api.core.v1.PodSpec", "containers", NAME),
    ("api.core.v1.PodSpec", "initContainers", NAME),
    ("api.core.v1.PodSpec", "ephemeralContainers", NAME),
    ("api.core.v1.PodSpec", "hostAliases", by(&["ip"])),
    ("api.core.v1.PodSpec", "imagePullSecrets", NAME),
    ("api.core.v1.PodSpec", "resourceClaims", retaining(&["name"])),
    ("api.core.v1.PodSpec", "schedulingGates", NAME),
    ("api.core.v1.PodSpec", "topologySpreadConstraints", by(&["topologyKey", "whenUnsatisfiable"])),
    ("api.core.v1.PodSpec", "volumes", retaining(&["name"])),
    ("api.core.v1.Container", "env", NAME),
    ("api.core.v1.Container", "ports", by(&["containerPort", "protocol"])),
    ("api.core.v1.Container", "volumeDevices", by(&["devicePath"])),
    ("api.core.v1.Container", "volumeMounts", by(&["mountPath"])),
    ("api.core.v1.EphemeralContainer", "env", NAME),
    ("api.core.v1.EphemeralContainer", "ports", by(&["containerPort", "protocol"])),
    ("api.core.v1.EphemeralContainer", "volumeDevices", by(&["devicePath"])),
    ("api.core.v1.EphemeralContainer", "volumeMounts", by(&["mountPath"])),
    ("api.core.v1.ResourceRequirements", "claims", Rule { patch_key: None, strategy: None, ..NAME }),
    ("api.core.v1.ContainerStatus", "allocatedResourcesStatus", NAME),
    ("api.core.v1.ContainerStatus", "volumeMounts", by(&["mountPath"])),
    ("api.core.v1.PodStatus", "conditions", TYPE),
    ("api.core.v1.PodStatus", "hostIPs", patched("ip")),
    ("api.core.v1.PodStatus", "podIPs", by(&["ip"])),
    ("api.core.v1.PodStatus", "resourceClaimStatuses", retaining(&["name"])),
    ("api.core.v1.NodeSpec", "podCIDRs", SET),
    ("api.core.v1.NodeStatus", "addresses", TYPE),
    ("api.core.v1.NodeStatus", "conditions", TYPE),
    ("api.core.v1.NamespaceStatus", "conditions", TYPE),
    ("api.core.v1.ServiceAccount", "secrets", NAME),
    (
        "api.apps.v1.DeploymentSpec",
        "strategy",
        Rule { list: ListType::Atomic, patch_key: None, strategy: Some("retainKeys") },
    ),
    ("api.apps.v1.DeploymentStatus", "conditions", TYPE),
    ("api.apps.v1.ReplicaSetStatus", "conditions", TYPE),
];

/// Structs that server-side apply takes as one value (`x-kubernetes-map-type: atomic`).
const ATOMIC: &[&str] = &[
    "apimachinery.pkg.apis.meta.v1.LabelSelector",
    "api.core.v1.ConfigMapKeySelector",
    "api.core.v1.FileKeySelector",
    "api.core.v1.LocalObjectReference",
    "api.core.v1.NodeSelector",
    "api.core.v1.NodeSelectorTerm",
    "api.core.v1.ObjectFieldSelector",
    "api.core.v1.ObjectReference",
    "api.core.v1.ResourceFieldSelector",
    "api.core.v1.SecretKeySelector",
    "api.core.v1.TypedLocalObjectReference",
    "api.rbac.v1.RoleRef",
    "api.rbac.v1.Subject",
];

/// How a field of a definition merges, if the table says so.
pub fn rule(definition: &str, field: &str) -> Option<Rule> {
    let short = definition.strip_prefix("io.k8s.")?;
    RULES.iter().find(|(d, f, _)| *d == short && *f == field).map(|(_, _, rule)| *rule)
}

/// Whether server-side apply takes a struct as one value.
pub fn is_atomic(definition: &str) -> bool {
    definition.strip_prefix("io.k8s.").is_some_and(|short| ATOMIC.contains(&short))
}

/// What a field of a definition holds; `None` for a plain value or a field that is not known.
pub fn child(definition: &str, field: &str) -> Option<&'static Child> {
    CHILDREN.get(definition)?.iter().find(|(name, _)| *name == field).map(|(_, child)| child)
}

/// Every field that holds more than a plain value. Committed, for making it from the types takes 6 MiB; a test
/// compares.
const FIELDS: &str = include_str!("fields.txt");

static CHILDREN: LazyLock<HashMap<&'static str, Vec<(&'static str, Child)>>> = LazyLock::new(|| {
    let mut all: HashMap<_, Vec<_>> = HashMap::new();
    let mut definition = "";
    for line in FIELDS.lines() {
        match line.split_once(' ') {
            None => definition = line,
            Some((field, rest)) => {
                let (shape, target) = rest.split_once(' ').unwrap_or((rest, ""));
                all.entry(definition).or_default().push((field, held(definition, field, shape, target)));
            }
        }
    }
    all
});

fn held(definition: &str, field: &str, shape: &str, target: &'static str) -> Child {
    let rule = rule(definition, field);
    let inner = Some(target).filter(|t| !t.is_empty());
    let list = rule.map_or(ListType::Atomic, |r| r.list);
    let (shape, atomic) = match shape {
        "list" => (Shape::List(list), list == ListType::Atomic),
        "map" => (Shape::Map, false),
        _ => (Shape::Single, inner.is_some_and(is_atomic)),
    };
    Child {
        definition: inner,
        shape,
        patch_key: rule.and_then(|r| r.patch_key),
        strategy: rule.and_then(|r| r.strategy),
        atomic,
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fmt::Write, fs};

    use serde_json::Value;

    use super::*;
    use crate::schema::{self, Version};

    const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";

    /// The table as the types have it: a definition, then its fields with shape and target.
    fn fields() -> String {
        let raw = schema::raw(&crate::builtin(), Version::V2);
        let target = |schema: &Value| {
            let name = schema["$ref"].as_str()?.strip_prefix("#/definitions/")?;
            raw.get(name)?.get("properties").map(|_| name.to_owned())
        };
        let mut text = String::new();
        let mut names: Vec<&String> = raw.keys().collect();
        names.sort();
        for name in names {
            let mut lines = String::new();
            for (field, schema) in raw[name]["properties"].as_object().into_iter().flatten() {
                let (inner, shape) = match (&schema["items"], &schema["additionalProperties"]) {
                    (items @ Value::Object(_), _) => (target(items), "list"),
                    (_, values @ Value::Object(_)) => (target(values), "map"),
                    _ => (target(schema), "one"),
                };
                if inner.is_some() || shape != "one" {
                    let line = format!("{field} {shape} {}", inner.unwrap_or_default());
                    writeln!(lines, "{}", line.trim_end()).unwrap();
                }
            }
            if !lines.is_empty() {
                write!(text, "{name}\n{lines}").unwrap();
            }
        }
        text
    }

    #[test]
    fn the_committed_fields_are_the_types_own() {
        let fields = fields();
        if env::var_os("RAST_BLESS").is_some() {
            fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/fields.txt"), &fields).unwrap();
        } else {
            assert!(FIELDS == fields, "fields.txt is stale: run RAST_BLESS=1 cargo nextest run -p api fields");
        }
    }

    #[test]
    fn the_table_names_lists_and_keys_that_exist() {
        let raw = schema::raw(&crate::builtin(), Version::V2);
        for (definition, field, rule) in RULES.iter().filter(|(_, _, r)| r.list != ListType::Atomic) {
            let child = child(&format!("io.k8s.{definition}"), field);
            let Some(child) = child else { panic!("{definition}.{field} does not exist") };
            if let ListType::Map(keys) = rule.list {
                let item = &raw[child.definition.unwrap()]["properties"];
                keys.iter().for_each(|key| assert!(item[key].is_object(), "{definition}.{field} by {key}"));
            }
        }
        for definition in ATOMIC {
            assert!(raw.contains_key(&format!("io.k8s.{definition}")), "{definition}");
        }
    }

    #[test]
    fn fields_lead_from_definition_to_definition() {
        let spec = child("io.k8s.api.core.v1.Pod", "spec").unwrap();
        assert_eq!((spec.definition, spec.shape), (Some(POD_SPEC), Shape::Single));
        let containers = child(POD_SPEC, "containers").unwrap();
        assert_eq!(containers.definition, Some("io.k8s.api.core.v1.Container"));
        assert_eq!((containers.shape, containers.patch_key), (Shape::List(ListType::Map(&["name"])), Some("name")));
        let tolerations = child(POD_SPEC, "tolerations").unwrap();
        assert!(tolerations.atomic && tolerations.patch_key.is_none());
        let ports = child("io.k8s.api.core.v1.Container", "ports").unwrap();
        assert_eq!(ports.shape, Shape::List(ListType::Map(&["containerPort", "protocol"])));
        assert_eq!(child(POD_SPEC, "nodeSelector").unwrap().shape, Shape::Map);
        assert!(child("io.k8s.api.apps.v1.DeploymentSpec", "selector").unwrap().atomic);
        assert_eq!(child(POD_SPEC, "nodeName"), None);
    }
}
