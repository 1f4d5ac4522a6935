//! Specs that are refused, each with the path of its fault; and specs that are not.

use api::{Faults, builtin};
use serde_json::{Value, json};

/// An object with its defaults, judged as the API server judges it.
fn judge(object: Value) -> Faults {
    let registry = builtin();
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let kind = registry.object(version, kind).unwrap();
    kind.complete(&object).err().unwrap_or_default()
}

fn paths(object: Value) -> Vec<String> {
    let mut paths: Vec<String> = judge(object).0.iter().map(|f| f.path.to_string()).collect();
    paths.dedup();
    paths
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"containers": [{"name": "a", "image": "web:1"}]}});
    merge(&mut pod["spec"], spec);
    pod
}

/// A pod whose first container also says this.
fn container(fields: Value) -> Value {
    let mut pod = pod(json!({}));
    merge(&mut pod["spec"]["containers"][0], fields);
    pod
}

/// A pod with this volume, mounted.
fn volume(source: Value) -> Value {
    let mut pod = container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    let mut volume = json!({"name": "v"});
    merge(&mut volume, source);
    pod["spec"]["volumes"] = json!([volume]);
    pod
}

fn mount(fields: Value) -> Value {
    let mut pod = volume(json!({"emptyDir": {}}));
    merge(&mut pod["spec"]["containers"][0]["volumeMounts"][0], fields);
    pod
}

fn context(fields: Value) -> Value {
    container(json!({"securityContext": fields}))
}

fn probe(kind: &str, fields: Value) -> Value {
    container(json!({kind: fields}))
}

fn merge(into: &mut Value, fields: Value) {
    for (key, value) in fields.as_object().unwrap() {
        into[key] = value.clone();
    }
}

#[track_caller]
fn refused(object: Value, path: &str) {
    assert_eq!(paths(object.clone()), [path], "{object}");
}

#[test]
fn mounts_that_lead_elsewhere() {
    let path = "spec.containers[0].volumeMounts[0].mountPath";
    for bad in [
        "",
        "/proc/..",
        "/proc",
        "/proc/sys",
        "//proc/self",
        "/./proc",
        "relative",
        "/a/../b",
        "/a\0b",
        "/a:b",
        "/",
        "/.",
    ] {
        refused(mount(json!({"mountPath": bad})), path);
    }
    for field in ["subPath", "subPathExpr"] {
        for bad in ["..", "a/../..", "/etc", "a\0"] {
            refused(mount(json!({field: bad})), &format!("spec.containers[0].volumeMounts[0].{field}"));
        }
    }
    refused(mount(json!({"name": "other"})), "spec.containers[0].volumeMounts[0].name");
    refused(mount(json!({"subPath": "a", "subPathExpr": "b"})), "spec.containers[0].volumeMounts[0].subPathExpr");
    let at = "spec.containers[0].volumeMounts[0].mountPropagation";
    refused(mount(json!({"mountPropagation": "Bidirectional"})), at);
    let at = "spec.containers[0].volumeMounts[0].recursiveReadOnly";
    refused(mount(json!({"recursiveReadOnly": "Enabled"})), at);
    let twice = json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v/"}]);
    let mut pod = mount(json!({}));
    pod["spec"]["containers"][0]["volumeMounts"] = twice;
    refused(pod, "spec.containers[0].volumeMounts[1].mountPath");
}

#[test]
fn sysctls_that_are_none_are_told_before_those_that_reach_the_host() {
    let named = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        let registry = api::builtin();
        let kind = registry.object("v1", "Pod").unwrap();
        let faults = kind.complete(&pod(json!({"securityContext": {"sysctls": list}}))).unwrap_err();
        faults.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let text = named(&["foo-", "kernel.shmmax", "safe-and-unsafe", "bar.."]);
    assert!(text.contains("Invalid value: \"foo-\"") && text.contains("Invalid value: \"bar..\""), "{text}");
    assert!(!text.contains("shmmax") && !text.contains("safe-and-unsafe"), "{text}");
    assert!(named(&["kernel.shmmax"]).contains("reach beyond the pod"));
}

