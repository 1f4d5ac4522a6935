//! The roles and bindings that every cluster has.
//!
//! `admin`, `edit` and `view` are meant for bindings in a namespace and carry Kubernetes' rules; roles labelled
//! `rbac.authorization.k8s.io/aggregate-to-NAME: "true"` add to them.

use std::collections::BTreeMap;

use api::Scope;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::{Value, json};
use store::{Expect, Store, Txn, Write};

use super::{CONTROLLERS, MASTERS, SCHEDULER, policy::PREFIX, rules};
use crate::identity::{AUTHENTICATED, UNAUTHENTICATED};

const RBAC: &str = "rbac.authorization.k8s.io";
/// Roles with this annotation set to `true` get back at start what they lack of their default rules.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// The rules that allow all.
pub(crate) fn everything() -> Vec<PolicyRule> {
    vec![resources(&["*"], &["*"], &["*"]), urls(&["*"], &["*"])]
}

fn resources(verbs: &[&str], groups: &[&str], resources: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let (api_groups, resources) = (Some(owned(groups)), Some(owned(resources)));
    PolicyRule { verbs: owned(verbs), api_groups, resources, ..PolicyRule::default() }
}

fn urls(verbs: &[&str], urls: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule { verbs: owned(verbs), non_resource_urls: Some(owned(urls)), ..PolicyRule::default() }
}

