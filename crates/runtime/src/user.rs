//! Whom a container runs as, by the passwd and group files of its own image.

use std::{io::Read, os::fd::BorrowedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::{Error, Result, User};

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// The home directory, `/` when the image does not say.
    pub home: String,
}

/// Longer account files are refused: they are read whole, on every start.
const MAX_FILE: u64 = 1 << 20;

/// Resolves `user` against the image whose root is `root`.
///
/// # Errors
/// [`Error::Start`] when a name is unknown, a number is no id, or an account file is not a small regular
/// file; [`Error::RunsAsRoot`].
pub fn resolve(id: &str, root: BorrowedFd<'_>, user: &User) -> Result<Identity> {
    let read = |path| read(root, path).map_err(|why| Error::Start { id: id.into(), why });
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    let identity = look_up(user, &passwd, &group).map_err(|why| Error::Start { id: id.into(), why })?;
    if user.must_not_be_root && identity.uid == 0 {
        return Err(Error::RunsAsRoot { id: id.into(), user: user.spec.clone() });
    }
    Ok(identity)
}

/// Links are followed inside the image only; an absent file is empty.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => std::fs::File::from(fd),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(format!("open /{path} of the image: {e}")),
    };
    let meta = file.metadata().map_err(|e| format!("stat /{path} of the image: {e}"))?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(format!("/{path} of the image is no regular file of at most {MAX_FILE} bytes"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|e| format!("read /{path} of the image: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The pure part. Lines of the files that make no sense are skipped.
pub(crate) fn look_up(user: &User, passwd: &str, group: &str) -> Result<Identity, String> {
    let (name, group_name) = match user.spec.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.spec.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = parse_id(name)?;
    let entry = entries(passwd, 6).find(|f| match number {
        Some(uid) => f[2].parse() == Ok(uid),
        None => f[0] == name,
    });
    let uid = match (number, &entry) {
        (Some(uid), _) => uid,
        (None, Some(f)) => listed(f[2]).ok_or_else(|| format!("user {name:?} has no valid id in /etc/passwd"))?,
        (None, None) => return Err(format!("user {name:?} is not in the image's /etc/passwd")),
    };
    let login = entry.as_ref().map(|f| f[0]);
    let gid = match group_name {
        Some(wanted) => match parse_id(wanted)? {
            Some(gid) => gid,
            None => entries(group, 3)
                .find(|f| f[0] == wanted)
                .and_then(|f| listed(f[2]))
                .ok_or_else(|| format!("group {wanted:?} is not in the image's /etc/group"))?,
        },
        None => match &entry {
            Some(f) => listed(f[3]).ok_or_else(|| format!("user {name:?} has no valid group in /etc/passwd"))?,
            None => 0,
        },
    };
    let member = |f: &Vec<&str>| {
        login.is_some_and(|login| f.get(3).is_some_and(|members| members.split(',').any(|m| m == login)))
    };
    let gid = user.gid.unwrap_or(gid);
    // The primary group is a supplementary one too: a process that changes its primary group must not lose
    // what files deny to it (CVE-2023-25173).
    let mut groups = user.groups.clone();
    groups.push(gid);
    if group_name.is_none() {
        groups.extend(entries(group, 3).filter(member).filter_map(|f| listed(f[2])));
    }
    groups.sort_unstable();
    groups.dedup();
    let home = entry.map(|f| f[5]).filter(|home| home.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Identity { uid, gid, groups, home })
}

fn entries(text: &str, least: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(move |fields| fields.len() >= least)
}

/// Digits are an id, anything else a name.
fn parse_id(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    listed(text).map(Some).ok_or_else(|| format!("{text} is no user or group id (at most {})", i32::MAX))
}

/// An id of an account file. At most 2^31-1, so that no tool takes it for negative: to the kernel 2^32-1 means "as it is",
/// and a container that is to change to it would stay root.
fn listed(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:102:n:/var/nginx:/bin/false\nbad:x:99999999999:1::/:\nshort:x\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:nginx,root\nlogs:x:44:nginx\nnginx:x:102:\n";

    fn found(spec: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let user = User { spec: spec.into(), ..User::default() };
        look_up(&user, PASSWD, GROUP).map(|i| (i.uid, i.gid, i.groups, i.home))
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(found("").unwrap(), (0, 0, vec![0, 33], "/root".into()));
        assert_eq!(found("nginx").unwrap(), (101, 102, vec![33, 44, 102], "/var/nginx".into()));
        assert_eq!(found("101").unwrap(), (101, 102, vec![33, 44, 102], "/var/nginx".into()));
        assert_eq!(found("nginx:web").unwrap(), (101, 33, vec![33], "/var/nginx".into()));
        assert_eq!(found("4000").unwrap(), (4000, 0, vec![0], "/".into()));
        assert_eq!(found("4000:5000").unwrap(), (4000, 5000, vec![5000], "/".into()));
    }

    #[test]
    fn refused() {
        for spec in ["nobody", "bad", "99999999999", "4294967295", "2147483648", "0:none", "0:4294967296"] {
            found(spec).expect_err(spec);
        }
    }

    #[test]
    fn ids_of_the_image_that_overflow_are_refused() {
        let passwd = "a:x:4294967295:1::/:\nb:x:1:4294967295::/:\nc:x:-1:1::/:\nd:x:4294967296:1::/:\ne:x:1:big::/:\n";
        let group = "none:x:4294967295:\nmany:x:4294967295:f\n";
        for spec in ["a", "b", "c", "d", "e", "0:none"] {
            let user = User { spec: spec.into(), ..User::default() };
            look_up(&user, passwd, group).expect_err(spec);
        }
        let user = User { spec: "f".into(), ..User::default() };
        assert_eq!(look_up(&user, "f:x:1:2::/:\n", group).unwrap().groups, [2]);
    }

    #[test]
    fn the_pods_groups_come_on_top() {
        let user = User { spec: "nginx".into(), gid: Some(7), groups: vec![44, 5], must_not_be_root: true };
        let identity = look_up(&user, PASSWD, GROUP).unwrap();
        assert_eq!((identity.gid, identity.groups), (7, vec![5, 7, 33, 44]));
    }

    #[test]
    fn account_files_that_are_none_are_refused() {
        use std::os::{fd::AsFd as _, unix::fs::symlink};

        let image = tempfile::tempdir().unwrap();
        let passwd = image.path().join("etc/passwd");
        std::fs::create_dir(image.path().join("etc")).unwrap();
        let root = std::fs::File::open(image.path()).unwrap();
        let resolved = || resolve("c", root.as_fd(), &User { spec: "root".into(), ..User::default() });
        std::fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
        assert!(matches!(resolved(), Err(Error::Start { .. })), "a gigabyte");
        std::fs::remove_file(&passwd).unwrap();
        nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(resolved(), Err(Error::Start { .. })), "a FIFO");
        std::fs::remove_file(&passwd).unwrap();
        symlink("/etc/passwd", &passwd).unwrap();
        assert!(resolved().is_err(), "a ring");
        std::fs::remove_file(&passwd).unwrap();
        symlink("../../../../etc/group", &passwd).unwrap();
        assert!(resolved().unwrap_err().to_string().contains("not in the image's"), "the host's files");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(spec: String, passwd: String, group: String) {
            let _ = look_up(&User { spec, ..User::default() }, &passwd, &group);
        }
    }
}