#[test]
fn sysctls_that_reach_the_host() {
    let at = "spec.securityContext.sysctls[0].name";
    for name in ["kernel.core_pattern", "kernel/core_pattern", "vm.overcommit_memory", "", "net.core.somaxconn"] {
        refused(pod(json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}})), at);
    }
    for name in ["net.ipv4.tcp_syncookies", "net/ipv4/tcp_syncookies"] {
        let own = json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        refused(pod(own), at);
    }
    let names = ["kernel.shm_rmid_forced", "kernel/shm_rmid_forced"];
    let twice = json!({"securityContext": {"sysctls": names.map(|name| json!({"name": name, "value": "1"}))}});
    refused(pod(twice), "spec.securityContext.sysctls[1].name");
}

#[test]
fn amounts_that_are_none() {
    for bad in
        [json!("NaN"), json!("-1"), json!(-1), json!("9223372036854775808"), json!("1e400"), json!("x"), json!(1e300)]
    {
        refused(
            container(json!({"resources": {"limits": {"memory": bad}}})),
            "spec.containers[0].resources.limits[memory]",
        );
    }
    let more = json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1001m"}}});
    refused(container(more), "spec.containers[0].resources.requests[cpu]");
    let gpu = json!({"resources": {"limits": {"nvidia.com/gpu": "1"}}});
    refused(container(gpu), "spec.containers[0].resources.limits[nvidia.com/gpu]");
    refused(volume(json!({"emptyDir": {"sizeLimit": "-1Gi"}})), "spec.volumes[0].emptyDir.sizeLimit");
}

#[test]
fn ports_that_are_none() {
    for bad in [0, 65536, -1] {
        refused(container(json!({"ports": [{"containerPort": bad}]})), "spec.containers[0].ports[0].containerPort");
    }
    let at = "spec.containers[0].ports[0]";
    refused(container(json!({"ports": [{"containerPort": 80, "hostPort": 65536}]})), &format!("{at}.hostPort"));
    refused(container(json!({"ports": [{"containerPort": 80, "protocol": "tcp"}]})), &format!("{at}.protocol"));
    refused(container(json!({"ports": [{"containerPort": 80, "hostIP": "10.0.0"}]})), &format!("{at}.hostIP"));
    for loopback in ["127.0.0.1", "127.9.9.9", "::1"] {
        let port = json!({"ports": [{"containerPort": 80, "hostPort": 80, "hostIP": loopback}]});
        refused(container(port), &format!("{at}.hostIP"));
    }
    refused(container(json!({"ports": [{"containerPort": 80, "name": "80"}]})), &format!("{at}.name"));
    refused(container(json!({"ports": [{"containerPort": 4294967376i64}]})), &format!("{at}.containerPort"));
    let twice = json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}]});
    refused(container(twice), "spec.containers[0].ports[1].hostPort");
    let mut host = container(json!({"ports": [{"containerPort": 80, "hostPort": 81}]}));
    host["spec"]["hostNetwork"] = json!(true);
    refused(host, &format!("{at}.hostPort"));
    for bad in [json!(0), json!(65536), json!("80"), json!("")] {
        let at = "spec.containers[0].livenessProbe.tcpSocket.port";
        refused(probe("livenessProbe", json!({"tcpSocket": {"port": bad}})), at);
    }
}

