//! What a container of a pod may say.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvFromSource, EnvVar, PodSpec, ResourceRequirements, VolumeMount,
};

use super::{context, probe, source, spec::address};
use crate::{
    faults::{Cause, Faults, Path},
    names,
    quantity::Quantity,
};

/// The resources that there are.
pub(super) const RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Where a container stands.
pub(super) struct In<'a> {
    pub(super) spec: &'a PodSpec,
    /// The names of the pod's volumes.
    pub(super) volumes: &'a HashSet<&'a str>,
    /// Among the init containers.
    pub(super) init: bool,
}

pub(super) fn validate(container: &Container, pod: &In<'_>, at: &Path, bad: &mut Faults) {
    bad.named(at.field("name"), &container.name, names::label);
    image(container.image.as_deref().unwrap_or_default(), at.field("image"), bad);
    let policies = ["Always", "IfNotPresent", "Never"];
    bad.one_of(at.field("imagePullPolicy"), container.image_pull_policy.as_deref(), &policies);
    if let Some(policy) = &container.restart_policy {
        if pod.init {
            bad.one_of(at.field("restartPolicy"), Some(policy), &["Always"]);
        } else {
            let message = "only an init container may have its own (Always makes it a sidecar); use spec.restartPolicy";
            bad.forbidden(at.field("restartPolicy"), message);
        }
    }
    for (field, words) in [("command", &container.command), ("args", &container.args)] {
        for (index, word) in words.iter().flatten().enumerate() {
            bad.unless(!word.contains('\0'), at.field(field).index(index), "must not contain NUL");
        }
    }
    if let Some(directory) = container.working_dir.as_deref().filter(|d| !d.is_empty()) {
        let at = at.field("workingDir");
        absolute(directory, &at, bad);
        // CVE-2024-21626: a descriptor that leaked is a way out.
        bad.unless(!inside_proc(directory), at, "must not be in /proc");
    }
    if let Some(path) = container.termination_message_path.as_deref().filter(|p| !p.is_empty()) {
        absolute(path, &at.field("terminationMessagePath"), bad);
        no_steps_back(path, at.field("terminationMessagePath"), bad);
    }
    let policies = ["File", "FallbackToLogsOnError"];
    bad.one_of(at.field("terminationMessagePolicy"), container.termination_message_policy.as_deref(), &policies);
    ports(container.ports.as_deref().unwrap_or_default(), pod.spec, &at.field("ports"), bad);
    env(container, at, bad);
    let mut paths = HashSet::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let at = at.field("volumeMounts").index(index);
        self::mount(mount, pod.volumes, &at, bad);
        if !mount.mount_path.is_empty() && !paths.insert(mount.mount_path.trim_end_matches('/')) {
            bad.duplicate(at.field("mountPath"), format!("{:.80?}", mount.mount_path));
        }
    }
    if let Some(resources) = &container.resources {
        self::resources(resources, &at.field("resources"), bad);
    }
    probe::of_container(container, pod, at, bad);
    if let Some(context) = &container.security_context {
        context::container(context, &at.field("securityContext"), bad);
    }
}

fn image(image: &str, at: Path, bad: &mut Faults) {
    if image.is_empty() {
        bad.required(at, "must be given");
    } else {
        let good = image.len() <= 4096 && !image.chars().any(|c| c.is_whitespace() || c.is_control());
        bad.unless(good, at, format!("{image:.80?} must not contain blanks"));
    }
}

/// A path from the root, and nothing that a mount or a file name cannot hold.
fn absolute(path: &str, at: &Path, bad: &mut Faults) {
    bad.unless(path.starts_with('/'), at.clone(), format!("{path:.80?} must begin with '/'"));
    bad.unless(!path.contains('\0'), at.clone(), "must not contain NUL");
}

/// No component `..`.
pub(super) fn no_steps_back(path: &str, at: Path, bad: &mut Faults) {
    bad.unless(!path.split('/').any(|part| part == ".."), at, format!("{path:.80?} must not contain '..'"));
}

fn inside_proc(path: &str) -> bool {
    path.split('/').find(|part| !part.is_empty() && *part != ".") == Some("proc")
}

