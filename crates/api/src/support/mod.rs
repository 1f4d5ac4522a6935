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

const TABLES: &[Table] = &[
    (
        "api.core.v1.PodSpec",
        &[
            ("activeDeadlineSeconds", Served("pod::active_deadline")),
            ("affinity", Served("pod::node_affinity")),
            ("automountServiceAccountToken", Served("pod::service_account_token")),
            ("containers", Served("pod::several_containers")),
            ("dnsConfig", Served("pod::dns_config")),
            ("dnsPolicy", Served("pod::dns_policy")),
            ("enableServiceLinks", Only(&["true", "false"], "there are no Services yet, so there is nothing to link")),
            ("ephemeralContainers", Refused("use exec, or a sidecar")),
            ("hostAliases", Served("pod::host_aliases")),
            ("hostIPC", Served("pod::host_ipc")),
            ("hostNetwork", Served("pod::host_network")),
            ("hostPID", Served("pod::host_pid")),
            ("hostUsers", Only(&["true"], "pods have no user namespaces of their own yet")),
            ("hostname", Served("pod::hostname")),
            ("hostnameOverride", Refused("use hostname")),
            ("imagePullSecrets", Served("pod::image_pull_secrets")),
            ("initContainers", Served("pod::init_containers")),
            ("nodeName", Served("pod::node_name")),
            ("nodeSelector", Served("pod::node_selector")),
            ("os", Served("pod::os")),
            ("overhead", Refused("no runtime class adds to what a pod needs")),
            ("preemptionPolicy", Only(&["\"PreemptLowerPriority\"", "\"Never\""], "no pod displaces another")),
            ("priority", Only(&["0"], "all pods have the same priority")),
            ("priorityClassName", Refused("all pods have the same priority")),
            ("readinessGates", Refused("use a readinessProbe")),
            ("resourceClaims", Refused("there are no devices to claim")),
            ("resources", Refused("give each container its own")),
            ("restartPolicy", Served("pod::restart_policy")),
            ("runtimeClassName", Refused("there is one runtime")),
            ("schedulerName", Served("pod::scheduler_name")),
            ("schedulingGates", Refused("create the pod when it may be scheduled")),
            ("schedulingGroup", Refused("pods are scheduled one by one")),
            ("securityContext", Served("pod::security_context")),
            ("serviceAccount", Served("pod::service_account")),
            ("serviceAccountName", Served("pod::service_account")),
            ("setHostnameAsFQDN", Refused("use hostname")),
            ("shareProcessNamespace", Refused("each container has processes of its own")),
            ("subdomain", Refused("there are no headless Services yet")),
            ("terminationGracePeriodSeconds", Served("pod::termination_grace_period")),
            ("tolerations", Served("pod::tolerations")),
            ("topologySpreadConstraints", Refused("use nodeSelector or nodeAffinity")),
            ("volumes", Served("pod::volumes")),
        ],
    ),
    (
        "api.core.v1.Container",
        &[
            ("args", Served("pod::args")),
            ("command", Served("pod::command")),
            ("env", Served("pod::env")),
            ("envFrom", Served("pod::env_from")),
            ("image", Served("pod::image")),
            ("imagePullPolicy", Served("pod::image_pull_policy")),
            ("lifecycle", Served("pod::lifecycle")),
            ("livenessProbe", Served("pod::liveness_probe")),
            ("name", Served("pod::several_containers")),
            ("ports", Served("pod::ports")),
            ("readinessProbe", Served("pod::readiness_probe")),
            ("resizePolicy", Refused("resources do not change while a pod runs")),
            ("resources", Served("pod::resources")),
            ("restartPolicy", Served("pod::sidecar_containers")),
            ("restartPolicyRules", Refused("use spec.restartPolicy")),
            ("securityContext", Served("pod::container_security_context")),
            ("startupProbe", Served("pod::startup_probe")),
            ("stdin", Served("pod::stdin")),
            ("stdinOnce", Served("pod::stdin_once")),
            ("terminationMessagePath", Served("pod::termination_message")),
            ("terminationMessagePolicy", Served("pod::termination_message_policy")),
            ("tty", Served("pod::tty")),
            ("volumeDevices", Refused("there are no block volumes yet; use volumeMounts")),
            ("volumeMounts", Served("pod::volume_mounts")),
            ("workingDir", Served("pod::working_dir")),
        ],
    ),
    (
        "api.core.v1.ContainerPort",
        &[
            ("containerPort", Served("pod::ports")),
            ("hostIP", Served("pod::host_ip")),
            ("hostPort", Served("pod::host_port")),
            ("name", Served("pod::named_ports")),
            ("protocol", Served("pod::port_protocol")),
        ],
    ),
    (
        "api.core.v1.EnvVar",
        &[("name", Served("pod::env")), ("value", Served("pod::env")), ("valueFrom", Served("pod::env_value_from"))],
    ),
    (
        "api.core.v1.EnvVarSource",
        &[
            ("configMapKeyRef", Served("pod::env_config_map")),
            ("fieldRef", Served("pod::env_field_ref")),
            ("fileKeyRef", Refused("use configMapKeyRef or secretKeyRef")),
            ("resourceFieldRef", Served("pod::env_resource_field_ref")),
            ("secretKeyRef", Served("pod::env_secret")),
        ],
    ),
    (
        "api.core.v1.ConfigMapKeySelector",
        &[
            ("key", Served("pod::env_config_map")),
            ("name", Served("pod::env_config_map")),
            ("optional", Served("pod::env_config_map_optional")),
        ],
    ),
    (
        "api.core.v1.SecretKeySelector",
        &[
            ("key", Served("pod::env_secret")),
            ("name", Served("pod::env_secret")),
            ("optional", Served("pod::env_secret_optional")),
        ],
    ),
    (
        "api.core.v1.ObjectFieldSelector",
        &[("apiVersion", Only(&["\"v1\""], "fields are named as in v1")), ("fieldPath", Served("pod::env_field_ref"))],
    ),
    (
        "api.core.v1.ResourceFieldSelector",
        &[
            ("containerName", Served("pod::env_resource_field_ref")),
            ("divisor", Served("pod::env_resource_field_ref_divisor")),
            ("resource", Served("pod::env_resource_field_ref")),
        ],
    ),
    (
        "api.core.v1.EnvFromSource",
        &[
            ("configMapRef", Served("pod::env_from_config_map")),
            ("prefix", Served("pod::env_from_prefix")),
            ("secretRef", Served("pod::env_from_secret")),
        ],
    ),
    (
        "api.core.v1.ConfigMapEnvSource",
        &[("name", Served("pod::env_from_config_map")), ("optional", Served("pod::env_from_config_map_optional"))],
    ),
    (
        "api.core.v1.SecretEnvSource",
        &[("name", Served("pod::env_from_secret")), ("optional", Served("pod::env_from_secret_optional"))],
    ),
    (
        "api.core.v1.Probe",
        &[
            ("exec", Served("pod::probe_exec")),
            ("failureThreshold", Served("pod::probe_failure_threshold")),
            ("grpc", Served("pod::probe_grpc")),
            ("httpGet", Served("pod::probe_http")),
            ("initialDelaySeconds", Served("pod::probe_initial_delay")),
            ("periodSeconds", Served("pod::probe_period")),
            ("successThreshold", Served("pod::probe_success_threshold")),
            ("tcpSocket", Served("pod::probe_tcp")),
            ("terminationGracePeriodSeconds", Served("pod::probe_termination_grace_period")),
            ("timeoutSeconds", Served("pod::probe_timeout")),
        ],
    ),
    (
        "api.core.v1.Lifecycle",
        &[
            ("postStart", Served("pod::post_start")),
            ("preStop", Served("pod::pre_stop")),
            ("stopSignal", Refused("the image's own stop signal is sent; set it there")),
        ],
    ),
    (
        "api.core.v1.LifecycleHandler",
        &[
            ("exec", Served("pod::hook_exec")),
            ("httpGet", Served("pod::hook_http")),
            ("sleep", Served("pod::hook_sleep")),
            ("tcpSocket", Served("pod::hook_tcp")),
        ],
    ),
    ("api.core.v1.ExecAction", &[("command", Served("pod::probe_exec"))]),
    ("api.core.v1.SleepAction", &[("seconds", Served("pod::hook_sleep"))]),
    ("api.core.v1.GRPCAction", &[("port", Served("pod::probe_grpc")), ("service", Served("pod::probe_grpc_service"))]),
    (
        "api.core.v1.HTTPGetAction",
        &[
            ("host", Served("pod::probe_http_host")),
            ("httpHeaders", Served("pod::probe_http_headers")),
            ("path", Served("pod::probe_http_path")),
            ("port", Served("pod::probe_http")),
            ("scheme", Served("pod::probe_https")),
        ],
    ),
    (
        "api.core.v1.HTTPHeader",
        &[("name", Served("pod::probe_http_headers")), ("value", Served("pod::probe_http_headers"))],
    ),
    ("api.core.v1.TCPSocketAction", &[("host", Served("pod::probe_tcp_host")), ("port", Served("pod::probe_tcp"))]),
    (
        "api.core.v1.ResourceRequirements",
        &[
            ("claims", Refused("there are no devices to claim")),
            ("limits", Served("pod::limits")),
            ("requests", Served("pod::requests")),
        ],
    ),
    (
        "api.core.v1.VolumeMount",
        &[
            ("mountPath", Served("pod::volume_mounts")),
            ("mountPropagation", Served("pod::mount_propagation")),
            ("name", Served("pod::volume_mounts")),
            ("readOnly", Served("pod::read_only_mounts")),
            ("recursiveReadOnly", Served("pod::recursive_read_only_mounts")),
            ("subPath", Served("pod::sub_path")),
            ("subPathExpr", Served("pod::sub_path_expr")),
        ],
    ),
    (
        "api.core.v1.SecurityContext",
        &[
            ("allowPrivilegeEscalation", Served("pod::allow_privilege_escalation")),
            ("appArmorProfile", Refused("there is no AppArmor; use seccompProfile and capabilities")),
            ("capabilities", Served("pod::capabilities")),
            ("privileged", Served("pod::privileged")),
            ("procMount", Served("pod::proc_mount")),
            ("readOnlyRootFilesystem", Served("pod::read_only_root")),
            ("runAsGroup", Served("pod::container_run_as_group")),
            ("runAsNonRoot", Served("pod::container_run_as_non_root")),
            ("runAsUser", Served("pod::container_run_as_user")),
            ("seLinuxOptions", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seccompProfile", Served("pod::container_seccomp")),
            ("windowsOptions", Refused("nodes run Linux")),
        ],
    ),
    (
        "api.core.v1.PodSecurityContext",
        &[
            ("appArmorProfile", Refused("there is no AppArmor; use seccompProfile and capabilities")),
            ("fsGroup", Served("pod::fs_group")),
            ("fsGroupChangePolicy", Served("pod::fs_group_change_policy")),
            ("runAsGroup", Served("pod::run_as_group")),
            ("runAsNonRoot", Served("pod::run_as_non_root")),
            ("runAsUser", Served("pod::run_as_user")),
            ("seLinuxChangePolicy", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seLinuxOptions", Refused("there is no SELinux; use seccompProfile and capabilities")),
            ("seccompProfile", Served("pod::seccomp")),
            ("supplementalGroups", Served("pod::supplemental_groups")),
            ("supplementalGroupsPolicy", Served("pod::supplemental_groups_policy")),
            ("sysctls", Served("pod::sysctls")),
            ("windowsOptions", Refused("nodes run Linux")),
        ],
    ),
    ("api.core.v1.Capabilities", &[("add", Served("pod::capabilities")), ("drop", Served("pod::capabilities_drop"))]),
    (
        "api.core.v1.SeccompProfile",
        &[("localhostProfile", Served("pod::seccomp_localhost")), ("type", Served("pod::seccomp"))],
    ),
    ("api.core.v1.Sysctl", &[("name", Served("pod::sysctls")), ("value", Served("pod::sysctls"))]),
    ("api.core.v1.PodOS", &[("name", Served("pod::os"))]),
    ("api.core.v1.LocalObjectReference", &[("name", Served("pod::image_pull_secrets"))]),
    ("api.core.v1.HostAlias", &[("hostnames", Served("pod::host_aliases")), ("ip", Served("pod::host_aliases"))]),
    (
        "api.core.v1.PodDNSConfig",
        &[
            ("nameservers", Served("pod::dns_config")),
            ("options", Served("pod::dns_config_options")),
            ("searches", Served("pod::dns_config_searches")),
        ],
    ),
    (
        "api.core.v1.PodDNSConfigOption",
        &[("name", Served("pod::dns_config_options")), ("value", Served("pod::dns_config_options"))],
    ),
    (
        "api.core.v1.Toleration",
        &[
            ("effect", Served("pod::tolerations")),
            ("key", Served("pod::tolerations")),
            ("operator", Served("pod::tolerations")),
            ("tolerationSeconds", Served("pod::toleration_seconds")),
            ("value", Served("pod::tolerations")),
        ],
    ),
    (
        "api.core.v1.Affinity",
        &[
            ("nodeAffinity", Served("pod::node_affinity")),
            ("podAffinity", Refused("use nodeAffinity")),
            ("podAntiAffinity", Refused("use nodeAffinity")),
        ],
    ),
    (
        "api.core.v1.NodeAffinity",
        &[
            ("preferredDuringSchedulingIgnoredDuringExecution", Served("pod::preferred_node_affinity")),
            ("requiredDuringSchedulingIgnoredDuringExecution", Served("pod::node_affinity")),
        ],
    ),
    ("api.core.v1.NodeSelector", &[("nodeSelectorTerms", Served("pod::node_affinity"))]),
    (
        "api.core.v1.NodeSelectorTerm",
        &[("matchExpressions", Served("pod::node_affinity")), ("matchFields", Served("pod::node_affinity_fields"))],
    ),
    (
        "api.core.v1.NodeSelectorRequirement",
        &[
            ("key", Served("pod::node_affinity")),
            ("operator", Served("pod::node_affinity")),
            ("values", Served("pod::node_affinity")),
        ],
    ),
    (
        "api.core.v1.PreferredSchedulingTerm",
        &[("preference", Served("pod::preferred_node_affinity")), ("weight", Served("pod::preferred_node_affinity"))],
    ),
    (
        "api.core.v1.PodTemplateSpec",
        &[("metadata", Served("deployment::template_metadata")), ("spec", Served("deployment::template"))],
    ),
    (
        "api.apps.v1.DeploymentSpec",
        &[
            ("minReadySeconds", Served("deployment::min_ready_seconds")),
            ("paused", Served("deployment::paused")),
            ("progressDeadlineSeconds", Served("deployment::progress_deadline")),
            ("replicas", Served("deployment::replicas")),
            ("revisionHistoryLimit", Served("deployment::revision_history_limit")),
            ("selector", Served("deployment::selector")),
            ("strategy", Served("deployment::strategy")),
            ("template", Served("deployment::template")),
        ],
    ),
    (
        "api.apps.v1.DeploymentStrategy",
        &[("rollingUpdate", Served("deployment::rolling_update")), ("type", Served("deployment::strategy"))],
    ),
    (
        "api.apps.v1.RollingUpdateDeployment",
        &[("maxSurge", Served("deployment::max_surge")), ("maxUnavailable", Served("deployment::max_unavailable"))],
    ),
    (
        "api.apps.v1.ReplicaSetSpec",
        &[
            ("minReadySeconds", Served("replicaset::min_ready_seconds")),
            ("replicas", Served("replicaset::replicas")),
            ("selector", Served("replicaset::selector")),
            ("template", Served("replicaset::template")),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelector",
        &[
            ("matchExpressions", Served("deployment::selector_expressions")),
            ("matchLabels", Served("deployment::selector")),
        ],
    ),
    (
        "apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement",
        &[
            ("key", Served("deployment::selector_expressions")),
            ("operator", Served("deployment::selector_expressions")),
            ("values", Served("deployment::selector_expressions")),
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