#[test]
fn names_that_are_none() {
    for bad in ["a/b", "..", "A", &"a".repeat(64 * 1024)] {
        let mut named = pod(json!({}));
        named["metadata"]["name"] = json!(bad);
        refused(named, "metadata.name");
        refused(container(json!({"name": bad})), "spec.containers[0].name");
        refused(pod(json!({"hostname": bad})), "spec.hostname");
    }
    refused(pod(json!({"containers": []})), "spec.containers");
    let twins = json!([{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]);
    refused(pod(json!({"containers": twins})), "spec.containers[1].name");
    refused(pod(json!({"initContainers": [{"name": "a", "image": "b"}]})), "spec.containers[0].name");
    for bad in ["", " web", "we b", "web\n"] {
        refused(container(json!({"image": bad})), "spec.containers[0].image");
    }
    let twins = json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
    refused(pod(json!({"volumes": twins})), "spec.volumes[1].name");
}

#[test]
fn words_that_are_none() {
    for (field, at) in [
        (json!({"restartPolicy": "always"}), "spec.restartPolicy"),
        (json!({"dnsPolicy": "x"}), "spec.dnsPolicy"),
        (json!({"dnsPolicy": "None"}), "spec.dnsConfig.nameservers"),
        (json!({"dnsConfig": {"nameservers": ["x"]}}), "spec.dnsConfig.nameservers[0]"),
        (json!({"dnsConfig": {"searches": ["a b"]}}), "spec.dnsConfig.searches[0]"),
        (json!({"dnsConfig": {"options": [{"name": "ndots\nnameserver"}]}}), "spec.dnsConfig.options[0].name"),
        (json!({"hostAliases": [{"ip": "x"}]}), "spec.hostAliases[0].ip"),
        (json!({"activeDeadlineSeconds": 0}), "spec.activeDeadlineSeconds"),
        (json!({"nodeSelector": {"a": "b c"}}), "spec.nodeSelector[a]"),
        (json!({"tolerations": [{"operator": "Equal"}]}), "spec.tolerations[0].operator"),
        (json!({"tolerations": [{"key": "a", "tolerationSeconds": 300}]}), "spec.tolerations[0].effect"),
        (json!({"os": {"name": "windows"}}), "spec.os"),
        (json!({"imagePullSecrets": [{}]}), "spec.imagePullSecrets[0].name"),
        (json!({"securityContext": {"fsGroup": -1}}), "spec.securityContext.fsGroup"),
        (json!({"securityContext": {"runAsUser": 4294967296i64}}), "spec.securityContext.runAsUser"),
        (
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        ),
    ] {
        refused(pod(field), at);
    }
    for (fields, at) in [
        (json!({"imagePullPolicy": "x"}), "imagePullPolicy"),
        (json!({"restartPolicy": "Always"}), "restartPolicy"),
        (json!({"workingDir": "/proc/self/fd/7"}), "workingDir"),
        (json!({"workingDir": "relative"}), "workingDir"),
        (json!({"command": ["a\0b"]}), "command[0]"),
        (json!({"terminationMessagePath": "/a/../../b"}), "terminationMessagePath"),
        (json!({"env": [{"name": ""}]}), "env[0].name"),
        (json!({"env": [{"name": "A=B"}]}), "env[0].name"),
        (
            json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            "env[0].valueFrom",
        ),
        (json!({"env": [{"name": "A", "valueFrom": {}}]}), "env[0].valueFrom"),
        (
            json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
            "env[0].valueFrom.fieldRef.fieldPath",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.gpu"}}}]}),
            "env[0].valueFrom.resourceFieldRef.resource",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3"}}}]}),
            "env[0].valueFrom.resourceFieldRef.divisor",
        ),
        (
            json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "a/b"}}}]}),
            "env[0].valueFrom.secretKeyRef.key",
        ),
        (json!({"envFrom": [{}]}), "envFrom[0]"),
        (json!({"lifecycle": {"preStop": {}}}), "lifecycle.preStop"),
        (json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}), "lifecycle.preStop.sleep.seconds"),
    ] {
        refused(container(fields), &format!("spec.containers[0].{at}"));
    }
    for (fields, at) in [
        (json!({"capabilities": {"add": ["CAP_NET_RAW"]}}), "capabilities.add[0]"),
        (json!({"privileged": true, "allowPrivilegeEscalation": false}), "allowPrivilegeEscalation"),
        (json!({"procMount": "x"}), "procMount"),
        (json!({"seccompProfile": {"type": "Localhost"}}), "seccompProfile.localhostProfile"),
        (
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}}),
            "seccompProfile.localhostProfile",
        ),
        (json!({"seLinuxOptions": {"level": "s0"}}), "seLinuxOptions"),
        (json!({"appArmorProfile": {"type": "RuntimeDefault"}}), "appArmorProfile"),
    ] {
        refused(context(fields), &format!("spec.containers[0].securityContext.{at}"));
    }
}