fn ports(ports: &[ContainerPort], pod: &PodSpec, at: &Path, bad: &mut Faults) {
    let mut seen = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            bad.ruled(at.field("name"), name, names::port);
            if !seen.insert(name) {
                bad.duplicate(at.field("name"), format!("{name:.80?}"));
            }
        }
        bad.ranged(at.field("containerPort"), port.container_port.into(), 1..=65535);
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            bad.ranged(at.field("hostPort"), number.into(), 1..=65535);
            if pod.host_network == Some(true) && number != port.container_port {
                let message = "must be the containerPort, for the pod is in the host's network";
                bad.push(at.field("hostPort"), Cause::Invalid, message);
            }
        }
        bad.one_of(at.field("protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"]);
        if port.protocol.as_deref() == Some("SCTP") && port.host_port.is_some_and(|p| p != 0) {
            bad.push(at.field("protocol"), Cause::Invalid, "a hostPort is opened for TCP or UDP only");
        }
        if let Some(ip) = port.host_ip.as_deref().filter(|ip| !ip.is_empty()) {
            address(ip, at.field("hostIP"), bad);
            let forwarded = pod.host_network != Some(true) && port.host_port.is_some_and(|p| p != 0);
            if forwarded && ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
                let message = "must not be a loopback address, which is not forwarded to pods; use one of the node's";
                bad.push(at.field("hostIP"), Cause::Invalid, message);
            }
        }
    }
}

fn env(container: &Container, at: &Path, bad: &mut Faults) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        self::variable(variable, &at.field("env").index(index), bad);
    }
    for (index, from) in container.env_from.iter().flatten().enumerate() {
        let at = at.field("envFrom").index(index);
        if let Some(prefix) = from.prefix.as_deref().filter(|p| !p.is_empty()) {
            bad.ruled(at.field("prefix"), prefix, names::env);
        }
        let EnvFromSource { config_map_ref, secret_ref, .. } = from;
        match (config_map_ref, secret_ref) {
            (Some(source), None) => bad.named(at.field("configMapRef").field("name"), &source.name, names::subdomain),
            (None, Some(source)) => bad.named(at.field("secretRef").field("name"), &source.name, names::subdomain),
            _ => bad.push(at, Cause::Invalid, "must have either configMapRef or secretRef"),
        }
    }
}

fn variable(variable: &EnvVar, at: &Path, bad: &mut Faults) {
    bad.named(at.field("name"), &variable.name, names::env);
    if let Some(value) = &variable.value {
        bad.unless(!value.contains('\0'), at.field("value"), "must not contain NUL");
    }
    let Some(from) = &variable.value_from else { return };
    let at = at.field("valueFrom");
    if variable.value.as_ref().is_some_and(|v| !v.is_empty()) {
        bad.push(at.clone(), Cause::Invalid, "must not be given beside a value");
    }
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    if sources.iter().filter(|given| **given).count() != 1 {
        bad.push(at.clone(), Cause::Invalid, "must have exactly one source");
    }
    if let Some(field) = &from.field_ref {
        source::field(field, source::ENV_FIELDS, &at.field("fieldRef"), bad);
    }
    if let Some(resource) = &from.resource_field_ref {
        source::resource(resource, &at.field("resourceFieldRef"), bad);
    }
    if let Some(key) = &from.config_map_key_ref {
        let at = at.field("configMapKeyRef");
        bad.named(at.field("name"), &key.name, names::subdomain);
        bad.named(at.field("key"), &key.key, names::config_key);
    }
    if let Some(key) = &from.secret_key_ref {
        let at = at.field("secretKeyRef");
        bad.named(at.field("name"), &key.name, names::subdomain);
        bad.named(at.field("key"), &key.key, names::config_key);
    }
}

