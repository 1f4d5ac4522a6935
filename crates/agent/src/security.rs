//! securityContext: what the processes of a container may do. The defaults are the least that common images run with.

use std::{collections::BTreeSet, path::PathBuf};

use api::pod::CAPABILITIES;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile, SecurityContext};
use runtime::{Seccomp, Security, User};

use crate::{observe::Failure, pod};

/// What a container holds unless it says otherwise; see docs/decisions/container-defaults.md.
pub const DEFAULT: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETPCAP", "SETUID"];

/// A container's rights. `profiles` is where `Localhost` seccomp profiles lie.
pub fn security(pod: &Pod, container: &Container, profiles: &std::path::Path) -> Result<Security, Failure> {
    let context = context(pod, container);
    let privileged = context.privileged.unwrap_or(false);
    let asked = context.capabilities.unwrap_or_default();
    let capabilities =
        capabilities(asked.add.as_deref().unwrap_or_default(), asked.drop.as_deref().unwrap_or_default())?;
    // Kubernetes allows escalation unless told not to; we forbid it unless told to allow it.
    let escalate = context.allow_privilege_escalation.unwrap_or(privileged);
    Ok(Security {
        privileged,
        no_new_privileges: !escalate,
        seccomp: if privileged { Seccomp::Unconfined } else { seccomp(context.seccomp_profile.as_ref(), profiles)? },
        read_only_root: context.read_only_root_filesystem.unwrap_or(false),
        unmasked_proc: privileged || context.proc_mount.as_deref() == Some("Unmasked"),
        capabilities: capabilities.into_iter().map(|c| format!("CAP_{c}")).collect(),
    })
}

fn context(pod: &Pod, container: &Container) -> SecurityContext {
    api::pod::effective(pod::spec(pod).security_context.as_ref(), container.security_context.as_ref())
}

fn capabilities(add: &[String], drop: &[String]) -> Result<BTreeSet<&'static str>, Failure> {
    let read = |names: &[String]| {
        let mut set = BTreeSet::new();
        for name in names {
            let upper = name.to_uppercase();
            let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
            match CAPABILITIES.iter().find(|c| **c == plain) {
                _ if plain == "ALL" => set.extend(CAPABILITIES.iter().copied()),
                Some(known) => set.extend([*known]),
                None => return Err(refused(format!("unknown capability {name:?}"))),
            }
        }
        Ok(set)
    };
    let (add, drop) = (read(add)?, read(drop)?);
    // What is added by name stays, even beside `drop: [ALL]`.
    let all_dropped = drop.len() == CAPABILITIES.len();
    let base = DEFAULT.into_iter().filter(|c| !drop.contains(c));
    Ok(base.chain(add.iter().copied().filter(|c| all_dropped || !drop.contains(c))).collect())
}

fn seccomp(profile: Option<&SeccompProfile>, profiles: &std::path::Path) -> Result<Seccomp, Failure> {
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.as_deref())) {
        None | Some(("RuntimeDefault", _)) => Ok(Seccomp::Default),
        Some(("Unconfined", _)) => Ok(Seccomp::Unconfined),
        Some(("Localhost", Some(path))) if safe(path) => Ok(Seccomp::Localhost(profiles.join(path))),
        Some(("Localhost", path)) => Err(refused(format!("seccomp profile {path:?} is not a path below {profiles:?}"))),
        Some((other, _)) => Err(refused(format!("unknown seccomp profile type {other:?}"))),
    }
}

fn safe(path: &str) -> bool {
    let path = PathBuf::from(path);
    !path.as_os_str().is_empty() && path.components().all(|c| matches!(c, std::path::Component::Normal(_)))
}

/// Whom a container runs as; `image` is the image's own choice.
pub fn user(pod: &Pod, container: &Container, image: &str) -> User {
    let context = context(pod, container);
    let shared = pod::spec(pod).security_context.clone().unwrap_or_default();
    let id = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
    User {
        spec: context.run_as_user.map_or_else(|| image.to_string(), |uid| uid.to_string()),
        gid: id(context.run_as_group),
        groups: shared
            .supplemental_groups
            .iter()
            .flatten()
            .copied()
            .chain(shared.fs_group)
            .filter_map(|g| id(Some(g)))
            .collect(),
        must_not_be_root: context.run_as_non_root.unwrap_or(false),
    }
}

/// The group that owns the pod's volumes.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod::spec(pod).security_context.as_ref()?.fs_group.and_then(|g| u32::try_from(g).ok())
}

fn refused(message: String) -> Failure {
    Failure { reason: "CreateContainerConfigError", message }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(context: serde_json::Value) -> Result<Security, Failure> {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {}, "spec": {"containers": [{"name": "c", "securityContext": context}]}}),
        )
        .unwrap();
        security(&pod, &pod::spec(&pod).containers[0], std::path::Path::new("/profiles"))
    }

    #[test]
    fn the_default_is_the_least() {
        let s = of(json!({})).unwrap();
        assert!(s.no_new_privileges && !s.privileged && s.seccomp == Seccomp::Default);
        assert!(!s.capabilities.iter().any(|c| c == "CAP_NET_RAW" || c == "CAP_MKNOD" || c == "CAP_SYS_CHROOT"));
        assert_eq!(s.capabilities.len(), DEFAULT.len());
    }

    #[test]
    fn add_and_drop() {
        let caps = |add: &[&str], drop: &[&str]| {
            of(json!({"capabilities": {"add": add, "drop": drop}})).map(|s| s.capabilities)
        };
        assert_eq!(caps(&["NET_ADMIN"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert_eq!(caps(&[], &["ALL"]).unwrap(), Vec::<String>::new());
        assert_eq!(caps(&["ALL"], &[]).unwrap().len(), CAPABILITIES.len());
        assert!(!caps(&["cap_net_raw"], &["KILL"]).unwrap().contains(&"CAP_KILL".into()));
        assert!(caps(&["NO_SUCH"], &[]).is_err());
    }

    #[test]
    fn escalation_and_seccomp() {
        assert!(!of(json!({"allowPrivilegeEscalation": true})).unwrap().no_new_privileges);
        assert!(of(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}})).is_err());
        let s = of(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}})).unwrap();
        assert_eq!(s.seccomp, Seccomp::Localhost("/profiles/a/b.json".into()));
    }
}
