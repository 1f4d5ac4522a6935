//! Pod Security Standards: what a pod may ask of its host (kubernetes.io, "Pod Security Standards").

use std::borrow::Cow;

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, LifecycleHandler, PodSecurityContext, PodSpec, Probe, SELinuxOptions, SeccompProfile,
        SecurityContext, Volume,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{faults::Path, kinds::pod::effective};

/// How much a namespace's pods may ask of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Anything.
    Privileged,
    /// What a namespace without the label gets: [`Level::Baseline`], and ports of the host.
    #[default]
    Default,
    /// No known way to more privileges.
    Baseline,
    /// Hardened.
    Restricted,
}

/// The label of a namespace that says its level.
pub const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

impl Level {
    /// The level that the label [`ENFORCE`] names: `privileged`, `baseline` or `restricted`.
    pub fn parse(label: &str) -> Option<Self> {
        match label {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

/// One control that a pod does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The control, as the standards call it.
    pub control: &'static str,
    /// Where.
    pub path: Path,
    /// What is wrong.
    pub message: String,
}

const BASELINE_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// A sysctl's name with its parts joined by dots. It may be written with slashes too, where a dot stands for itself:
/// the first of either tells.
pub fn sysctl_name(name: &str) -> Cow<'_, str> {
    let swapped = |c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    };
    match name.chars().find(|c| matches!(c, '.' | '/')) {
        Some('/') => name.chars().map(swapped).collect(),
        _ => name.into(),
    }
}

/// Sysctls that belong to the pod's own namespaces and can harm nobody else.
pub const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

const SELINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod asks for that its namespace's level does not grant. Paths begin at the pod (`spec.hostNetwork`).
pub fn check(level: Level, spec: &PodSpec, metadata: &ObjectMeta) -> Vec<Violation> {
    if level == Level::Privileged {
        return Vec::new();
    }
    let mut found = Found { all: Vec::new() };
    let at = Path::root().field("spec");
    found.pod(level, spec, &at);
    for (key, value) in metadata.annotations.iter().flatten() {
        if key.starts_with(APPARMOR_ANNOTATION) && value != "runtime/default" && !value.starts_with("localhost/") {
            let path = Path::root().field("metadata").field("annotations").key(key);
            found.note("AppArmor", path, format!("{value:?} must be runtime/default or localhost/…"));
        }
    }
    for (container, at) in containers(spec, &at) {
        found.container(level, container, &at);
        if level == Level::Restricted {
            found.restricted(spec.security_context.as_ref(), container.security_context.as_ref(), &at);
        }
    }
    found.all
}

/// Every container of a pod with its path, init containers first.
pub(crate) fn containers<'a>(spec: &'a PodSpec, at: &Path) -> Vec<(&'a Container, Path)> {
    let lists =
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    let each = lists.into_iter().flat_map(|(field, list)| {
        let at = at.field(field);
        list.iter().enumerate().map(move |(index, container)| (container, at.index(index)))
    });
    each.collect()
}

struct Found {
    all: Vec<Violation>,
}

impl Found {
    fn note(&mut self, control: &'static str, path: Path, message: impl Into<String>) {
        self.all.push(Violation { control, path, message: message.into() });
    }

    fn refuse(&mut self, asked: bool, control: &'static str, path: Path) {
        if asked {
            self.note(control, path, "must be unset or false");
        }
    }

