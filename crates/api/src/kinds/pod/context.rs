//! What the security contexts of a pod and of a container may say.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl};

use super::container::relative;
use crate::{
    faults::{Cause, Faults, Path},
    names,
    security::{SAFE_SYSCTLS, sysctl_name},
};

/// Users and groups are numbers that fit into the kernel's, short of its "nobody said".
const IDS: std::ops::RangeInclusive<i64> = 0..=i32::MAX as i64;

/// The capabilities of Linux, without their prefix (capabilities(7)).
pub const CAPABILITIES: &[&str] = &[
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// What holds for a container: its own word, or else its pod's.
pub fn effective(pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>) -> SecurityContext {
    let mut context = own.cloned().unwrap_or_default();
    if let Some(pod) = pod {
        context.run_as_user = context.run_as_user.or(pod.run_as_user);
        context.run_as_group = context.run_as_group.or(pod.run_as_group);
        context.run_as_non_root = context.run_as_non_root.or(pod.run_as_non_root);
        context.seccomp_profile = context.seccomp_profile.or_else(|| pod.seccomp_profile.clone());
    }
    context
}

pub(super) fn pod(context: &PodSecurityContext, spec: &PodSpec, at: &Path, bad: &mut Faults) {
    for (field, id) in
        [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group), ("fsGroup", context.fs_group)]
    {
        self::id(id, at.field(field), bad);
    }
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), at.field("supplementalGroups").index(index), bad);
    }
    let policy = context.fs_group_change_policy.as_deref();
    bad.one_of(at.field("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    let policy = context.supplemental_groups_policy.as_deref();
    bad.one_of(at.field("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    seccomp(context.seccomp_profile.as_ref(), at, bad);
    let (mut seen, mut refused) = (HashSet::new(), Faults::default());
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let at = at.field("sysctls").index(index).field("name");
        if !seen.insert(sysctl_name(&sysctl.name)) {
            bad.duplicate(at.clone(), format!("{:.80?}", sysctl.name));
        }
        if let Some(why) = names::sysctl(&sysctl.name) {
            bad.push(at, Cause::Invalid, format!("Invalid value: {:.80?}: {why}", sysctl.name));
        } else {
            self::sysctl(sysctl, spec, at, &mut refused);
        }
    }
    // What is no name at all comes first: it says nothing yet of what the pod is allowed.
    if bad.is_empty() {
        bad.0.extend(refused.0);
    }
}

fn sysctl(sysctl: &Sysctl, spec: &PodSpec, at: Path, bad: &mut Faults) {
    let name = sysctl_name(&sysctl.name);
    if !SAFE_SYSCTLS.contains(&&*name) {
        let message = format!("{name:.80?} would reach beyond the pod; these do not: {}", SAFE_SYSCTLS.join(", "));
        bad.forbidden(at, message);
    } else if spec.host_network == Some(true) && name.starts_with("net.") {
        bad.forbidden(at, "the network is the host's (hostNetwork), and so would the setting be");
    } else if spec.host_ipc == Some(true) && name.starts_with("kernel.") {
        bad.forbidden(at, "shared memory is the host's (hostIPC), and so would the setting be");
    }
}

pub(super) fn container(context: &SecurityContext, at: &Path, bad: &mut Faults) {
    id(context.run_as_user, at.field("runAsUser"), bad);
    id(context.run_as_group, at.field("runAsGroup"), bad);
    bad.one_of(at.field("procMount"), context.proc_mount.as_deref(), &["Default", "Unmasked"]);
    seccomp(context.seccomp_profile.as_ref(), at, bad);
    let capabilities = context.capabilities.as_ref();
    let added = capabilities.and_then(|c| c.add.as_deref()).unwrap_or_default();
    let dropped = capabilities.and_then(|c| c.drop.as_deref()).unwrap_or_default();
    for (field, list) in [("add", added), ("drop", dropped)] {
        for (index, name) in list.iter().enumerate().filter(|(_, name)| *name != "ALL") {
            if !CAPABILITIES.contains(&&**name) {
                let message = format!("{name:.80?} must be ALL or a capability without its prefix, such as NET_RAW");
                bad.push(at.field("capabilities").field(field).index(index), Cause::NotSupported, message);
            }
        }
    }
    if context.allow_privilege_escalation == Some(false) {
        let at = at.field("allowPrivilegeEscalation");
        if context.privileged == Some(true) {
            bad.push(at.clone(), Cause::Invalid, "must not be false for a privileged container");
        }
        if added.iter().any(|c| c == "SYS_ADMIN") {
            bad.push(at, Cause::Invalid, "must not be false for a container with SYS_ADMIN");
        }
    }
}

fn id(id: Option<i64>, at: Path, bad: &mut Faults) {
    if let Some(id) = id {
        bad.ranged(at, id, IDS);
    }
}

fn seccomp(profile: Option<&SeccompProfile>, at: &Path, bad: &mut Faults) {
    let Some(profile) = profile else { return };
    let at = at.field("seccompProfile");
    bad.one_of(at.field("type"), Some(&profile.type_), &["RuntimeDefault", "Localhost", "Unconfined"]);
    let at = at.field("localhostProfile");
    match (&*profile.type_, profile.localhost_profile.as_deref().unwrap_or_default()) {
        ("Localhost", "") => bad.required(at, "must be given when the type is Localhost"),
        ("Localhost", path) => relative(path, at, bad),
        (_, "") => {}
        _ => bad.push(at, Cause::Invalid, "must only be given when the type is Localhost"),
    }
}