#[test]
fn probes_that_cannot_work() {
    let http = json!({"httpGet": {"port": 80}});
    let with = |fields: Value| {
        let mut probe = http.clone();
        merge(&mut probe, fields);
        probe
    };
    for (fields, at) in [
        (json!({"exec": {"command": ["a"]}}), ""),
        (json!({"periodSeconds": -1}), ".periodSeconds"),
        (json!({"successThreshold": 2}), ".successThreshold"),
        (json!({"terminationGracePeriodSeconds": 0}), ".terminationGracePeriodSeconds"),
        (json!({"httpGet": {"port": 80, "scheme": "ftp"}}), ".httpGet.scheme"),
        (
            json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}),
            ".httpGet.httpHeaders[0].name",
        ),
        (
            json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "b\r\nc"}]}}),
            ".httpGet.httpHeaders[0].value",
        ),
    ] {
        refused(probe("livenessProbe", with(fields)), &format!("spec.containers[0].livenessProbe{at}"));
    }
    refused(probe("livenessProbe", json!({"exec": {}})), "spec.containers[0].livenessProbe.exec.command");
    refused(probe("startupProbe", json!({})), "spec.containers[0].startupProbe");
    refused(probe("readinessProbe", json!({"grpc": {"port": 0}})), "spec.containers[0].readinessProbe.grpc.port");
    let at = "spec.containers[0].readinessProbe.terminationGracePeriodSeconds";
    refused(probe("readinessProbe", with(json!({"terminationGracePeriodSeconds": 5}))), at);
    let init = json!([{"name": "i", "image": "b", "readinessProbe": http}]);
    refused(pod(json!({"initContainers": init})), "spec.initContainers[0].readinessProbe");
    let sidecar = json!([{"name": "i", "image": "b", "restartPolicy": "Always", "readinessProbe": http}]);
    assert_eq!(paths(pod(json!({"initContainers": sidecar}))), Vec::<String>::new());
    let never = json!([{"name": "i", "image": "b", "restartPolicy": "Never"}]);
    refused(pod(json!({"initContainers": never})), "spec.initContainers[0].restartPolicy");
}

#[test]
fn volumes_that_cannot_be() {
    for (source, at) in [
        (json!({"emptyDir": {}, "configMap": {"name": "c"}}), ""),
        (json!({"emptyDir": {"medium": "HugePages"}}), ".emptyDir.medium"),
        (json!({"configMap": {}}), ".configMap.name"),
        (json!({"configMap": {"name": "c", "defaultMode": 512}}), ".configMap.defaultMode"),
        (json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}}), ".configMap.items[0].path"),
        (json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "/x"}]}}), ".configMap.items[0].path"),
        (json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "..data"}]}}), ".configMap.items[0].path"),
        (json!({"secret": {}}), ".secret.secretName"),
        (json!({"hostPath": {"path": "/a/../b"}}), ".hostPath.path"),
        (json!({"hostPath": {"path": "a"}}), ".hostPath.path"),
        (json!({"hostPath": {"path": "/a", "type": "x"}}), ".hostPath.type"),
        (json!({"downwardAPI": {"items": [{"path": "a"}]}}), ".downwardAPI.items[0]"),
        (
            json!({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "status.podIP"}}]}}),
            ".downwardAPI.items[0].fieldRef.fieldPath",
        ),
        (json!({"projected": {"sources": [{}]}}), ".projected.sources[0]"),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 599}}]}}),
            ".projected.sources[0].serviceAccountToken.expirationSeconds",
        ),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}, {"serviceAccountToken": {"path": "t"}}]}}),
            ".projected.sources[1].serviceAccountToken.path",
        ),
        (json!({"persistentVolumeClaim": {"claimName": "c"}}), ".persistentVolumeClaim"),
        (json!({"csi": {"driver": "c"}}), ".csi"),
        (json!({"ephemeral": {}}), ".ephemeral"),
    ] {
        refused(volume(source), &format!("spec.volumes[0]{at}"));
    }
}

