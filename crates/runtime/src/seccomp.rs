//! System call filters, compiled once to BPF and loaded by [`crate::finish`].
//!
//! rastOS's own list has three outcomes: allowed; refused with EPERM, where programs expect a refusal; and
//! ENOSYS for all else, so that what is newer than this list looks absent and programs fall back. `clone3`
//! is among the absent: its flags lie in memory, where a filter cannot see a new user namespace asked for.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use libcontainer::oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompOperator};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use rustix::thread::CapabilitySet;

use crate::{Error, Result, Seccomp};

mod list;
use list::{ALLOWED, ALLOWED_BY_NUMBER, REFUSED, WITH_CAPABILITY};

/// Flags of `clone` and `unshare` that make namespaces.
const NEW_NAMESPACE: u64 = 0x7e02_0080;

/// The address families of `socket`, as masks and values: all but kernel crypto (38) and the host's hypervisor (40). The
/// kernel looks at the lower 32 bits only, so what is compared here must be these: with all 64, a bit above them would make
/// a refused family one that no rule knows.
const FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// Compiles a filter for a container that holds `capabilities`; `None` is no filter.
///
/// # Errors
/// [`Error::Invalid`] when a profile on the host cannot be read or names what this host's libseccomp lacks.
pub fn compile(seccomp: &Seccomp, capabilities: CapabilitySet) -> Result<Option<Vec<u8>>> {
    let invalid = |why: String| Error::Invalid { field: "security.seccomp".into(), why };
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => {
            let filter = default_filter(capabilities).map_err(|e| invalid(e.to_string()))?;
            export(&filter).map(Some).map_err(invalid)
        }
        Seccomp::Localhost(path) => {
            let profile = read(path).map_err(|e| invalid(format!("{}: {e}", path.display())))?;
            from_oci(&profile).map(Some).map_err(|e| invalid(format!("{}: {e}", path.display())))
        }
    }
}

type Scmp<T> = std::result::Result<T, libseccomp::error::SeccompError>;

fn errno(number: i32) -> ScmpAction {
    ScmpAction::Errno(number)
}

fn new_filter(default: ScmpAction) -> Scmp<ScmpFilterContext> {
    let mut filter = ScmpFilterContext::new(default)?;
    filter.set_ctl_nnp(false)?;
    filter.set_ctl_optimize(2)?; // a binary tree: depth 9 instead of 350 comparisons per call
    Ok(filter)
}

fn default_filter(capabilities: CapabilitySet) -> Scmp<ScmpFilterContext> {
    let mut filter = new_filter(errno(libc::ENOSYS))?;
    // 32-bit programs and x32 are not served: their tables are larger and seldom looked at.
    filter.set_act_badarch(errno(libc::ENOSYS))?;
    // An unknown name belongs to another architecture or a newer libseccomp: it stays absent.
    let known =
        |names: &[&'static str]| names.iter().filter_map(|n| ScmpSyscall::from_name(n).ok()).collect::<Vec<_>>();
    for call in known(ALLOWED) {
        filter.add_rule(ScmpAction::Allow, call)?;
    }
    for number in ALLOWED_BY_NUMBER {
        filter.add_rule(ScmpAction::Allow, ScmpSyscall::from(*number))?;
    }
    for call in known(REFUSED) {
        filter.add_rule(errno(libc::EPERM), call)?;
    }
    for (needed, names) in WITH_CAPABILITY {
        let action = if capabilities.contains(*needed) { ScmpAction::Allow } else { errno(libc::EPERM) };
        for call in known(names) {
            filter.add_rule(action, call)?;
        }
    }
    let admin = capabilities.contains(CapabilitySet::SYS_ADMIN);
    let flags = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(NEW_NAMESPACE), 0);
    for name in ["clone", "unshare"] {
        let call = ScmpSyscall::from_name(name)?;
        if admin {
            filter.add_rule(ScmpAction::Allow, call)?;
            continue;
        }
        filter.add_rule_conditional(ScmpAction::Allow, call, &[flags])?;
        for bit in (0..64).map(|bit| 1u64 << bit).filter(|bit| NEW_NAMESPACE & bit != 0) {
            let set = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(bit), bit);
            filter.add_rule_conditional(errno(libc::EPERM), call, &[set])?;
        }
    }
    let personality = ScmpSyscall::from_name("personality")?;
    for harmless in [0, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        let is = ScmpArgCompare::new(0, ScmpCompareOp::Equal, harmless);
        filter.add_rule_conditional(ScmpAction::Allow, personality, &[is])?;
    }
    let socket = ScmpSyscall::from_name("socket")?;
    for (mask, value) in FAMILIES {
        let is = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(mask), value);
        filter.add_rule_conditional(ScmpAction::Allow, socket, &[is])?;
    }
    Ok(filter)
}

