use futures::FutureExt;
use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;

fn identity(user: &str, groups: &[&str]) -> Identity {
    Identity { user: user.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..Identity::default() }
}

/// `verb group/resource/subresource namespace/name`, or `verb /path`.
fn at(line: &str) -> Attributes {
    let (verb, rest) = line.split_once(' ').unwrap();
    if rest.starts_with('/') && !rest.contains(' ') {
        return Attributes { verb: verb.into(), path: rest.into(), ..Attributes::default() };
    }
    let (what, place) = rest.split_once(' ').unwrap();
    let what: Vec<&str> = what.split('/').collect();
    let (namespace, name) = place.split_once('/').unwrap();
    Attributes {
        verb: verb.into(),
        group: what[0].into(),
        version: "v1".into(),
        resource: what[1].into(),
        subresource: what.get(2).copied().unwrap_or_default().into(),
        namespace: namespace.into(),
        name: name.into(),
        is_resource: true,
        ..Attributes::default()
    }
}

fn put(policy: &mut Policy, key: &str, value: Value) {
    policy.put(&format!("{}{key}", policy::PREFIX), value.to_string().as_bytes());
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

#[test]
fn a_binding_in_a_namespace_holds_there_only() {
    let mut p = Policy::default();
    put(
        &mut p,
        "clusterroles/reader",
        json!({"metadata": {}, "rules": [
        {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]}]}),
    );
    put(
        &mut p,
        "rolebindings/a/b",
        json!({"metadata": {}, "roleRef": reference("ClusterRole", "reader"),
        "subjects": [{"kind": "ServiceAccount", "name": "sa"}]}),
    );
    let sa = identity("system:serviceaccount:a:sa", &[]);
    assert_eq!(
        p.decide(&sa, &at("get /pods/log a/x")).reason,
        r#"RBAC: allowed by RoleBinding "a/b" of ClusterRole "reader" to User "system:serviceaccount:a:sa""#
    );
    for refused in ["get /pods/log b/x", "get /pods/exec a/x", "list /pods a/", "get apps/pods a/x", "get /pods /x"] {
        assert!(!p.decide(&sa, &at(refused)).allowed, "{refused}");
    }
    p.delete(&format!("{}rolebindings/a/b", policy::PREFIX));
    assert!(!p.decide(&sa, &at("get /pods/log a/x")).allowed);
}