fn mount(mount: &VolumeMount, volumes: &HashSet<&str>, at: &Path, bad: &mut Faults) {
    if mount.name.is_empty() {
        bad.required(at.field("name"), "must be given");
    } else if !volumes.contains(&*mount.name) {
        let message = format!("the pod has no volume {:.80?}", mount.name);
        bad.push(at.field("name"), Cause::NotFound, message);
    }
    let (path, place) = (&mount.mount_path, at.field("mountPath"));
    if path.is_empty() {
        bad.required(place, "must be given");
    } else {
        absolute(path, &place, bad);
        no_steps_back(path, place.clone(), bad);
        bad.unless(!path.contains(':'), place.clone(), "must not contain ':'");
        bad.unless(!inside_proc(path), place.clone(), "must not be in /proc");
        bad.unless(path.split('/').any(|p| !p.is_empty() && p != "."), place, "must not be the root");
    }
    let sub = [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)];
    for (field, path) in sub {
        if let Some(path) = path.as_deref().filter(|p| !p.is_empty()) {
            relative(path, at.field(field), bad);
        }
    }
    if sub.iter().all(|(_, path)| path.as_ref().is_some_and(|p| !p.is_empty())) {
        bad.push(at.field("subPathExpr"), Cause::Invalid, "must not be given beside subPath");
    }
    if mount.mount_propagation.as_deref() == Some("Bidirectional") {
        let message = "mounts of a container are never passed on to the host; use HostToContainer or None";
        bad.push(at.field("mountPropagation"), Cause::NotSupported, message);
    } else {
        bad.one_of(at.field("mountPropagation"), mount.mount_propagation.as_deref(), &["None", "HostToContainer"]);
    }
    let recursive = mount.recursive_read_only.as_deref();
    bad.one_of(at.field("recursiveReadOnly"), recursive, &["Disabled", "IfPossible", "Enabled"]);
    if matches!(recursive, Some("IfPossible" | "Enabled")) {
        let at = at.field("recursiveReadOnly");
        if mount.read_only != Some(true) {
            bad.forbidden(at.clone(), "readOnly must be true");
        }
        if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
            bad.forbidden(at, "mountPropagation must be None");
        }
    }
}

/// A path that stays inside of what it is relative to.
pub(super) fn relative(path: &str, at: Path, bad: &mut Faults) {
    bad.unless(!path.starts_with('/'), at.clone(), format!("{path:.80?} must not begin with '/'"));
    bad.unless(!path.contains('\0'), at.clone(), "must not contain NUL");
    no_steps_back(path, at, bad);
}

fn resources(resources: &ResourceRequirements, at: &Path, bad: &mut Faults) {
    let limits = resources.limits.clone().unwrap_or_default();
    let mut sound = HashMap::new();
    for (name, amount) in &limits {
        if let Some(amount) = self::amount(name, &amount.0, &at.field("limits").key(name), bad) {
            sound.insert(name, amount);
        }
    }
    for (name, amount) in resources.requests.iter().flatten() {
        // A request that was made from its limit has no fault of its own.
        if limits.get(name) == Some(amount) {
            continue;
        }
        let at = at.field("requests").key(name);
        let Some(amount) = self::amount(name, &amount.0, &at, bad) else { continue };
        if let Some(limit) = sound.get(name).filter(|limit| amount > **limit) {
            bad.push(at, Cause::Invalid, format!("{amount} must not be more than the limit of {limit}"));
        }
    }
}

fn amount(name: &str, text: &str, at: &Path, bad: &mut Faults) -> Option<Quantity> {
    if !RESOURCES.contains(&name) {
        let message = format!("there is no resource {name:.80?} on any node; use {}", RESOURCES.join(", "));
        bad.push(at.clone(), Cause::NotSupported, message);
        return None;
    }
    quantity(text, at, bad)
}

/// A quantity that is not negative.
pub(super) fn quantity(text: &str, at: &Path, bad: &mut Faults) -> Option<Quantity> {
    match text.parse::<Quantity>() {
        Ok(amount) if amount.is_negative() => {
            bad.push(at.clone(), Cause::Invalid, format!("{amount} must not be negative"));
            None
        }
        Ok(amount) => Some(amount),
        Err(why) => {
            bad.push(at.clone(), Cause::Invalid, format!("{text:.80?} {why}"));
            None
        }
    }
}