    fn pod(&mut self, level: Level, spec: &PodSpec, at: &Path) {
        for (asked, field) in
            [(spec.host_network, "hostNetwork"), (spec.host_pid, "hostPID"), (spec.host_ipc, "hostIPC")]
        {
            self.refuse(asked == Some(true), "Host Namespaces", at.field(field));
        }
        for (index, volume) in spec.volumes.iter().flatten().enumerate() {
            self.volume(level, volume, &at.field("volumes").index(index));
        }
        let Some(context) = &spec.security_context else { return };
        let at = at.field("securityContext");
        for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
            if !SAFE_SYSCTLS.contains(&&*sysctl_name(&sysctl.name)) {
                let path = at.field("sysctls").index(index).field("name");
                self.note("Sysctls", path, format!("{:?} is not a safe sysctl", sysctl.name));
            }
        }
        self.refuse(
            context.windows_options.as_ref().is_some_and(|w| w.host_process == Some(true)),
            "HostProcess",
            at.field("windowsOptions").field("hostProcess"),
        );
        self.app_armor(context.app_armor_profile.as_ref().map(|p| &*p.type_), &at);
        self.selinux(context.se_linux_options.as_ref(), &at);
        self.seccomp(context.seccomp_profile.as_ref(), &at);
        if level == Level::Restricted && context.run_as_user == Some(0) {
            self.note("Running as Non-root user", at.field("runAsUser"), "must not be 0");
        }
    }

    fn volume(&mut self, level: Level, volume: &Volume, at: &Path) {
        if volume.host_path.is_some() {
            self.note("HostPath Volumes", at.field("hostPath"), "volumes of the host are forbidden");
        } else if level == Level::Restricted
            && volume.config_map.is_none()
            && volume.csi.is_none()
            && volume.downward_api.is_none()
            && volume.empty_dir.is_none()
            && volume.ephemeral.is_none()
            && volume.persistent_volume_claim.is_none()
            && volume.projected.is_none()
            && volume.secret.is_none()
        {
            let most = "must be a configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected or secret";
            self.note("Volume Types", at.clone(), most);
        }
    }

    fn container(&mut self, level: Level, container: &Container, at: &Path) {
        if level != Level::Default {
            for (index, port) in container.ports.iter().flatten().enumerate() {
                if port.host_port.is_some_and(|p| p != 0) {
                    let path = at.field("ports").index(index).field("hostPort");
                    self.note("Host Ports", path, "must be unset or 0");
                }
            }
        }
        self.hosts(container, at);
        let Some(context) = &container.security_context else { return };
        let at = at.field("securityContext");
        self.refuse(context.privileged == Some(true), "Privileged Containers", at.field("privileged"));
        self.refuse(
            context.windows_options.as_ref().is_some_and(|w| w.host_process == Some(true)),
            "HostProcess",
            at.field("windowsOptions").field("hostProcess"),
        );
        for (index, capability) in added(context.capabilities.as_ref()).iter().enumerate() {
            if !BASELINE_CAPABILITIES.contains(&&**capability) {
                let path = at.field("capabilities").field("add").index(index);
                self.note("Capabilities", path, format!("{capability} is not among those that every pod may add"));
            }
        }
        self.app_armor(context.app_armor_profile.as_ref().map(|p| &*p.type_), &at);
        self.selinux(context.se_linux_options.as_ref(), &at);
        self.seccomp(context.seccomp_profile.as_ref(), &at);
        if context.proc_mount.as_ref().is_some_and(|mount| mount != "Default") {
            self.note("/proc Mount Type", at.field("procMount"), "must be unset or Default");
        }
    }

    /// A probe or hook of the node must not reach elsewhere than its pod.
    fn hosts(&mut self, container: &Container, at: &Path) {
        let probes = [
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
            ("startupProbe", &container.startup_probe),
        ];
        let as_handler = |probe: &Probe| LifecycleHandler {
            http_get: probe.http_get.clone(),
            tcp_socket: probe.tcp_socket.clone(),
            ..LifecycleHandler::default()
        };
        for (field, probe) in probes {
            if let Some(probe) = probe {
                self.handler(&as_handler(probe), &at.field(field));
            }
        }
        if let Some(lifecycle) = &container.lifecycle {
            for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
                if let Some(hook) = hook {
                    self.handler(hook, &at.field("lifecycle").field(field));
                }
            }
        }
    }

    fn handler(&mut self, handler: &LifecycleHandler, at: &Path) {
        let http = handler.http_get.as_ref().and_then(|h| h.host.as_ref());
        let tcp = handler.tcp_socket.as_ref().and_then(|t| t.host.as_ref());
        for (field, host) in [("httpGet", http), ("tcpSocket", tcp)] {
            if host.is_some_and(|h| !h.is_empty()) {
                self.note("Host Probes / Lifecycle Hooks", at.field(field).field("host"), "must be unset");
            }
        }
    }

    fn app_armor(&mut self, profile: Option<&str>, at: &Path) {
        if !matches!(profile, None | Some("RuntimeDefault" | "Localhost")) {
            let path = at.field("appArmorProfile").field("type");
            self.note("AppArmor", path, "must be unset, RuntimeDefault or Localhost");
        }
    }

    fn selinux(&mut self, options: Option<&SELinuxOptions>, at: &Path) {
        let Some(options) = options else { return };
        let at = at.field("seLinuxOptions");
        if options.type_.as_ref().is_some_and(|t| !SELINUX_TYPES.contains(&&**t)) {
            self.note("SELinux", at.field("type"), "must be unset or one of the container types");
        }
        for (field, value) in [("user", &options.user), ("role", &options.role)] {
            if value.as_ref().is_some_and(|v| !v.is_empty()) {
                self.note("SELinux", at.field(field), "must be unset");
            }
        }
    }

    fn seccomp(&mut self, profile: Option<&SeccompProfile>, at: &Path) {
        if profile.is_some_and(|p| p.type_ == "Unconfined") {
            let path = at.field("seccompProfile").field("type");
            self.note("Seccomp", path, "must be unset, RuntimeDefault or Localhost");
        }
    }

    fn restricted(&mut self, pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>, at: &Path) {
        let at = at.field("securityContext");
        if own.and_then(|c| c.allow_privilege_escalation) != Some(false) {
            self.note("Privilege Escalation", at.field("allowPrivilegeEscalation"), "must be false");
        }
        let holds = effective(pod, own);
        if holds.run_as_non_root != Some(true) {
            self.note("Running as Non-root", at.field("runAsNonRoot"), "must be true, here or in the pod");
        }
        if own.and_then(|c| c.run_as_user) == Some(0) {
            self.note("Running as Non-root user", at.field("runAsUser"), "must not be 0");
        }
        match holds.seccomp_profile.as_ref().map(|p| &*p.type_) {
            Some("RuntimeDefault" | "Localhost" | "Unconfined") => {} // Unconfined is told by the baseline
            _ => self.note(
                "Seccomp",
                at.field("seccompProfile").field("type"),
                "must be RuntimeDefault or Localhost, here or in the pod",
            ),
        }
        let capabilities = own.and_then(|c| c.capabilities.as_ref());
        let at = at.field("capabilities");
        if !capabilities.and_then(|c| c.drop.as_ref()).is_some_and(|d| d.iter().any(|c| c == "ALL")) {
            self.note("Capabilities", at.field("drop"), "must include ALL");
        }
        for (index, capability) in added(capabilities).iter().enumerate() {
            // What the baseline refuses has been told already.
            if capability != "NET_BIND_SERVICE" && BASELINE_CAPABILITIES.contains(&&**capability) {
                self.note("Capabilities", at.field("add").index(index), "only NET_BIND_SERVICE may be added");
            }
        }
    }
}