fn deployment(spec: Value) -> Value {
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": {"metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "a", "image": "web:1"}]}}}});
    merge(&mut object["spec"], spec);
    object
}

#[test]
fn deployments_that_cannot_roll() {
    assert_eq!(paths(deployment(json!({}))), Vec::<String>::new());
    let rolling = |surge: Value, unavailable: Value| {
        deployment(json!({"strategy": {"rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}))
    };
    let at = "spec.strategy.rollingUpdate";
    refused(rolling(json!(0), json!("0%")), &format!("{at}.maxUnavailable"));
    refused(rolling(json!(1), json!("101%")), &format!("{at}.maxUnavailable"));
    refused(rolling(json!("x"), json!(0)), &format!("{at}.maxSurge"));
    refused(rolling(json!(-1), json!(1)), &format!("{at}.maxSurge"));
    refused(deployment(json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}})), at);
    refused(deployment(json!({"replicas": -1})), "spec.replicas");
    refused(deployment(json!({"minReadySeconds": 600})), "spec.progressDeadlineSeconds");
    refused(deployment(json!({"selector": {}})), "spec.selector");
    refused(deployment(json!({"selector": {"matchLabels": {"app": "b"}}})), "spec.template.metadata.labels");
    let expression = json!({"matchExpressions": [{"key": "a", "operator": "In"}]});
    refused(deployment(json!({"selector": expression})), "spec.selector.matchExpressions[0].values");
    let mut never = deployment(json!({}));
    never["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
    refused(never, "spec.template.spec.restartPolicy");
    let mut subdomain = deployment(json!({}));
    subdomain["spec"]["template"]["spec"]["subdomain"] = json!("a");
    refused(subdomain, "spec.template.spec.subdomain");
}

fn object(api_version: &str, kind: &str, fields: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
    merge(&mut object, fields);
    object
}

#[test]
fn other_objects_that_cannot_be() {
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = json!({"kind": "Role", "name": "r"});
    for (object, at) in [
        (object("v1", "ConfigMap", json!({"data": {"a/b": ""}})), "data"),
        (object("v1", "ConfigMap", json!({"data": {"a": ""}, "binaryData": {"a": ""}})), "binaryData[a]"),
        (object("v1", "ConfigMap", json!({"data": {"a": "x".repeat(1024 * 1024 + 1)}})), "data"),
        (object("v1", "Secret", json!({"stringData": {"..": ""}})), "data"),
        (object("v1", "Secret", json!({"data": {"a": "not base64!"}})), "data.a"),
        (object("v1", "Secret", json!({"type": "kubernetes.io/tls", "stringData": {"tls.key": ""}})), "data[tls.crt]"),
        (
            object(
                "v1",
                "Secret",
                json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "x"}}),
            ),
            "data[.dockerconfigjson]",
        ),
        (object("v1", "Secret", json!({"type": "kubernetes.io/service-account-token"})), "type"),
        (object("v1", "Namespace", json!({"metadata": {"name": "a.b"}})), "metadata.name"),
        (
            object(
                "v1",
                "Namespace",
                json!({"metadata": {"name": "a", "labels": {"pod-security.kubernetes.io/enforce": "x"}}}),
            ),
            "metadata.labels[pod-security.kubernetes.io/enforce]",
        ),
        (object("v1", "Node", json!({"spec": {"podCIDRs": ["10.0.0.0/16", "10.0.1.0/24"]}})), "spec.podCIDRs[1]"),
        (object("v1", "Node", json!({"spec": {"podCIDRs": ["10.0.0.1/16"]}})), "spec.podCIDRs[0]"),
        (object("v1", "Node", json!({"spec": {"taints": [{"key": "a", "effect": "x"}]}})), "spec.taints[0].effect"),
        (
            object("coordination.k8s.io/v1", "Lease", json!({"spec": {"leaseDurationSeconds": 0}})),
            "spec.leaseDurationSeconds",
        ),
        (
            object(rbac, "Role", json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
            "rules[0].nonResourceURLs",
        ),
        (
            object(rbac, "Role", json!({"rules": [{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]})),
            "rules[0].verbs",
        ),
        (object(rbac, "ClusterRole", json!({"rules": [{"verbs": ["get"], "apiGroups": [""]}]})), "rules[0].resources"),
        (object(rbac, "ClusterRole", json!({"aggregationRule": {}})), "aggregationRule.clusterRoleSelectors"),
        (object(rbac, "ClusterRoleBinding", json!({"roleRef": role})), "roleRef.kind"),
        (
            object(
                rbac,
                "RoleBinding",
                json!({"roleRef": role, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
            ),
            "subjects[0].namespace",
        ),
        (
            object(rbac, "RoleBinding", json!({"roleRef": role, "subjects": [{"kind": "x", "name": "s"}]})),
            "subjects[0].kind",
        ),
        (object("authorization.k8s.io/v1", "SelfSubjectAccessReview", json!({"spec": {}})), "spec.resourceAttributes"),
    ] {
        refused(object, at);
    }
    // A secret's words stay out of what is said about it.
    let secret = object(
        "v1",
        "Secret",
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "hunter2"}}),
    );
    assert!(!format!("{:?}", judge(secret)).contains("hunter2"));
}