#[test]
fn names_restrict_and_stars_widen() {
    let rule = |value| serde_json::from_value::<PolicyRule>(value).unwrap();
    let named = rule(json!({"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["x"]}));
    assert!(rules::allows(&named, &at("get /secrets a/x")));
    assert!(!rules::allows(&named, &at("get /secrets a/y")));
    assert!(!rules::allows(&named, &at("list /secrets a/")), "a list names nothing");
    let scale = rule(json!({"verbs": ["update"], "apiGroups": ["*"], "resources": ["*/scale"]}));
    assert!(rules::allows(&scale, &at("update apps/deployments/scale a/x")));
    assert!(!rules::allows(&scale, &at("update apps/deployments a/x")));
    let paths = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/api/*"]}));
    for (path, allowed) in [("/healthz", true), ("/healthz/x", false), ("/api/v1", true), ("/api", false)] {
        assert_eq!(rules::allows(&paths, &at(&format!("get {path}"))), allowed, "{path}");
    }
}

#[test]
fn aggregation_goes_through_and_ends() {
    let mut p = Policy::default();
    let select = |label: &str| json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
    put(&mut p, "clusterroles/a", json!({"metadata": {"labels": {"to-c": "true"}}, "aggregationRule": select("to-a")}));
    put(&mut p, "clusterroles/b", json!({"metadata": {"labels": {"to-a": "true"}}, "aggregationRule": select("to-b")}));
    put(
        &mut p,
        "clusterroles/c",
        json!({"metadata": {"labels": {"to-b": "true"}}, "aggregationRule": select("to-c"),
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
    );
    assert_eq!(p.role("", "a").len(), 1);
    put(&mut p, "clusterroles/c", json!({"metadata": {}}));
    assert_eq!(p.role("", "a").len(), 0);
}

#[test]
fn anonymous_gets_health_and_version() {
    let rbac = with_defaults();
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert!(rbac.decide(&Identity::anonymous(), &at(&format!("get {path}"))).allowed, "{path}");
    }
    for refused in ["get /api", "get /openapi/v2", "get /metrics", "post /healthz", "list /pods a/"] {
        assert!(!rbac.decide(&Identity::anonymous(), &at(refused)).allowed, "{refused}");
    }
}

#[test]
fn default_roles_have_their_limits() {
    let rbac = with_defaults();
    let mut policy = rbac.policy.write().unwrap();
    for role in ["view", "edit", "admin"] {
        put(
            &mut policy,
            &format!("rolebindings/a/{role}"),
            json!({"metadata": {},
            "roleRef": reference("ClusterRole", role), "subjects": [{"kind": "User", "name": role}]}),
        );
    }
    drop(policy);
    let may = |who: &str, what: &str| rbac.decide(&identity(who, &["system:authenticated"]), &at(what)).allowed;
    for (what, view, edit, admin) in [
        ("list /pods a/", true, true, true),
        ("get /pods/log a/x", true, true, true),
        ("get /secrets a/x", false, true, true),
        ("create apps/deployments a/", false, true, true),
        ("create /pods/exec a/x", false, true, true),
        ("create /serviceaccounts/token a/x", false, true, true),
        ("create rbac.authorization.k8s.io/rolebindings a/", false, false, true),
        ("create /namespaces /", false, false, false),
        ("update /namespaces a/a", false, false, false),
        ("list /nodes /", false, false, false),
        ("get rastos.io/clusters /demo", false, false, false),
        ("create rastos.io/clusters /", false, false, false),
        ("update rastos.io/clusters/status /demo", false, false, false),
        ("list /pods b/", false, false, false),
        ("get /apis", true, true, true),
        ("create authorization.k8s.io/selfsubjectaccessreviews /", true, true, true),
    ] {
        assert_eq!((may("view", what), may("edit", what), may("admin", what)), (view, edit, admin), "{what}");
    }
    assert!(rbac.decide(&identity("x", &[MASTERS]), &at("delete /nodes /n")).allowed);
    assert!(rbac.decide(&identity("x", &[MASTERS]), &at("update rastos.io/clusters /demo")).allowed);
    assert!(!may("system:serviceaccount:a:default", "get /pods a/x"), "a pod's default token may do nothing");
    assert!(rbac.decide(&identity(SCHEDULER, &[]), &at("create /pods/binding a/x")).allowed);
    assert!(!rbac.decide(&identity(SCHEDULER, &[]), &at("get /secrets a/x")).allowed);
    for (what, allowed) in [
        ("delete apps/replicasets a/x", true),
        ("deletecollection /secrets a/", true),
        ("patch rbac.authorization.k8s.io/clusterroles /x", true),
        ("patch apps/deployments/status a/x", true),
        ("watch rastos.io/clusters /", true),
        ("patch rastos.io/clusters/status /demo", false),
        ("update rastos.io/clusters /demo", false),
        ("deletecollection rastos.io/clusters /", false),
        ("deletecollection /namespaces /", false),
        ("create rbac.authorization.k8s.io/roles a/x", false),
        ("create /secrets a/x", false),
        ("get /pods/log a/x", false),
        ("create /pods/exec a/x", false),
        ("create /serviceaccounts/token a/x", false),
        ("get /metrics", false),
    ] {
        assert_eq!(rbac.decide(&identity(CONTROLLERS, &[]), &at(what)).allowed, allowed, "{what}");
    }
}

fn with_defaults() -> Rbac {
    let rbac = Rbac::default();
    for (key, value) in defaults::objects(Timestamp::UNIX_EPOCH) {
        rbac.policy.write().unwrap().put(&key, value.to_string().as_bytes());
    }
    rbac
}

#[test]
fn a_node_reaches_its_own_pods_and_no_further() {
    let rbac = Rbac::default();
    let pod = json!({"spec": {
        "nodeName": "n1", "serviceAccountName": "sa", "imagePullSecrets": [{"name": "pull"}],
        "volumes": [{"secret": {"secretName": "tls"}}, {"persistentVolumeClaim": {"claimName": "disk"}},
            {"projected": {"sources": [{"configMap": {"name": "ca"}}, {"secret": {"name": "part"}}]}}],
        "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}], "envFrom": [{"configMapRef": {"name": "env"}}]}],
    }});
    let key = "/registry/core/pods/a/web";
    rbac.placed.write().unwrap().put(key, pod.to_string().as_bytes());
    let may =
        |node: &str, what: &str| rbac.decide(&identity(&format!("system:node:{node}"), &[NODES]), &at(what)).allowed;
    let needed = [
        "get /secrets a/pull",
        "get /secrets a/tls",
        "get /secrets a/key",
        "watch /secrets a/part",
        "get /configmaps a/ca",
        "get /configmaps a/env",
        "get /persistentvolumeclaims a/disk",
        "create /serviceaccounts/token a/sa",
        "get /pods a/web",
        "watch /pods a/web",
    ];
    for what in needed {
        assert!(may("n1", what), "{what}");
        assert!(!may("n2", what), "{what} by another node");
    }
    for what in [
        "get /secrets a/other",
        "get /secrets b/tls",
        "list /secrets a/",
        "update /secrets a/tls",
        "get /configmaps a/tls",
        "watch /persistentvolumeclaims a/disk",
        "get /pods a/other",
        "get /pods b/web",
        "list /pods a/",
        "watch /pods /",
        "get /pods/status a/web",
        "get /pods/log a/web",
        "list /namespaces /",
        "list discovery.k8s.io/endpointslices /",
        "get /metrics",
    ] {
        assert!(!may("n1", what), "{what}");
    }
    for (what, own) in [
        ("get /nodes /n1", true),
        ("get /nodes /n2", false),
        ("watch /nodes /n1", true),
        ("list /nodes /", false),
        ("update /nodes/status /n1", true),
        ("update /nodes/status /n2", false),
        ("delete /nodes /n1", false),
        ("update coordination.k8s.io/leases kube-node-lease/n1", true),
        ("update coordination.k8s.io/leases kube-node-lease/n2", false),
        ("update coordination.k8s.io/leases kube-system/n1", false),
        ("create /pods a/", false),
        ("patch /pods/status a/web", true),
        ("create /pods/exec a/web", false),
        ("create rbac.authorization.k8s.io/clusterrolebindings /", false),
    ] {
        assert_eq!(may("n1", what), own, "{what}");
    }
    let of_node = |verb: &str, node: &str| {
        let at = Attributes { node: node.into(), ..at(&format!("{verb} /pods /")) };
        rbac.decide(&identity("system:node:n1", &[NODES]), &at).allowed
    };
    assert!(of_node("list", "n1") && of_node("watch", "n1"));
    assert!(!of_node("list", "n2") && !of_node("watch", "n2") && !of_node("deletecollection", "n1"));
    rbac.placed.write().unwrap().delete(key);
    assert!(!may("n1", "get /secrets a/tls"), "its pod is gone");
    let pretender = identity("system:node:n1", &["system:authenticated"]);
    assert!(!rbac.decide(&pretender, &at("get /nodes /n1")).allowed, "a name without the group");
}

#[tokio::test]
async fn default_roles_are_brought_up_to_date_but_for_what_someone_added() {
    let store: Arc<dyn Store> = Arc::new(store::Memory::default());
    let key = |name: &str| format!("{}clusterroles/{name}", policy::PREFIX);
    let stars = json!({"apiGroups": ["*"], "resources": ["*"],
        "verbs": ["get", "list", "watch", "patch", "update", "delete", "deletecollection"]});
    let added = json!({"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]});
    let role = |name: &str, auto: &str| {
        let metadata = json!({"name": name, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": auto}});
        json!({"metadata": metadata, "rules": [stars, added]}).to_string().into()
    };
    let old = [("system:controllers", "true"), ("system:kube-scheduler", "true"), ("system:discovery", "false")];
    let writes = old.map(|(name, auto)| store::Write::Put(key(name), role(name, auto))).into();
    store.commit(store::Txn { checks: vec![], writes }).await.unwrap();
    Rbac::open(store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
    let rules = async |name: &str| -> Vec<Value> {
        let entry = store.get(&key(name), None).await.unwrap().unwrap();
        serde_json::from_slice::<Value>(&entry.value).unwrap()["rules"].as_array().unwrap().clone()
    };
    let controllers = rules("system:controllers").await;
    assert!(!controllers.contains(&stars) && controllers.contains(&added) && controllers.len() > 5, "{controllers:?}");
    let scheduler = rules("system:kube-scheduler").await;
    assert!(scheduler.contains(&stars) && scheduler.contains(&added), "the stars are someone's: {scheduler:?}");
    assert_eq!(rules("system:discovery").await, [stars.clone(), added.clone()]);
    let before = store.revision().await.unwrap();
    Rbac::open(store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), before, "nothing is left to do");
}

#[tokio::test]
async fn a_node_may_be_told_of_its_pod_before_the_authoriser_is() {
    let store: Arc<dyn Store> = Arc::new(store::Memory::default());
    let rbac = Rbac::open(store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
    let (n1, at) = (identity("system:node:n1", &[NODES]), at("get /secrets a/tls"));
    let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "tls"}}]}});
    let bind = async {
        // Only once the request has been refused for the first time.
        tokio::task::yield_now().await;
        let writes = vec![store::Write::Put("/registry/core/pods/a/web".into(), pod.to_string().into())];
        store.commit(store::Txn { checks: vec![], writes }).await.unwrap();
    };
    let (decision, ()) = tokio::join!(rbac.decide_soon(&n1, &at), bind);
    assert!(decision.allowed, "{}", decision.reason);
    assert!(!rbac.decide_soon(&identity("system:node:n2", &[NODES]), &at).await.allowed);
}

/// A node that asks for what it may not have keeps no more requests open than any other user may.
#[tokio::test]
async fn refusals_that_are_put_off_are_counted() {
    let (rbac, at) = (Rbac::default(), at("get /secrets a/tls"));
    let ask = |node: &str| {
        let node = identity(&format!("system:node:{node}"), &[NODES]);
        let (rbac, at) = (&rbac, &at);
        let mut asked = Box::pin(async move { rbac.decide_soon(&node, at).await.allowed });
        let answered = asked.as_mut().now_or_never();
        (asked, answered)
    };
    let waiting: Vec<_> = (0..1000).map(|_| ask("n1")).take_while(|(_, answered)| answered.is_none()).collect();
    assert_eq!(waiting.len(), PUT_OFF.1);
    assert_eq!((ask("n1").1, ask("n2").1), (Some(false), None));
    drop(waiting);
    assert_eq!(ask("n1").1, None);
}

// The judge goes through all bindings and all parts of all rules, with no index and no short cut.

/// Namespace and name, those of the role, and the subjects.
type Bound = (String, String, String, String, Vec<(&'static str, String)>);

#[derive(Clone, Debug)]
struct World {
    roles: Vec<(String, String, Vec<PolicyRule>)>,
    bindings: Vec<Bound>,
}

fn judge(world: &World, who: &Identity, at: &Attributes) -> bool {
    for (namespace, _, role_namespace, role, subjects) in &world.bindings {
        let meant = subjects.iter().any(|(kind, name)| match *kind {
            "User" => *name == who.user,
            _ => who.groups.contains(name),
        });
        if !meant || !(namespace.is_empty() || *namespace == at.namespace) {
            continue;
        }
        for (ns, name, rules) in &world.roles {
            if ns == role_namespace && name == role && rules.iter().any(|rule| judge_rule(rule, at)) {
                return true;
            }
        }
    }
    false
}

fn judge_rule(rule: &PolicyRule, at: &Attributes) -> bool {
    let none = vec![];
    let list = |l: &'_ Option<Vec<String>>| l.clone().unwrap_or_default();
    let mut verb = false;
    for v in &rule.verbs {
        verb |= v == "*" || v == &at.verb;
    }
    if !at.is_resource {
        let urls = list(&rule.non_resource_urls);
        return verb
            && urls.iter().any(
                |u| {
                    if u.ends_with('*') { at.path.starts_with(&u[..u.len() - 1]) } else { *u == at.path }
                },
            );
    }
    let full =
        if at.subresource.is_empty() { at.resource.clone() } else { format!("{}/{}", at.resource, at.subresource) };
    let any = format!("*/{}", at.subresource);
    let resource =
        list(&rule.resources).iter().any(|r| *r == "*" || *r == full || (!at.subresource.is_empty() && *r == any));
    let group = list(&rule.api_groups).iter().any(|g| *g == "*" || *g == at.group);
    let names = rule.resource_names.as_ref().unwrap_or(&none);
    verb && resource && group && (names.is_empty() || (!at.name.is_empty() && names.contains(&at.name)))
}

fn some(of: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(select(of).prop_map(str::to_owned), 0..3)
}

fn a_rule() -> impl Strategy<Value = PolicyRule> {
    let resources = some(&["pods", "pods/log", "*", "*/log", "secrets"]);
    let names = proptest::option::of(some(&["x", "y"]));
    let parts =
        (some(&["get", "list", "*"]), some(&["", "apps", "*"]), resources, names, some(&["/a", "/a/*", "*", "/b*"]));
    parts.prop_map(|(verbs, groups, resources, resource_names, urls)| PolicyRule {
        verbs,
        api_groups: Some(groups),
        resources: Some(resources),
        resource_names,
        non_resource_urls: Some(urls),
    })
}

fn a_request() -> impl Strategy<Value = Attributes> {
    let parts = (
        select(&["get", "list"][..]),
        select(&["", "apps"][..]),
        select(&["pods", "secrets"][..]),
        select(&["", "log"][..]),
        select(&["", "n1", "n2"][..]),
        select(&["", "x", "y"][..]),
        select(&["/a", "/a/b", "/b", "/bc"][..]),
        any::<bool>(),
    );
    parts.prop_map(|(verb, group, resource, subresource, namespace, name, path, is_resource)| {
        let (namespace, resource) = if is_resource { (namespace, resource) } else { ("", "") };
        Attributes {
            verb: verb.into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            node: String::new(),
            path: path.into(),
            is_resource,
        }
    })
}

fn a_world() -> impl Strategy<Value = World> {
    let role = (select(&["", "n1"][..]), select(&["r1", "r2"][..]), proptest::collection::vec(a_rule(), 0..3));
    let subject = prop_oneof![
        select(&["u1", "u2"][..]).prop_map(|u| ("User", u.to_owned())),
        select(&["g1", "g2"][..]).prop_map(|g| ("Group", g.to_owned())),
    ];
    let binding = (
        select(&["", "n1", "n2"][..]),
        select(&["b1", "b2"][..]),
        any::<bool>(),
        select(&["r1", "r2"][..]),
        proptest::collection::vec(subject, 0..3),
    );
    (proptest::collection::vec(role, 0..5), proptest::collection::vec(binding, 0..5)).prop_map(|(roles, bindings)| {
        let mut world = World { roles: vec![], bindings: vec![] };
        for (ns, name, rules) in roles {
            world.roles.retain(|(n, m, _)| (n.as_str(), m.as_str()) != (ns, name));
            world.roles.push((ns.into(), name.into(), rules));
        }
        for (ns, name, of_cluster, role, subjects) in bindings {
            let role_ns = if of_cluster { "" } else { ns };
            world.bindings.retain(|(n, m, ..)| (n.as_str(), m.as_str()) != (ns, name));
            world.bindings.push((ns.into(), name.into(), role_ns.into(), role.into(), subjects));
        }
        world
    })
}

fn load(policy: &mut Policy, world: &World) {
    for (ns, name, rules) in &world.roles {
        let key = if ns.is_empty() { format!("clusterroles/{name}") } else { format!("roles/{ns}/{name}") };
        put(policy, &key, json!({"metadata": {}, "rules": rules}));
    }
    for (ns, name, role_ns, role, subjects) in &world.bindings {
        let key =
            if ns.is_empty() { format!("clusterrolebindings/{name}") } else { format!("rolebindings/{ns}/{name}") };
        let kind = if role_ns.is_empty() { "ClusterRole" } else { "Role" };
        let subjects: Vec<_> = subjects.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect();
        put(policy, &key, json!({"metadata": {}, "roleRef": reference(kind, role), "subjects": subjects}));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decides_as_the_slow_judge(before in a_world(), world in a_world(), requests in proptest::collection::vec(a_request(), 20)) {
        // What stood before and is gone or replaced must leave no trace.
        let mut policy = Policy::default();
        load(&mut policy, &before);
        for kind in ["clusterroles/", "roles/n1/", "clusterrolebindings/", "rolebindings/n1/", "rolebindings/n2/"] {
            for name in ["r1", "r2", "b1", "b2"] {
                policy.delete(&format!("{}{kind}{name}", policy::PREFIX));
            }
        }
        load(&mut policy, &world);
        let who = identity("u1", &["g1"]);
        for request in requests {
            prop_assert_eq!(policy.decide(&who, &request).allowed, judge(&world, &who, &request), "{:?}", request);
        }
    }

    #[test]
    fn what_is_covered_is_allowed(
        held in proptest::collection::vec(a_rule(), 0..3),
        wanted in proptest::collection::vec(a_rule(), 0..2),
        requests in proptest::collection::vec(a_request(), 50),
    ) {
        let missing: Vec<_> = rules::missing(&held, &wanted).collect();
        for request in requests {
            let allowed = |rules: &[PolicyRule]| rules.iter().any(|rule| judge_rule(rule, &request));
            prop_assert!(!allowed(&wanted) || allowed(&held) || allowed(&missing), "{:?}", request);
        }
        prop_assert!(rules::missing(&[held.clone(), wanted.clone()].concat(), &wanted).next().is_none());
        prop_assert!(rules::missing(&defaults::everything(), &wanted).next().is_none());
    }
}
