use jiff::Timestamp;
use serde_json::json;
use store::{Memory, Txn, Write};

use super::*;
use crate::rbac::{MASTERS, NODES, Rbac};

/// A cluster's store and its authoriser.
pub(crate) struct World {
    pub(crate) ctx: Admission,
    pub(crate) rbac: Arc<Rbac>,
}

impl World {
    /// With the namespace `a`, its account `default`, and the users `admin`, `edit` and `view` bound there to the
    /// roles of their names.
    pub(crate) async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let put = |key: &str, object: Value| Write::Put(key.into(), object.to_string().into());
        let mut writes = vec![
            put("/registry/core/namespaces/a", json!({"metadata": {"name": "a"}})),
            put("/registry/core/serviceaccounts/a/default", account("default", json!({}))),
        ];
        for role in ["admin", "edit", "view"] {
            let key = format!("/registry/rbac.authorization.k8s.io/rolebindings/a/{role}");
            writes.push(put(&key, binding("a", role, "ClusterRole", role)));
        }
        store.commit(Txn { checks: vec![], writes }).await.unwrap();
        let rbac = Rbac::open(store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
        let registry = Arc::new(api::builtin());
        Self { ctx: Admission { store, registry, authorizer: rbac.clone() }, rbac }
    }

    pub(crate) async fn put(&self, key: &str, object: Value) {
        let writes = vec![Write::Put(key.into(), object.to_string().into())];
        self.ctx.store.commit(Txn { checks: vec![], writes }).await.unwrap();
    }

    pub(crate) fn kind(&self, kind: &str) -> &Kind {
        self.ctx.registry.kinds().iter().find(|k| k.kind == kind).unwrap()
    }

    /// Asks for `verb` (or `verb/subresource`) on an object of the namespace `a`.
    async fn admit(
        &self,
        who: &Identity,
        verb: &str,
        kind: &str,
        old: Option<Value>,
        new: Value,
    ) -> std::result::Result<(Value, Warnings), String> {
        let (verb, subresource) = verb.split_once('/').unwrap_or((verb, ""));
        let (mut object, warnings) = (new, Warnings::default());
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let kind = self.kind(kind);
        let namespace = if kind.scope == api::Scope::Namespaced { "a" } else { "" };
        let (old, warned) = (old.as_ref(), &warnings);
        let request = Request {
            kind,
            verb,
            subresource,
            namespace,
            name: &name,
            identity: who,
            old,
            dry_run: false,
            warnings: warned,
        };
        match admit(&self.ctx, &request, &mut object).await {
            Ok(()) => Ok((object, warnings)),
            Err(error) => {
                assert!(matches!(error.code.as_u16(), 403 | 404), "{error}");
                Err(error.message)
            }
        }
    }

    async fn create(&self, who: &Identity, kind: &str, new: Value) -> std::result::Result<Value, String> {
        self.admit(who, "create", kind, None, new).await.map(|(object, _)| object)
    }
}

pub(crate) fn user(name: &str) -> Identity {
    Identity { user: name.into(), groups: vec!["system:authenticated".into()], ..Identity::default() }
}

pub(crate) fn root() -> Identity {
    Identity::system("admin", &[MASTERS])
}

pub(crate) fn node(name: &str) -> Identity {
    Identity::system(&format!("node:{name}"), &[NODES])
}

pub(crate) fn account(name: &str, more: Value) -> Value {
    let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}")}});
    for (field, value) in more.as_object().into_iter().flatten() {
        account[field] = value.clone();
    }
    account
}

fn binding(namespace: &str, user: &str, kind: &str, role: &str) -> Value {
    json!({"metadata": {"name": user, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]})
}

fn pod(spec: Value) -> Value {
    let mut pod =
        json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][field] = value.clone();
    }
    pod
}