fn added(capabilities: Option<&Capabilities>) -> &[String] {
    capabilities.and_then(|c| c.add.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn violations(level: Level, mut spec: Value) -> Vec<String> {
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "a", "image": "b"}]);
        }
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let mut paths: Vec<String> =
            check(level, &spec, &ObjectMeta::default()).iter().map(|v| v.path.to_string()).collect();
        paths.sort();
        paths
    }

    fn with_context(context: Value) -> Value {
        json!({"containers": [{"name": "a", "securityContext": context}]})
    }

    #[test]
    fn baseline_refuses_each_way_to_the_host() {
        let own = "spec.containers[0].securityContext";
        let cases = [
            (json!({"hostNetwork": true}), "spec.hostNetwork".to_owned()),
            (json!({"hostPID": true}), "spec.hostPID".to_owned()),
            (json!({"hostIPC": true}), "spec.hostIPC".to_owned()),
            (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "spec.volumes[0].hostPath".to_owned()),
            (with_context(json!({"privileged": true})), format!("{own}.privileged")),
            (
                with_context(json!({"capabilities": {"add": ["CHOWN", "NET_RAW"]}})),
                format!("{own}.capabilities.add[1]"),
            ),
            (with_context(json!({"capabilities": {"add": ["ALL"]}})), format!("{own}.capabilities.add[0]")),
            (with_context(json!({"procMount": "Unmasked"})), format!("{own}.procMount")),
            (with_context(json!({"seccompProfile": {"type": "Unconfined"}})), format!("{own}.seccompProfile.type")),
            (with_context(json!({"appArmorProfile": {"type": "Unconfined"}})), format!("{own}.appArmorProfile.type")),
            (with_context(json!({"seLinuxOptions": {"type": "spc_t"}})), format!("{own}.seLinuxOptions.type")),
            (with_context(json!({"seLinuxOptions": {"user": "root"}})), format!("{own}.seLinuxOptions.user")),
            (
                with_context(json!({"windowsOptions": {"hostProcess": true}})),
                format!("{own}.windowsOptions.hostProcess"),
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "kernel/shm_rmid_forced"}, {"name": "kernel.core_pattern"}]}}),
                "spec.securityContext.sysctls[1].name".to_owned(),
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
                "spec.securityContext.seccompProfile.type".to_owned(),
            ),
            (
                json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "169.254.169.254", "port": 80}}}]}),
                "spec.containers[0].livenessProbe.httpGet.host".to_owned(),
            ),
            (
                json!({"containers": [{"name": "a", "lifecycle": {"preStop": {"tcpSocket": {"host": "x", "port": 80}}}}]}),
                "spec.containers[0].lifecycle.preStop.tcpSocket.host".to_owned(),
            ),
        ];
        for (spec, path) in cases {
            for level in [Level::Default, Level::Baseline] {
                assert_eq!(violations(level, spec.clone()), std::slice::from_ref(&path), "{spec}");
            }
            assert!(violations(Level::Restricted, spec.clone()).contains(&path), "{spec}");
            assert_eq!(violations(Level::Privileged, spec), Vec::<String>::new());
        }
    }

    #[test]
    fn init_containers_are_looked_at_too() {
        let spec = json!({"initContainers": [{"name": "i", "securityContext": {"privileged": true}}]});
        assert_eq!(violations(Level::Baseline, spec), ["spec.initContainers[0].securityContext.privileged"]);
    }

    #[test]
    fn the_default_level_grants_host_ports_and_no_more() {
        let spec = json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
        assert_eq!(violations(Level::Default, spec.clone()), Vec::<String>::new());
        assert_eq!(violations(Level::Baseline, spec), ["spec.containers[0].ports[0].hostPort"]);
    }

    #[test]
    fn restricted_wants_a_hardened_pod() {
        let own = "spec.containers[0].securityContext";
        assert_eq!(
            violations(Level::Restricted, json!({})),
            ["allowPrivilegeEscalation", "capabilities.drop", "runAsNonRoot", "seccompProfile.type"]
                .map(|f| format!("{own}.{f}"))
        );
        let hardened = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(violations(Level::Restricted, with_context(hardened.clone())), Vec::<String>::new());
        let mut root = with_context(hardened.clone());
        root["containers"][0]["securityContext"]["runAsUser"] = json!(0);
        assert_eq!(violations(Level::Restricted, root), [format!("{own}.runAsUser")]);
        let mut nfs = with_context(hardened);
        nfs["volumes"] = json!([{"name": "v", "nfs": {"server": "a", "path": "/"}}]);
        assert_eq!(violations(Level::Restricted, nfs), ["spec.volumes[0]"]);
    }

    #[test]
    fn annotations_cannot_switch_apparmor_off() {
        let metadata = ObjectMeta {
            annotations: Some([(format!("{APPARMOR_ANNOTATION}a"), "unconfined".to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert_eq!(check(Level::Default, &PodSpec::default(), &metadata).len(), 1);
    }
}