/// What can be seen of a namespace without its secrets and roles.
fn view() -> Vec<PolicyRule> {
    let core = [
        "bindings",
        "configmaps",
        "endpoints",
        "events",
        "limitranges",
        "namespaces",
        "namespaces/status",
        "persistentvolumeclaims",
        "persistentvolumeclaims/status",
        "pods",
        "pods/log",
        "pods/status",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "replicationcontrollers/status",
        "resourcequotas",
        "resourcequotas/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let apps = [
        "controllerrevisions",
        "daemonsets",
        "daemonsets/status",
        "deployments",
        "deployments/scale",
        "deployments/status",
        "replicasets",
        "replicasets/scale",
        "replicasets/status",
        "statefulsets",
        "statefulsets/scale",
        "statefulsets/status",
    ];
    vec![
        resources(READ, &[""], &core),
        resources(READ, &["apps"], &apps),
        resources(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
        resources(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
        resources(READ, &["discovery.k8s.io"], &["endpointslices"]),
        resources(READ, &["events.k8s.io"], &["events"]),
        resources(READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
        resources(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        resources(READ, &["snapshot.storage.k8s.io"], &["volumesnapshots"]),
    ]
}

/// What can be seen and changed in a namespace without its roles.
fn edit() -> Vec<PolicyRule> {
    let connect = ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"];
    let core = [
        "configmaps",
        "events",
        "persistentvolumeclaims",
        "pods",
        "pods/attach",
        "pods/exec",
        "pods/portforward",
        "pods/proxy",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
        "services/proxy",
    ];
    let apps = [
        "daemonsets",
        "deployments",
        "deployments/rollback",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ];
    let mut all = vec![
        resources(READ, &[""], &connect),
        resources(READ, &[""], &["secrets"]),
        resources(&["impersonate"], &[""], &["serviceaccounts"]),
        resources(WRITE, &[""], &core),
        resources(&["create"], &[""], &["pods/eviction", "serviceaccounts/token"]),
        resources(WRITE, &["apps"], &apps),
        resources(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
        resources(WRITE, &["batch"], &["cronjobs", "jobs"]),
        resources(WRITE, &["events.k8s.io"], &["events"]),
        resources(WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
        resources(WRITE, &["policy"], &["poddisruptionbudgets"]),
        resources(WRITE, &["snapshot.storage.k8s.io"], &["volumesnapshots"]),
        resources(&[READ, WRITE].concat(), &["coordination.k8s.io"], &["leases"]),
    ];
    all.extend(view());
    all
}

fn admin() -> Vec<PolicyRule> {
    let mut all = edit();
    all.push(resources(&[READ, WRITE].concat(), &[RBAC], &["roles", "rolebindings"]));
    all.push(resources(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]));
    all
}

/// Controllers read whatever may own or be owned, mend and delete it, and make what workloads are made of. Of the parts
/// of objects, such as a pod's streams, they get only those that they write.
fn controllers() -> Vec<PolicyRule> {
    let registry = api::builtin();
    let mut owned = BTreeMap::<&str, (Vec<&str>, Vec<&str>)>::new();
    for kind in registry.kinds().iter().filter(|kind| kind.stored && kind.view.is_none()) {
        let (all, in_namespaces) = owned.entry(&kind.group).or_default();
        all.push(&kind.plural);
        in_namespaces.extend((kind.scope == Scope::Namespaced).then_some(&*kind.plural));
    }
    let mut rules = Vec::new();
    for (group, (all, in_namespaces)) in owned {
        rules.push(resources(&[READ, &["patch", "delete"]].concat(), &[group], &all));
        if !in_namespaces.is_empty() {
            rules.push(resources(&["deletecollection"], &[group], &in_namespaces));
        }
    }
    rules.extend([
        resources(&["create"], &[""], &["configmaps", "events", "pods", "serviceaccounts"]),
        resources(&["create"], &["apps"], &["replicasets"]),
        resources(&["patch"], &[""], &["namespaces/status", "nodes/status", "pods/status"]),
        resources(&["patch"], &["apps"], &["deployments/status", "replicasets/status"]),
        resources(&["update"], &[""], &["namespaces/finalize"]),
    ]);
    rules
}

fn scheduler() -> Vec<PolicyRule> {
    let seen = ["namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods", "services"];
    vec![
        resources(READ, &[""], &seen),
        resources(READ, &["apps"], &["replicasets", "statefulsets"]),
        resources(READ, &["policy"], &["poddisruptionbudgets"]),
        resources(READ, &["scheduling.k8s.io", "storage.k8s.io"], &["*"]),
        resources(&["create"], &[""], &["pods/binding"]),
        resources(&["patch", "update"], &[""], &["pods/status"]),
        resources(&["delete"], &[""], &["pods"]),
        resources(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        resources(&["create", "get", "update", "patch"], &["coordination.k8s.io"], &["leases"]),
    ]
}

const ISSUER: &[&str] =
    &["/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"];
const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Name, rules, what it aggregates by label, and to whom (kind, name) it is bound.
type Default = (&'static str, Vec<PolicyRule>, Option<&'static str>, &'static [(&'static str, &'static str)]);

fn all() -> Vec<Default> {
    let discovery = [HEALTH, &["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"]].concat();
    let basic = vec![
        resources(&["create"], &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
        resources(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
    ];
    vec![
        ("cluster-admin", everything(), None, &[("Group", MASTERS)]),
        ("admin", admin(), Some("admin"), &[]),
        ("edit", edit(), Some("edit"), &[]),
        ("view", view(), Some("view"), &[]),
        ("system:basic-user", basic, None, &[("Group", AUTHENTICATED)]),
        ("system:discovery", vec![urls(&["get"], &discovery)], None, &[("Group", AUTHENTICATED)]),
        (
            "system:public-info-viewer",
            vec![urls(&["get"], HEALTH)],
            None,
            &[("Group", AUTHENTICATED), ("Group", UNAUTHENTICATED)],
        ),
        // Bound to nobody: a pod's token may do nothing by default.
        ("system:service-account-issuer-discovery", vec![urls(&["get"], ISSUER)], None, &[]),
        ("system:controllers", controllers(), None, &[("User", CONTROLLERS)]),
        ("system:kube-scheduler", scheduler(), None, &[("User", SCHEDULER)]),
    ]
}

fn object(kind: &str, name: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": kind,
        "metadata": {
            "name": name, "uid": uuid::Uuid::new_v4(), "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        },
    })
}

fn role(name: &str, rules: &[PolicyRule], aggregates: Option<&str>, now: Timestamp) -> Value {
    let mut role = object("ClusterRole", name, now);
    role["rules"] = json!(rules);
    if let Some(label) = aggregates {
        let label = format!("{RBAC}/aggregate-to-{label}");
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    }
    role
}

fn binding(name: &str, subjects: &[(&str, &str)], now: Timestamp) -> Value {
    let mut binding = object("ClusterRoleBinding", name, now);
    binding["roleRef"] = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": name});
    let subject = |(kind, name): &(&str, &str)| json!({"apiGroup": RBAC, "kind": kind, "name": name});
    binding["subjects"] = subjects.iter().map(subject).collect();
    binding
}

/// All of them, by their keys in the store.
pub(super) fn objects(now: Timestamp) -> Vec<(String, Value)> {
    let mut objects = Vec::new();
    for (name, rules, aggregates, subjects) in all() {
        objects.push((format!("{PREFIX}clusterroles/{name}"), role(name, &rules, aggregates, now)));
        if !subjects.is_empty() {
            objects.push((format!("{PREFIX}clusterrolebindings/{name}"), binding(name, subjects, now)));
        }
    }
    objects
}

/// What earlier versions gave a role and this one does not: stars for the controllers.
fn retired() -> Vec<(&'static str, PolicyRule)> {
    let all = ["get", "list", "watch", "patch", "update", "delete", "deletecollection"];
    [resources(&all, &["*"], &["*"]), urls(&["get"], &["*"])].map(|rule| ("system:controllers", rule)).into()
}

/// Adds what is missing: roles and bindings that are not there, and rules that a default role lacks; takes back what it
/// no longer has (unless its annotation `autoupdate` says `false`). What someone added stays. Writes nothing when all is
/// as it should be.
pub(super) async fn ensure(store: &dyn Store, now: Timestamp) -> store::Result<()> {
    loop {
        let found = store.list(PREFIX, None, 0, None).await?;
        let mut txn = Txn::default();
        for (key, default) in objects(now) {
            let entry = found.entries.iter().find(|entry| entry.key == key);
            let value = match entry {
                None => Some(default),
                Some(entry) => completed(&entry.value, &default),
            };
            if let Some(value) = value {
                let expect = entry.map_or(Expect::Absent, |entry| Expect::Modified(entry.modified));
                txn.checks.push((key.clone(), expect));
                txn.writes.push(Write::Put(key, value.to_string().into()));
            }
        }
        if txn.writes.is_empty() {
            return Ok(());
        }
        match store.commit(txn).await {
            Err(store::Error::Conflict { .. }) => {} // someone was faster: look again
            done => return done.map(|_| ()),
        }
    }
}

/// The role with the rules that it lacks and without those that are retired; `None` when there are none, or when it is
/// not to be touched.
fn completed(stored: &[u8], default: &Value) -> Option<Value> {
    let mut role: Value = serde_json::from_slice(stored).ok()?;
    if role["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return None;
    }
    let rules = |role: &Value| serde_json::from_value::<Vec<PolicyRule>>(role["rules"].clone()).unwrap_or_default();
    let (mut held, mut wanted) = (rules(&role), rules(default));
    let before = held.len();
    let retired = retired();
    held.retain(|rule| !retired.iter().any(|(name, old)| role["metadata"]["name"] == *name && old == rule));
    wanted.retain(|rule| rules::missing(&held, std::slice::from_ref(rule)).next().is_some());
    if wanted.is_empty() && held.len() == before {
        return None;
    }
    held.extend(wanted);
    role["rules"] = json!(held);
    Some(role)
}