fn export(filter: &ScmpFilterContext) -> std::result::Result<Vec<u8>, String> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create(c"seccomp", flags).map_err(|e| e.to_string())?);
    filter.export_bpf(&file).map_err(|e| e.to_string())?;
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(|e| e.to_string())?;
    Ok(program)
}

fn read(path: &Path) -> std::result::Result<LinuxSeccomp, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&bytes).map_err(|e| e.to_string())
}

pub(crate) fn from_oci(profile: &LinuxSeccomp) -> std::result::Result<Vec<u8>, String> {
    let text = |e: libseccomp::error::SeccompError| e.to_string();
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut filter = new_filter(default).map_err(text)?;
    for arch in profile.architectures().iter().flatten() {
        let name = serde_json::to_value(arch).map_err(|e| e.to_string())?;
        let arch: ScmpArch = name.as_str().unwrap_or_default().parse().map_err(text)?;
        filter.add_arch(arch).map_err(text)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = action(rule.action(), rule.errno_ret())?;
        if action == default {
            continue; // libseccomp refuses what changes nothing
        }
        for name in rule.names() {
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            let comparisons: Vec<_> = rule
                .args()
                .iter()
                .flatten()
                .map(|arg| {
                    let (op, value) = match arg.op() {
                        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
                        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
                        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
                        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
                        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
                        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
                        LinuxSeccompOperator::ScmpCmpMaskedEq => {
                            (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0))
                        }
                    };
                    ScmpArgCompare::new(arg.index() as u32, op, value)
                })
                .collect();
            filter.add_rule_conditional(action, call, &comparisons).map_err(text)?;
        }
    }
    export(&filter)
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> std::result::Result<ScmpAction, String> {
    let number = number.unwrap_or(libc::EPERM as u32) as i32;
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        other => return Err(format!("action {other:?} is not supported")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_call_is_in_one_list() {
        let mut seen = BTreeSet::new();
        let special = ["clone", "unshare", "personality", "socket"];
        let with = WITH_CAPABILITY.iter().flat_map(|(_, names)| names.iter());
        for name in ALLOWED.iter().chain(REFUSED).chain(with).chain(&special) {
            assert!(seen.insert(*name), "{name} twice");
        }
        assert!(!seen.contains("clone3"));
    }

    #[test]
    fn what_leads_out_is_not_allowed() {
        for name in [
            "add_key",
            "bpf",
            "keyctl",
            "request_key",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "mount",
            "umount2",
            "pivot_root",
            "open_by_handle_at",
            "init_module",
            "finit_module",
            "kexec_load",
            "reboot",
            "setns",
            "swapon",
            "acct",
            "fsopen",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "quotactl",
            "iopl",
            "settimeofday",
            "clone3",
            "nfsservctl",
            "lookup_dcookie",
        ] {
            assert!(!ALLOWED.contains(&name), "{name}");
        }
    }

    #[test]
    fn a_filter_fits_the_kernel() {
        for capabilities in [CapabilitySet::empty(), CapabilitySet::all()] {
            let program = compile(&Seccomp::Default, capabilities).unwrap().unwrap();
            assert!(program.len().is_multiple_of(8) && program.len() / 8 < 4096, "{}", program.len());
        }
        assert_eq!(compile(&Seccomp::Unconfined, CapabilitySet::empty()).unwrap(), None);
    }

    #[test]
    fn a_profile_of_the_host() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.json");
        let profile = r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read","nope"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
        std::fs::write(&path, profile).unwrap();
        assert!(compile(&Seccomp::Localhost(path.clone()), CapabilitySet::empty()).unwrap().is_some());
        std::fs::write(&path, "{").unwrap();
        compile(&Seccomp::Localhost(path), CapabilitySet::empty()).unwrap_err();
    }
}