#[test]
fn a_rich_pod_passes() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rich", "labels": {"app": "rich"}}, "spec": {
        "serviceAccountName": "robot", "nodeSelector": {"disk": "ssd"}, "hostname": "rich",
        "securityContext": {"runAsUser": 1000, "fsGroup": 2000, "supplementalGroups": [3000],
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}], "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [{"operator": "Exists"}, {"key": "a", "effect": "NoExecute", "tolerationSeconds": 300}],
        "dnsConfig": {"nameservers": ["10.0.0.10"], "searches": ["a.local."], "options": [{"name": "ndots", "value": "2"}]},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}]}},
        "initContainers": [{"name": "init", "image": "b"},
            {"name": "side", "image": "b", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["true"]}}}],
        "containers": [{"name": "a", "image": "registry:5000/web@sha256:00", "command": ["sh"], "args": ["-c", "$(A)"],
            "ports": [{"name": "http", "containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "protocol": "UDP"}],
            "env": [{"name": "A", "value": "b"}, {"name": "my.var", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}],
            "envFrom": [{"prefix": "P_", "secretRef": {"name": "s", "optional": true}}],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi", "ephemeral-storage": "1Gi"}, "requests": {"cpu": "0.1"}},
            "livenessProbe": {"httpGet": {"port": "http", "httpHeaders": [{"name": "X-A", "value": "b"}]}},
            "readinessProbe": {"grpc": {"port": 80}, "successThreshold": 2},
            "lifecycle": {"postStart": {"exec": {"command": ["true"]}}, "preStop": {"sleep": {"seconds": 5}}},
            "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "readOnlyRootFilesystem": true},
            "volumeMounts": [{"name": "e", "mountPath": "/e", "subPath": "a/b"},
                {"name": "p", "mountPath": "/p", "readOnly": true, "recursiveReadOnly": "Disabled"}]}],
        "volumes": [{"name": "e", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token", "audience": "a"}},
                {"configMap": {"name": "c", "items": [{"key": "a", "path": "b/c", "mode": 256}]}},
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            {"name": "h", "hostPath": {"path": "/var/log", "type": "Directory"}}]}});
    let bad = judge(pod);
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn what_may_change_in_a_pod() {
    let registry = builtin();
    let kind = registry.object("v1", "Pod").unwrap();
    let hold = json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let mut old = pod(json!({"tolerations": [hold]}));
    (kind.strategy.default)(&mut old);
    let change = |edit: fn(&mut Value)| {
        let mut new = old.clone();
        edit(&mut new);
        let mut bad = Faults::default();
        (kind.strategy.validate_update)(&new, &old, &mut bad);
        bad.0.iter().map(|f| f.path.to_string()).collect::<Vec<_>>()
    };
    let allowed: &[fn(&mut Value)] = &[
        |_| {},
        |p| p["spec"]["containers"][0]["image"] = json!("web:2"),
        |p| p["spec"]["activeDeadlineSeconds"] = json!(5),
        |p| p["spec"]["tolerations"].as_array_mut().unwrap().push(json!({"key": "b", "operator": "Exists"})),
        |p| p["spec"]["tolerations"][0]["tolerationSeconds"] = json!(5),
        |p| p["metadata"]["labels"] = json!({"a": "b"}),
    ];
    for edit in allowed {
        assert_eq!(change(*edit), Vec::<String>::new());
    }
    assert_eq!(change(|p| p["spec"]["containers"][0]["command"] = json!(["x"])), ["spec.containers"]);
    assert_eq!(change(|p| p["spec"]["nodeName"] = json!("x")), ["spec.nodeName"]);
    assert_eq!(
        change(|p| p["spec"]["serviceAccountName"] = json!("x")),
        ["spec.serviceAccount", "spec.serviceAccountName"]
    );
    assert_eq!(change(|p| p["spec"]["tolerations"] = json!([])), ["spec.tolerations"]);
    assert_eq!(change(|p| p["metadata"]["uid"] = json!("x")), ["metadata.uid"]);
    assert_eq!(change(|p| p["metadata"]["name"] = json!("x")), ["metadata.name"]);
}