#[tokio::test]
async fn a_pod_gets_its_account_and_token() {
    let w = World::new().await;
    let pod_ = w.create(&user("edit"), "Pod", pod(json!({"initContainers": [{"name": "i"}]}))).await.unwrap();
    let spec = &pod_["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == 21, "{volume}");
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    for container in [&spec["containers"][0], &spec["initContainers"][0]] {
        let mount =
            json!({"name": volume, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"});
        assert_eq!(container["volumeMounts"], json!([mount]));
    }
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
}

#[tokio::test]
async fn a_class_that_a_pod_names_is_not_found() {
    let w = World::new().await;
    for (field, kind) in [("runtimeClassName", "RuntimeClass"), ("priorityClassName", "PriorityClass")] {
        let refused = w.create(&root(), "Pod", pod(json!({field: "fast"}))).await.unwrap_err();
        assert!(refused.ends_with(&format!("{kind} \"fast\" not found")), "{refused}");
        w.create(&root(), "Pod", pod(json!({field: ""}))).await.unwrap();
    }
}

#[tokio::test]
async fn a_pod_or_its_account_may_do_without_a_token() {
    let w = World::new().await;
    let more = json!({"automountServiceAccountToken": false, "imagePullSecrets": [{"name": "pull"}]});
    w.put("/registry/core/serviceaccounts/a/quiet", account("quiet", more)).await;
    let quiet = w.create(&root(), "Pod", pod(json!({"serviceAccountName": "quiet"}))).await.unwrap();
    assert!(quiet["spec"].get("volumes").is_none() && quiet["spec"].get("initContainers").is_none());
    assert_eq!(quiet["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let loud = json!({"serviceAccountName": "quiet", "automountServiceAccountToken": true});
    assert_eq!(w.create(&root(), "Pod", pod(loud)).await.unwrap()["spec"]["volumes"].as_array().unwrap().len(), 1);
    let own = json!({"containers": [{"name": "c", "volumeMounts": [
        {"name": "x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}]});
    let own = w.create(&root(), "Pod", pod(own)).await.unwrap();
    assert!(own["spec"].get("volumes").is_none(), "a mount of its own is left alone");
    assert!(own["spec"].get("initContainers").is_none(), "nothing is added that was not there");
}

#[tokio::test]
async fn a_missing_account_is_named() {
    let w = World::new().await;
    let error = w.create(&root(), "Pod", pod(json!({"serviceAccountName": "x"}))).await.unwrap_err();
    assert!(error.contains(r#"serviceaccount "x" not found: create it first"#), "{error}");
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let w = World::new().await;
    w.ctx
        .store
        .commit(Txn { checks: vec![], writes: vec![Write::Delete("/registry/core/serviceaccounts/a/default".into())] })
        .await
        .unwrap();
    let who = root();
    let asked = w.create(&who, "Pod", pod(json!({})));
    let made = w.put("/registry/core/serviceaccounts/a/default", account("default", json!({})));
    let (pod, ()) = tokio::join!(asked, made);
    assert_eq!(pod.unwrap()["spec"]["serviceAccountName"], "default");
}

#[tokio::test]
async fn what_a_pod_may_ask_of_the_host_is_its_namespaces_right() {
    let w = World::new().await;
    let label = async |level: Option<&str>| {
        let labels = level.map(|l| json!({"pod-security.kubernetes.io/enforce": l})).unwrap_or_default();
        w.put("/registry/core/namespaces/a", json!({"metadata": {"name": "a", "labels": labels}})).await;
    };
    let host_network = || pod(json!({"hostNetwork": true}));
    let host_port = || pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}));
    let controllers = Identity::system("controllers", &[]);
    for who in [&controllers, &user("edit"), &root()] {
        label(None).await;
        let error = w.create(who, "Pod", host_network()).await.unwrap_err();
        for part in [r#"namespace "a""#, "baseline with host ports", "spec.hostNetwork", "cluster-admin"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        assert!(w.create(who, "Pod", host_port()).await.is_ok(), "the default takes host ports");
        label(Some("baseline")).await;
        assert!(w.create(who, "Pod", host_port()).await.unwrap_err().contains("hostPort"));
        label(Some("privileged")).await;
        assert!(w.create(who, "Pod", host_network()).await.is_ok());
        label(Some("mistyped")).await;
        assert!(w.create(who, "Pod", pod(json!({}))).await.is_err(), "the least is granted");
    }
}

#[tokio::test]
async fn a_running_pod_does_not_get_more_by_an_ephemeral_container() {
    let w = World::new().await;
    let debug = pod(json!({"ephemeralContainers": [{"name": "d", "securityContext": {"privileged": true}}]}));
    let error = w.admit(&user("edit"), "update/ephemeralcontainers", "Pod", Some(pod(json!({}))), debug).await;
    assert!(error.err().unwrap().contains("spec.ephemeralContainers[0].securityContext.privileged"));
}

#[tokio::test]
async fn a_template_whose_pods_will_be_refused_is_warned_about() {
    let w = World::new().await;
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {
        "hostPID": true, "containers": [{"name": "c"}]}}}});
    let (_, warnings) = w.admit(&user("edit"), "create", "Deployment", None, deployment).await.unwrap();
    let text = format!("{warnings:?}");
    assert!(text.contains("spec.template.spec.hostPID"), "{text}");
}

#[tokio::test]
async fn only_a_cluster_admin_changes_a_namespaces_level() {
    let w = World::new().await;
    w.put("/registry/rbac.authorization.k8s.io/clusterrolebindings/edit", binding("", "edit", "ClusterRole", "admin"))
        .await;
    let namespace = |level: &str| {
        let labels = if level.is_empty() { json!({}) } else { json!({"pod-security.kubernetes.io/enforce": level}) };
        json!({"metadata": {"name": "a", "labels": labels}})
    };
    for (old, new) in [("", "privileged"), ("baseline", "restricted"), ("restricted", "")] {
        let ask = async |who: &Identity| w.admit(who, "patch", "Namespace", Some(namespace(old)), namespace(new)).await;
        assert!(ask(&user("edit")).await.err().unwrap().contains("only a cluster-admin"));
        assert!(ask(&root()).await.is_ok());
    }
    assert!(w.create(&user("edit"), "Namespace", namespace("privileged")).await.is_err());
    assert!(w.create(&user("edit"), "Namespace", namespace("")).await.is_ok());
    assert!(w.create(&root(), "Namespace", namespace("priviliged")).await.unwrap_err().contains("must be privileged"));
}

#[tokio::test]
async fn the_clusters_own_namespaces_stay() {
    let w = World::new().await;
    for name in ["default", "kube-system", "kube-public"] {
        let namespace = json!({"metadata": {"name": name}});
        assert!(w.admit(&root(), "delete", "Namespace", Some(namespace.clone()), namespace).await.is_err());
    }
    let namespace = json!({"metadata": {"name": "a"}});
    assert!(w.admit(&root(), "delete", "Namespace", Some(namespace.clone()), namespace).await.is_ok());
}

#[tokio::test]
async fn nobody_gives_away_rights_that_he_does_not_have() {
    let w = World::new().await;
    let role = |group: &str, resource: &str, verb: &str| {
        json!({"metadata": {"name": "r", "namespace": "a"},
            "rules": [{"apiGroups": [group], "resources": [resource], "verbs": [verb]}]})
    };
    let admin = user("admin");
    assert!(w.create(&admin, "Role", role("", "pods", "get")).await.is_ok());
    let error = w.create(&admin, "Role", role("", "nodes", "get")).await.unwrap_err();
    assert!(error.contains(r#"{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}"#), "{error}");
    assert!(w.create(&admin, "Role", role("*", "*", "*")).await.is_err());
    let same = role("*", "*", "*");
    assert!(w.admit(&admin, "update", "Role", Some(same.clone()), same).await.is_ok(), "rules that stay");
    let aggregating = json!({"metadata": {"name": "r"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": []}});
    assert!(w.create(&admin, "ClusterRole", aggregating).await.is_err());
    assert!(w.create(&root(), "ClusterRole", role("*", "*", "*")).await.is_ok());

    assert!(w.create(&admin, "RoleBinding", binding("a", "bob", "ClusterRole", "edit")).await.is_ok());
    for role in ["cluster-admin", "system:controllers"] {
        assert!(w.create(&admin, "RoleBinding", binding("a", "bob", "ClusterRole", role)).await.is_err(), "{role}");
    }
    assert!(w.create(&admin, "ClusterRoleBinding", binding("", "bob", "ClusterRole", "view")).await.is_err());
    // A change is no way round it, unless it leaves alone what counts.
    let bound = binding("a", "bob", "ClusterRole", "cluster-admin");
    let mut own = bound.clone();
    own["subjects"][0]["name"] = json!("admin");
    for verb in ["update", "patch"] {
        let change = async |kind, old: &Value, new: &Value| {
            w.admit(&admin, verb, kind, Some(old.clone()), new.clone()).await.is_ok()
        };
        assert!(!change("Role", &role("", "pods", "get"), &role("*", "*", "*")).await, "{verb} of a role");
        assert!(!change("RoleBinding", &bound, &own).await, "{verb} of a binding");
        assert!(change("RoleBinding", &bound, &bound).await);
    }
    // One that may be made later, and strong.
    let later = w.create(&admin, "RoleBinding", binding("a", "bob", "ClusterRole", "later")).await;
    assert_eq!(later.unwrap_err(), r#"clusterroles.rbac.authorization.k8s.io "later" not found"#);
    assert!(w.create(&admin, "RoleBinding", binding("a", "bob", "Role", "later")).await.is_err());
    assert!(w.create(&root(), "RoleBinding", binding("a", "bob", "Role", "later")).await.is_ok());
    // Written a moment ago: the authoriser may not have heard of it.
    w.put("/registry/rbac.authorization.k8s.io/roles/a/strong", role("", "nodes", "delete")).await;
    assert!(w.create(&admin, "RoleBinding", binding("a", "bob", "Role", "strong")).await.is_err());
    // One that says nothing gives nothing.
    w.put("/registry/rbac.authorization.k8s.io/roles/a/empty", json!({"metadata": {"name": "empty"}})).await;
    assert_eq!(w.create(&admin, "RoleBinding", binding("a", "bob", "Role", "empty")).await.err(), None);
}

#[tokio::test]
async fn what_a_role_combines_is_bounded() {
    let w = World::new().await;
    let many = |what: &str, n: usize| -> Vec<String> { (0..n).map(|i| format!("{what}{i}")).collect() };
    let role = |verbs: usize| {
        json!({"metadata": {"name": "r", "namespace": "a"}, "rules": [
            {"verbs": many("v", verbs), "apiGroups": many("g", 60), "resources": many("r", 60), "resourceNames": many("n", 60)}]})
    };
    let error = w.create(&user("admin"), "Role", role(60)).await.unwrap_err();
    assert!(error.contains("in 12960000 ways"), "{error}");
    let named = json!({"metadata": {"name": "r"}, "rules": [
        {"verbs": ["get"], "apiGroups": many("g", 90), "resources": many("r", 90)}]});
    let error = w.create(&user("admin"), "Role", named).await.unwrap_err();
    assert!(error.ends_with("and more") && error.lines().count() == 12, "{error}");
    // Who holds it all in one rule is not asked for the parts.
    let all = json!({"metadata": {"name": "all", "namespace": "a"}, "rules": [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    w.put("/registry/rbac.authorization.k8s.io/roles/a/all", all).await;
    w.put("/registry/rbac.authorization.k8s.io/rolebindings/a/all", binding("a", "all", "Role", "all")).await;
    let heard = async {
        while w.rbac.rules(&user("all"), "a").iter().all(|rule| rule.verbs != ["*"]) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), heard).await.unwrap();
    assert!(w.create(&user("all"), "Role", role(60)).await.is_ok());
}

#[tokio::test]
async fn verbs_bind_and_escalate_lift_the_limit() {
    let w = World::new().await;
    let lift = json!({"metadata": {"name": "lift", "namespace": "a"}, "rules": [
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"], "verbs": ["bind"]}]});
    w.put("/registry/rbac.authorization.k8s.io/roles/a/lift", lift).await;
    w.put("/registry/rbac.authorization.k8s.io/rolebindings/a/lift", binding("a", "lift", "Role", "lift")).await;
    let heard = async {
        while w.rbac.rules(&user("lift"), "a").is_empty() || w.rbac.role("a", "lift").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), heard).await.unwrap();
    let all = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]});
    assert!(w.create(&user("lift"), "Role", all).await.is_ok());
    assert!(w.create(&user("lift"), "RoleBinding", binding("a", "bob", "ClusterRole", "cluster-admin")).await.is_ok());
    assert!(w.create(&user("lift"), "RoleBinding", binding("a", "bob", "ClusterRole", "admin")).await.is_err());
}

#[tokio::test]
async fn a_node_writes_about_itself_only() {
    let w = World::new().await;
    let bound = |to: &str| pod(json!({"nodeName": to}));
    for verb in ["update/status", "delete", "create/eviction"] {
        assert!(w.admit(&node("n1"), verb, "Pod", Some(bound("n1")), bound("n1")).await.is_ok(), "{verb}");
        assert!(w.admit(&node("n1"), verb, "Pod", Some(bound("n2")), bound("n1")).await.is_err(), "{verb}");
    }
    assert!(w.create(&node("n1"), "Pod", bound("n1")).await.is_err());
    let named = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {label: "x"}}});
    let reserved = "node-restriction.kubernetes.io/x";
    assert!(w.create(&node("n1"), "Node", named("n1", "zone")).await.is_ok());
    assert!(w.create(&node("n1"), "Node", named("n2", "zone")).await.is_err());
    assert!(w.create(&node("n1"), "Node", named("n1", reserved)).await.is_err());
    let (old, new) = (named("n1", reserved), named("n1", "zone"));
    assert!(w.admit(&node("n1"), "patch", "Node", Some(old.clone()), new).await.is_err());
    assert!(w.admit(&node("n1"), "patch", "Node", Some(old.clone()), old).await.is_ok());
    assert!(w.create(&node("n1"), "Lease", named("n2", "x")).await.is_err());
    let tainted = json!({"metadata": {"name": "n1"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let plain = json!({"metadata": {"name": "n1"}});
    assert!(w.create(&node("n1"), "Node", tainted.clone()).await.is_ok());
    for (old, new) in [(&tainted, &plain), (&plain, &tainted)] {
        let error = w.admit(&node("n1"), "patch", "Node", Some(old.clone()), new.clone()).await.err().unwrap();
        assert!(error.contains("taints"), "{error}");
    }
}
