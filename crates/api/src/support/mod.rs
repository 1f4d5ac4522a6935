//! What of a pod and a deployment is served, field by field, and why the rest is refused.
//!
//! A test holds the table against the types: every field of every definition that is reached through served fields
//! stands here, and nothing else. What is refused is refused where it stands in an object, never dropped.

use serde_json::Value;

use crate::{
    faults::{Cause, Faults, Path},
    mergekeys::{Shape, child},
    meta,
};

/// Whether a field is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is, and this test goes red without it.
    Served(&'static str),
    /// It is not: why, or what to use instead.
    Refused(&'static str),
    /// Only with these values, in JSON, which say what is done anyway; and why not with others.
    Only(&'static [&'static str], &'static str),
}

mod volumes;

use Support::{Only, Refused, Served};

/// What is known of a definition's field; `None` for definitions that this table does not list.
pub fn of(definition: &str, field: &str) -> Option<Support> {
    let (_, fields) = table(definition)?;
    fields.iter().find(|(name, _)| *name == field).map(|(_, support)| *support)
}

/// The definitions of the table with their fields, e.g. `api.core.v1.PodSpec` without `io.k8s.`.
pub fn tables() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().chain(volumes::TABLES)
}

/// A definition and its fields.
pub type Table = (&'static str, &'static [(&'static str, Support)]);

fn table(definition: &str) -> Option<&'static Table> {
    let short = definition.strip_prefix("io.k8s.")?;
    tables().find(|(name, _)| *name == short)
}

/// Refuses every field of an object that is not served, where it stands. Empty values say nothing and pass.
pub fn check(definition: &str, object: &Value, bad: &mut Faults) {
    // Status is the system's own, and metadata is served whole: what is asked for stands in the spec.
    let (Some(spec), Some(child)) = (object.get("spec"), child(definition, "spec")) else { return };
    if let Some(definition) = child.definition {
        walk(definition, spec, &Path::root().field("spec"), bad);
    }
}

fn walk(definition: &str, value: &Value, at: &Path, bad: &mut Faults) {
    let (Some((_, fields)), Some(object)) = (table(definition), value.as_object()) else { return };
    for (name, value) in object {
        let at = at.field(name);
        match fields.iter().find(|(field, _)| field == name).map(|(_, support)| support) {
            // An unknown field is told of elsewhere.
            None => {}
            Some(Served(_)) => {
                let Some(child) = child(definition, name) else { continue };
                let Some(inner) = child.definition else { continue };
                match (child.shape, value) {
                    (Shape::List(_), Value::Array(list)) => {
                        list.iter().enumerate().for_each(|(index, item)| walk(inner, item, &at.index(index), bad));
                    }
                    (Shape::Single, value) => walk(inner, value, &at, bad),
                    _ => {}
                }
            }
            Some(Refused(_)) if meta::is_blank(value) && !is_choice(definition, value) => {}
            Some(Refused(why)) => bad.push(at, Cause::NotSupported, format!("is not served: {why}")),
            Some(Only(values, _)) if value.is_null() || value == "" || values.contains(&&*value.to_string()) => {}
            Some(Only(values, why)) => {
                bad.push(at, Cause::NotSupported, format!("is not served but as {}: {why}", values.join(" or ")));
            }
        }
    }
}

/// An empty struct says nothing, but as one of the sources of a volume it chooses that source.
fn is_choice(definition: &str, value: &Value) -> bool {
    let choices =
        ["io.k8s.api.core.v1.Volume", "io.k8s.api.core.v1.VolumeProjection", "io.k8s.api.core.v1.EnvVarSource"];
    value.is_object() && choices.contains(&definition)
}

const NOT_EPHEMERAL: &str = "an ephemeral container cannot have it; use a container";

const TABLES: &[Table] = &[
    (
        "api.core.v1.PodSpec",
        &[
            ("activeDeadlineSeconds", Served("lifetime::order_and_end")),
            ("affinity", Served("placement::nodes")),
            ("automountServiceAccountToken", Served("volumes::tokens")),
            ("containers", Served("process::words")),
            ("dnsConfig", Served("host::names")),
            ("dnsPolicy", Served("host::names")),
            ("enableServiceLinks", Only(&["true", "false"], "there are no Services yet, so there is nothing to link")),
            ("ephemeralContainers", Served("debugging::ephemeral_containers")),
            ("hostAliases", Served("host::names")),
            ("hostIPC", Served("host::namespaces")),
            ("hostNetwork", Served("host::namespaces")),
            ("hostPID", Served("host::namespaces")),
            ("hostUsers", Only(&["true"], "pods have no user namespaces of their own yet")),
            ("hostname", Served("host::names")),
            ("hostnameOverride", Refused("use hostname")),
            ("imagePullSecrets", Served("placement::pull_secrets")),
            ("initContainers", Served("lifetime::order_and_end")),
            ("nodeName", Served("placement::nodes")),
            ("nodeSelector", Served("placement::nodes")),
            ("os", Only(&[r#"{"name":"linux"}"#], "nodes run Linux")),
            ("overhead", Refused("no runtime class adds to what a pod needs")),
            ("preemptionPolicy", Only(&["\"PreemptLowerPriority\"", "\"Never\""], "no pod displaces another")),
            ("priority", Only(&["0"], "all pods have the same priority")),
            ("priorityClassName", Refused("all pods have the same priority")),
            ("readinessGates", Refused("use a readinessProbe")),
            ("resourceClaims", Refused("there are no devices to claim")),
            ("resources", Refused("give each container its own")),
            ("restartPolicy", Served("lifetime::order_and_end")),
            ("runtimeClassName", Refused("there is one runtime")),
            ("schedulerName", Served("placement::nodes")),
            ("schedulingGates", Refused("create the pod when it may be scheduled")),
            ("schedulingGroup", Refused("pods are scheduled one by one")),
            ("securityContext", Served("security::pods")),
            ("serviceAccount", Served("volumes::tokens")),
            ("serviceAccountName", Served("volumes::tokens")),
            ("setHostnameAsFQDN", Refused("use hostname")),
            ("shareProcessNamespace", Refused("each container has processes of its own")),
            ("subdomain", Refused("there are no headless Services yet")),
            ("terminationGracePeriodSeconds", Served("lifetime::order_and_end")),
            ("tolerations", Served("placement::nodes")),
            ("topologySpreadConstraints", Refused("use nodeSelector or nodeAffinity")),
            ("volumes", Served("volumes::projections")),
        ],
    ),
    (
        "api.core.v1.Container",
        &[
            ("args", Served("process::words")),
            ("command", Served("process::words")),
            ("env", Served("environment::sources")),
            ("envFrom", Served("environment::sources")),
            ("image", Served("process::words")),
            ("imagePullPolicy", Served("process::words")),
            ("lifecycle", Served("probes::hooks")),
            ("livenessProbe", Served("probes::numbers")),
            ("name", Served("process::words")),
            ("ports", Served("process::ports")),
            ("readinessProbe", Served("probes::kinds")),
            ("resizePolicy", Refused("resources do not change while a pod runs")),
            ("resources", Served("security::resources")),
            ("restartPolicy", Served("lifetime::order_and_end")),
            ("restartPolicyRules", Refused("use spec.restartPolicy")),
            ("securityContext", Served("security::containers")),
            ("startupProbe", Served("probes::kinds")),
            ("stdin", Served("process::streams")),
            ("stdinOnce", Served("process::streams")),
            ("terminationMessagePath", Served("process::streams")),
            ("terminationMessagePolicy", Served("process::streams")),
            ("tty", Served("process::streams")),
            ("volumeDevices", Refused("there are no block volumes yet; use volumeMounts")),
            ("volumeMounts", Served("volumes::mounts")),
            ("workingDir", Served("process::words")),
        ],
    ),
    (
        "api.core.v1.EphemeralContainer",
        &[
            ("args", Served("debugging::ephemeral_containers")),
            ("command", Served("debugging::ephemeral_containers")),
            ("env", Served("debugging::ephemeral_containers")),
            ("envFrom", Served("debugging::ephemeral_containers")),
            ("image", Served("debugging::ephemeral_containers")),
            ("imagePullPolicy", Served("debugging::ephemeral_containers")),
            ("lifecycle", Refused(NOT_EPHEMERAL)),
            ("livenessProbe", Refused(NOT_EPHEMERAL)),
            ("name", Served("debugging::ephemeral_containers")),
            ("ports", Refused(NOT_EPHEMERAL)),
            ("readinessProbe", Refused(NOT_EPHEMERAL)),
            ("resizePolicy", Refused(NOT_EPHEMERAL)),
            ("resources", Refused("it runs within what its pod has")),
            ("restartPolicy", Refused("it is never started again")),
            ("restartPolicyRules", Refused("it is never started again")),
            ("securityContext", Served("debugging::ephemeral_containers")),
            ("startupProbe", Refused(NOT_EPHEMERAL)),
            ("stdin", Served("debugging::ephemeral_streams")),
            ("stdinOnce", Served("debugging::ephemeral_streams")),
            (
                "targetContainerName",
                Refused("each container has processes of its own; leave it out (kubectl debug without --target)"),
            ),
            ("terminationMessagePath", Served("debugging::ephemeral_containers")),
            ("terminationMessagePolicy", Served("debugging::ephemeral_containers")),
            ("tty", Served("debugging::ephemeral_streams")),
            ("volumeDevices", Refused("there are no block volumes yet; use volumeMounts")),
            ("volumeMounts", Served("debugging::ephemeral_containers")),
            ("workingDir", Served("debugging::ephemeral_containers")),
        ],
    ),
    (
        "api.core.v1.ContainerPort",
        &[
            ("containerPort", Served("process::ports")),
            ("hostIP", Served("process::ports")),
            ("hostPort", Served("process::ports")),
            ("name", Served("process::ports")),
            ("protocol", Served("process::ports")),
        ],
    ),
    (
        "api.core.v1.EnvVar",
        &[
            ("name", Served("environment::sources")),
            ("value", Served("environment::sources")),
            ("valueFrom", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.EnvVarSource",
        &[
            ("configMapKeyRef", Served("environment::sources")),
            ("fieldRef", Served("environment::sources")),
            ("fileKeyRef", Refused("use configMapKeyRef or secretKeyRef")),
            ("resourceFieldRef", Served("environment::sources")),
            ("secretKeyRef", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.ConfigMapKeySelector",
        &[
            ("key", Served("environment::sources")),
            ("name", Served("environment::sources")),
            ("optional", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.SecretKeySelector",
        &[
            ("key", Served("environment::sources")),
            ("name", Served("environment::sources")),
            ("optional", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.ObjectFieldSelector",
        &[
            ("apiVersion", Only(&["\"v1\""], "fields are named as in v1")),
            ("fieldPath", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.ResourceFieldSelector",
        &[
            ("containerName", Served("environment::sources")),
            ("divisor", Served("environment::sources")),
            ("resource", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.EnvFromSource",
        &[
            ("configMapRef", Served("environment::sources")),
            ("prefix", Served("environment::sources")),
            ("secretRef", Served("environment::sources")),
        ],
    ),
    (
        "api.core.v1.ConfigMapEnvSource",
        &[("name", Served("environment::sources")), ("optional", Served("environment::sources"))],
    ),
    (
        "api.core.v1.SecretEnvSource",
        &[("name", Served("environment::sources")), ("optional", Served("environment::sources"))],
    ),
    (
        "api.core.v1.Probe",
        &[
            ("exec", Served("probes::kinds")),
            ("failureThreshold", Served("probes::numbers")),
            ("grpc", Served("probes::kinds")),
            ("httpGet", Served("probes::kinds")),
            ("initialDelaySeconds", Served("probes::numbers")),
            ("periodSeconds", Served("probes::numbers")),
            ("successThreshold", Served("probes::numbers")),
            ("tcpSocket", Served("probes::kinds")),
            ("terminationGracePeriodSeconds", Served("probes::numbers")),
            ("timeoutSeconds", Served("probes::numbers")),
        ],
    ),
    (
        "api.core.v1.Lifecycle",
        &[
            ("postStart", Served("probes::hooks")),
            ("preStop", Served("probes::hooks")),
            ("stopSignal", Refused("the image's own stop signal is sent; set it there")),
        ],
    ),
    (
        "api.core.v1.LifecycleHandler",
        &[
            ("exec", Served("probes::hooks")),
            ("httpGet", Served("probes::hooks")),
            ("sleep", Served("probes::hooks")),
            ("tcpSocket", Refused("use exec or httpGet")),
        ],
    ),
    ("api.core.v1.ExecAction", &[("command", Served("probes::kinds"))]),
    ("api.core.v1.SleepAction", &[("seconds", Served("probes::hooks"))]),
    ("api.core.v1.GRPCAction", &[("port", Served("probes::kinds")), ("service", Served("probes::kinds"))]),
    (
        "api.core.v1.HTTPGetAction",
        &[
            ("host", Served("probes::kinds")),
            ("httpHeaders", Served("probes::kinds")),
            ("path", Served("probes::kinds")),
            ("port", Served("probes::kinds")),
            ("scheme", Served("probes::kinds")),
        ],
    ),
    ("api.core.v1.HTTPHeader", &[("name", Served("probes::kinds")), ("value", Served("probes::kinds"))]),
    ("api.core.v1.TCPSocketAction", &[("host", Served("probes::kinds")), ("port", Served("probes::kinds"))]),
    (
        "api.core.v1.ResourceRequirements",
        &[
            ("claims", Refused("there are no devices to claim")),
            ("limits", Served("security::resources")),
            ("requests", Served("security::resources")),
        ],
    ),
    (
        "api.core.v1.VolumeMount",
        &[
            ("mountPath", Served("volumes::mounts")),
            ("mountPropagation", Served("volumes::mounts")),
            ("name", Served("volumes::mounts")),
            ("readOnly", Served("volumes::mounts")),
            ("recursiveReadOnly", Only(&["\"Disabled\""], "use readOnly")),
            ("subPath", Served("volumes::mounts")),
            ("subPathExpr", Served("volumes::mounts")),
        ],
    ),
    (
        "api.core.v1.SecurityContext",
        &[
            ("allowPrivilegeEscalation", Served("security::containers")),
            ("appArmorProfile", Refused("there is no AppArmor; use seccompProfile and capabilities")),
            ("capabilities", Served("security::containers")),
            ("privileged", Served("security::containers")),
            ("procMount", Served("security::containers")),
            ("readOnlyRootFilesystem", Served("security::containers")),
            ("runAsGroup", Served("security::containers")),
            ("runAsNonRoot", Served("security::containers")),
            ("runAsUser", Served("security::containers")),
            ("seLinuxOptions", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seccompProfile", Served("security::containers")),
            ("windowsOptions", Refused("nodes run Linux")),
        ],
    ),
    (
        "api.core.v1.PodSecurityContext",
        &[
            ("appArmorProfile", Refused("there is no AppArmor; use seccompProfile and capabilities")),
            ("fsGroup", Served("security::pods")),
            (
                "fsGroupChangePolicy",
                Only(
                    &["\"Always\"", "\"OnRootMismatch\""],
                    "every volume is made with its pod, so no owner changes later",
                ),
            ),
            ("runAsGroup", Served("security::pods")),
            ("runAsNonRoot", Served("security::pods")),
            ("runAsUser", Served("security::pods")),
            ("seLinuxChangePolicy", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seLinuxOptions", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seccompProfile", Served("security::pods")),
            ("supplementalGroups", Served("security::pods")),
            ("supplementalGroupsPolicy", Only(&["\"Merge\""], "the groups that the image gives the user are kept")),
            ("sysctls", Served("security::pods")),
            ("windowsOptions", Refused("nodes run Linux")),
        ],
    ),
    ("api.core.v1.Capabilities", &[("add", Served("security::containers")), ("drop", Served("security::containers"))]),
    (
        "api.core.v1.SeccompProfile",
        &[("localhostProfile", Served("security::containers")), ("type", Served("security::pods"))],
    ),
    ("api.core.v1.Sysctl", &[("name", Served("security::pods")), ("value", Served("security::pods"))]),
    ("api.core.v1.LocalObjectReference", &[("name", Served("placement::pull_secrets"))]),
    ("api.core.v1.HostAlias", &[("hostnames", Served("host::names")), ("ip", Served("host::names"))]),
    (
        "api.core.v1.PodDNSConfig",
        &[
            ("nameservers", Served("host::names")),
            ("options", Served("host::names")),
            ("searches", Served("host::names")),
        ],
    ),
    ("api.core.v1.PodDNSConfigOption", &[("name", Served("host::names")), ("value", Served("host::names"))]),
    (
        "api.core.v1.Toleration",
        &[
            ("effect", Served("placement::nodes")),
            ("key", Served("placement::nodes")),
            ("operator", Served("placement::nodes")),
            ("tolerationSeconds", Served("placement::eviction")),
            ("value", Served("placement::nodes")),
        ],
    ),
    (
        "api.core.v1.Affinity",
        &[
            ("nodeAffinity", Served("placement::nodes")),
            ("podAffinity", Refused("use nodeAffinity")),
            ("podAntiAffinity", Refused("use nodeAffinity")),
        ],
    ),
    (
        "api.core.v1.NodeAffinity",
        &[
            ("preferredDuringSchedulingIgnoredDuringExecution", Served("placement::preferences")),
            ("requiredDuringSchedulingIgnoredDuringExecution", Served("placement::nodes")),
        ],
    ),
    ("api.core.v1.NodeSelector", &[("nodeSelectorTerms", Served("placement::nodes"))]),
    (
        "api.core.v1.NodeSelectorTerm",
        &[("matchExpressions", Served("placement::nodes")), ("matchFields", Served("placement::nodes"))],
    ),
    (
        "api.core.v1.NodeSelectorRequirement",
        &[
            ("key", Served("placement::nodes")),
            ("operator", Served("placement::nodes")),
            ("values", Served("placement::nodes")),
        ],
    ),
    (
        "api.core.v1.PreferredSchedulingTerm",
        &[("preference", Served("placement::preferences")), ("weight", Served("placement::preferences"))],
    ),
    (
        "api.core.v1.PodTemplateSpec",
        &[("metadata", Served("workloads::deployments")), ("spec", Served("workloads::deployments"))],
    ),
    (
        "api.apps.v1.DeploymentSpec",
        &[
            ("minReadySeconds", Served("workloads::deployments")),
            ("paused", Served("workloads::deployments")),
            ("progressDeadlineSeconds", Served("workloads::deployments")),
            ("replicas", Served("workloads::deployments")),
            ("revisionHistoryLimit", Served("workloads::deployments")),
            ("selector", Served("workloads::deployments")),
            ("strategy", Served("workloads::deployments")),
            ("template", Served("workloads::deployments")),
        ],
    ),
    (
        "api.apps.v1.DeploymentStrategy",
        &[("rollingUpdate", Served("workloads::deployments")), ("type", Served("workloads::deployments"))],
    ),
    (
        "api.apps.v1.RollingUpdateDeployment",
        &[("maxSurge", Served("workloads::deployments")), ("maxUnavailable", Served("workloads::deployments"))],
    ),
    (
        "api.apps.v1.ReplicaSetSpec",
        &[
            ("minReadySeconds", Served("workloads::replicasets")),
            ("replicas", Served("workloads::replicasets")),
            ("selector", Served("workloads::replicasets")),
            ("template", Served("workloads::replicasets")),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelector",
        &[("matchExpressions", Served("workloads::replicasets")), ("matchLabels", Served("workloads::deployments"))],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        &[
            ("key", Served("workloads::replicasets")),
            ("operator", Served("workloads::replicasets")),
            ("values", Served("workloads::replicasets")),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::schema::{self, Version};

    /// Definitions whose fields are the API server's own business.
    const WHOLE: &[&str] = &["apimachinery.pkg.apis.meta.v1.ObjectMeta"];

    #[test]
    fn the_table_and_the_types_name_the_same_fields() {
        let raw = schema::raw(&crate::builtin(), Version::V2);
        let mut open = vec!["api.core.v1.PodSpec", "api.apps.v1.DeploymentSpec", "api.apps.v1.ReplicaSetSpec"];
        let mut reached = BTreeSet::new();
        while let Some(short) = open.pop() {
            if WHOLE.contains(&short) || !reached.insert(short) {
                continue;
            }
            let definition = format!("io.k8s.{short}");
            let fields = raw[&definition]["properties"].as_object().unwrap();
            for field in fields.keys() {
                let support = of(&definition, field);
                assert!(support.is_some(), "{short}.{field} is neither served nor refused");
                if let (Some(Served(_)), Some(child)) = (support, child(&definition, field)) {
                    open.extend(child.definition.and_then(|d| d.strip_prefix("io.k8s.")));
                }
            }
            for (field, _) in table(&definition).unwrap().1 {
                assert!(fields.contains_key(*field), "{short}.{field} does not exist");
            }
        }
        let listed: BTreeSet<&str> = tables().map(|(name, _)| *name).collect();
        assert_eq!(listed, reached, "definitions of the table, and those that are reached");
    }

    #[test]
    fn every_refused_field_is_refused_where_it_stands() {
        for (field, support) in table("io.k8s.api.core.v1.PodSpec").unwrap().1 {
            let asked = match *field {
                "hostUsers" => json!(false),
                "priority" => json!(7),
                "preemptionPolicy" => json!("x"),
                _ => json!([{"name": "a", "x": true}]),
            };
            let mut bad = Faults::default();
            check("io.k8s.api.core.v1.Pod", &json!({"spec": {*field: asked}}), &mut bad);
            let paths: Vec<String> = bad.0.iter().map(|f| f.path.to_string()).collect();
            let told = paths == [format!("spec.{field}")] && bad.0[0].cause == Cause::NotSupported;
            assert_eq!(told, !matches!(support, Served(_)), "{field}: {paths:?}");
        }
    }

    fn paths(spec: Value) -> Vec<String> {
        let mut bad = Faults::default();
        check("io.k8s.api.apps.v1.Deployment", &json!({"spec": {"template": {"spec": spec}}}), &mut bad);
        bad.0.iter().map(|f| f.path.to_string()).collect()
    }

    #[test]
    fn refusals_reach_into_templates_lists_and_volumes() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeDevices": [{"name": "v"}],
            "securityContext": {"seLinuxOptions": {"level": "s0"}}}],
            "volumes": [{"name": "n", "nfs": {}}, {"name": "p", "projected": {"sources": [{"podCertificate": {"keyType": "x"}}]}}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}}});
        let mut found = paths(spec);
        found.sort();
        assert_eq!(
            found,
            [
                "spec.template.spec.affinity.podAntiAffinity",
                "spec.template.spec.containers[1].securityContext.seLinuxOptions",
                "spec.template.spec.containers[1].volumeDevices",
                "spec.template.spec.volumes[0].nfs",
                "spec.template.spec.volumes[1].projected.sources[0].podCertificate",
            ]
        );
    }

    #[test]
    fn empty_values_and_upstream_s_defaults_pass() {
        let spec = json!({"subdomain": "", "shareProcessNamespace": false, "overhead": {}, "topologySpreadConstraints": [],
            "hostUsers": true, "priority": 0, "preemptionPolicy": "PreemptLowerPriority", "enableServiceLinks": false,
            "affinity": {"podAffinity": {}}, "runtimeClassName": null});
        assert_eq!(paths(spec), Vec::<String>::new());
    }
}
