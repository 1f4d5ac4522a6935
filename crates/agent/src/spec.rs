//! From a container of the API to one of the runtime: pure, once everything it refers to is at hand.

use std::path::{Path, PathBuf};

use api::security::sysctl_name;
use images::{Image, Snapshot};
use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{Backend, ContainerSpec, Mount, Rootfs, SandboxSpec};

use crate::{config::Config, env, files, observe::Failure, pod, resources, security};

/// Labels that the runtime keeps, so that a new agent knows what it finds.
pub mod labels {
    #![allow(missing_docs)]
    pub const NAMESPACE: &str = "namespace";
    pub const POD: &str = "pod";
    pub const CONTAINER: &str = "container";
    pub const IMAGE: &str = "image";
    pub const IMAGE_ID: &str = "image-id";
    pub const HASH: &str = "hash";
}

/// The sandbox of a pod.
///
/// # Errors
/// When it cannot have the host name that it asks for.
pub fn sandbox(config: &Config, pod: &Pod) -> Result<SandboxSpec, String> {
    let spec = pod::spec(pod);
    let sysctls = spec.security_context.iter().filter_map(|s| s.sysctls.as_ref()).flatten();
    Ok(SandboxSpec {
        id: pod::uid(pod).into(),
        hostname: files::hostname(pod, &config.node_name, &config.dns.domain)?,
        host_network: spec.host_network.unwrap_or(false),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        sysctls: sysctls.map(|s| (sysctl_name(&s.name).into_owned(), s.value.clone())).collect(),
        cgroup: resources::cgroup(pod),
        resources: resources::sandbox(pod, config.pids),
    })
}

/// What a container needs beside its own definition.
pub struct Parts<'a> {
    /// The instance.
    pub attempt: u32,
    /// Its image.
    pub image: &'a Image,
    /// Its writable layer.
    pub snapshot: Snapshot,
    /// The environment that its definition gives it.
    pub env: Vec<(String, String)>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
}

/// The container as the runtime starts it.
pub fn container(config: &Config, pod: &Pod, c: &Container, parts: Parts<'_>) -> Result<ContainerSpec, Failure> {
    let image = parts.image.config.config().clone().unwrap_or_default();
    let lookup = |name: &str| parts.env.iter().find(|e| e.0 == name).map(|e| e.1.clone());
    let expanded = |words: &Option<Vec<String>>| -> Option<Vec<String>> {
        let words = words.as_ref().filter(|w| !w.is_empty())?;
        Some(words.iter().map(|w| env::expand(w, lookup)).collect())
    };
    let (command, args) = (expanded(&c.command), expanded(&c.args));
    // A command replaces the image's entry point and its arguments, arguments only the latter.
    let words = match (command, args) {
        (Some(command), args) => [command, args.unwrap_or_default()].concat(),
        (None, args) => {
            let entry = image.entrypoint().clone().unwrap_or_default();
            [entry, args.or_else(|| image.cmd().clone()).unwrap_or_default()].concat()
        }
    };
    if words.is_empty() {
        return Err(Failure {
            reason: "CreateContainerError",
            message: "no command specified: neither the container nor its image names one; set command".into(),
        });
    }
    let hostname = files::hostname(pod, &config.node_name, &config.dns.domain)
        .map_err(|message| Failure { reason: "CreateContainerError", message })?;
    // References in the definition lead to the definition only, not to what the image says.
    let env = env::merge(base_env(c, parts.image, &hostname), parts.env);
    let cwd = c.working_dir.clone().filter(|d| !d.is_empty()).or_else(|| image.working_dir().clone());
    Ok(ContainerSpec {
        id: pod::id(pod::uid(pod), &c.name, parts.attempt),
        sandbox: pod::uid(pod).into(),
        rootfs: Rootfs { lower: parts.snapshot.lower, upper: parts.snapshot.upper, work: parts.snapshot.work },
        args: words,
        env: env.iter().map(|(k, v)| format!("{k}={v}")).collect(),
        cwd: cwd.filter(|d| !d.is_empty()).unwrap_or_else(|| "/".into()).into(),
        user: security::user(pod, c, image.user().as_deref().unwrap_or_default()),
        terminal: c.tty.unwrap_or(false),
        stdin: c.stdin.unwrap_or(false),
        stdin_once: c.stdin_once.unwrap_or(false),
        mounts: parts.mounts,
        resources: resources::container(pod, c, config.capacity.memory, None),
        security: security::security(pod, c, &config.seccomp)?,
        log: log(&config.logs, pod, &c.name, parts.attempt),
        backend: Backend::default(), // the keeper knows which
        labels: [
            (labels::NAMESPACE, pod::namespace(pod).to_string()),
            (labels::POD, pod::name(pod).to_string()),
            (labels::CONTAINER, c.name.clone()),
            (labels::IMAGE, c.image.clone().unwrap_or_default()),
            (labels::IMAGE_ID, image_id(parts.image)),
            (labels::HASH, crate::decide::definition(c).to_string()),
        ]
        .into_iter()
        .map(|(k, v)| (k.to_string(), v))
        .collect(),
    })
}

/// `imageID` of a status: the manifest's digest, or the image's own when it came without one.
pub fn image_id(image: &Image) -> String {
    if image.digest.is_empty() { image.id.clone() } else { image.digest.clone() }
}

/// The directory of a pod's logs.
pub fn log_dir(logs: &Path, pod: &Pod) -> PathBuf {
    logs.join(format!("{}_{}_{}", pod::namespace(pod), pod::name(pod), pod::uid(pod)))
}

/// The log of an instance.
pub fn log(logs: &Path, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    log_dir(logs, pod).join(container).join(format!("{attempt}.log"))
}

/// The environment that an image and its place in a pod give.
fn base_env(c: &Container, image: &Image, hostname: &str) -> Vec<(String, String)> {
    let own = image.config.config().as_ref().and_then(|c| c.env().clone()).unwrap_or_default();
    let mut env: Vec<(String, String)> =
        own.iter().filter_map(|e| e.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    if !env.iter().any(|(k, _)| k == "PATH") {
        env.push(("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into()));
    }
    env.push(("HOSTNAME".into(), hostname.into()));
    if c.tty == Some(true) && !env.iter().any(|(k, _)| k == "TERM") {
        env.push(("TERM".into(), "xterm".into()));
    }
    env
}

/// Where the API is.
pub fn service_env(config: &Config) -> Vec<(String, String)> {
    let Some((host, port)) = &config.api else { return vec![] };
    vec![
        ("KUBERNETES_SERVICE_HOST".into(), host.clone()),
        ("KUBERNETES_SERVICE_PORT".into(), port.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".into(), port.to_string()),
    ]
}