/// Admission names the account after the defaults are in; the next write must not take that for a change.
#[test]
fn a_pod_that_admission_completed_may_be_labelled() {
    let registry = builtin();
    let kind = registry.object("v1", "Pod").unwrap();
    let mut old = kind.complete(&pod(json!({}))).unwrap();
    old["spec"]["serviceAccountName"] = json!("default");
    old["spec"]["volumes"] =
        json!([{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    let new = kind.complete(&new).unwrap();
    let mut bad = Faults::default();
    (kind.strategy.validate_update)(&new, &old, &mut bad);
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn what_may_not_change_elsewhere() {
    let registry = builtin();
    let update = |old: Value, new: Value| {
        let kind = registry.object(old["apiVersion"].as_str().unwrap(), old["kind"].as_str().unwrap()).unwrap();
        let mut bad = Faults::default();
        (kind.strategy.validate_update)(&new, &old, &mut bad);
        bad.0.iter().map(|f| f.path.to_string()).collect::<Vec<_>>()
    };
    let config =
        |data: &str, immutable: bool| object("v1", "ConfigMap", json!({"data": {"a": data}, "immutable": immutable}));
    assert_eq!(update(config("a", false), config("b", true)), Vec::<String>::new());
    assert_eq!(update(config("a", true), config("b", true)), ["data"]);
    assert_eq!(update(config("a", true), config("a", false)), ["immutable"]);
    let secret = |kind: &str| object("v1", "Secret", json!({"type": kind}));
    assert_eq!(update(secret("Opaque"), secret("a/b")), ["type"]);
    let other = deployment(json!({"selector": {"matchLabels": {"app": "b"}}}));
    assert_eq!(update(deployment(json!({})), other), ["spec.selector"]);
    let binding = |role: &str| {
        object("rbac.authorization.k8s.io/v1", "RoleBinding", json!({"roleRef": {"kind": "Role", "name": role}}))
    };
    assert_eq!(update(binding("a"), binding("b")), ["roleRef"]);
}
