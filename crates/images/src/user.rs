//! Who a container runs as, by the image's own `/etc/passwd` and `/etc/group`.

use crate::{
    error::{Error, Result},
    merged,
};
use std::path::PathBuf;

/// Bytes of `/etc/passwd` or `/etc/group` that we read.
const LIMIT: u64 = 4 << 20;
/// What ids may be: those above are what chown and setuid take for "none", or negative in other programs.
const MAX_ID: u32 = i32::MAX as u32;

/// Whom a container runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups of the image; none when a group was named (image-spec, "User").
    pub groups: Vec<u32>,
    /// Home directory, if the image knows the user.
    pub home: Option<String>,
}

impl User {
    /// Finds `USER[:GROUP]` in layers, topmost first.
    pub fn find(layers: &[PathBuf], user: &str) -> Result<Self> {
        let read =
            |path| Ok(String::from_utf8_lossy(&merged::read(layers, path, LIMIT)?.unwrap_or_default()).into_owned());
        find(user, &read("etc/passwd")?, &read("etc/group")?)
            .map_err(|reason| Error::archive("image user", user.as_bytes(), reason))
    }
}

fn find(wanted: &str, passwd: &str, group: &str) -> Result<User, &'static str> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = id(name)?;
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 4 && (f[0] == name || number.is_some_and(|n| f[2].parse() == Ok(n))));
    let (uid, mut gid, login) = match &entry {
        Some(f) => (
            id(f[2])?.ok_or("its uid in /etc/passwd is no number")?,
            id(f[3])?.ok_or("its gid in /etc/passwd is no number")?,
            f[0],
        ),
        None => (number.ok_or("is not in the image's /etc/passwd")?, 0, ""),
    };
    let groups = group.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    let mut more = Vec::new();
    match group_name {
        Some(wanted) => {
            gid = match id(wanted)? {
                Some(gid) => gid,
                None => {
                    let found = groups
                        .into_iter()
                        .find(|f| f[0] == wanted)
                        .ok_or("its group is not in the image's /etc/group")?;
                    id(found[2])?.ok_or("its group's gid is no number")?
                }
            };
        }
        None if !login.is_empty() => {
            for f in groups.filter(|f| f[3].split(',').any(|m| m == login)).take(1024) {
                more.push(id(f[2])?.ok_or("a group's gid is no number")?);
            }
            more.retain(|g| *g != gid);
        }
        None => {}
    }
    let home = entry.and_then(|f| f.get(5).filter(|h| h.starts_with('/')).map(|h| h.to_string()));
    Ok(User { uid, gid, groups: more, home })
}

/// A number, or none if it is a name.
fn id(text: &str) -> Result<Option<u32>, &'static str> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(Some(id)),
        // 4294967296 must not become 0.
        _ => Err("id is out of range"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\nbig:x:4294967296:0::/:\nodd:x:y:0::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:web\nlog:x:4:web,other\nbig:x:4294967295:\n";

    #[test]
    fn names_numbers_and_groups() {
        let user = |uid, gid, groups: &[u32], home: Option<&str>| {
            Ok(User { uid, gid, groups: groups.to_vec(), home: home.map(str::to_string) })
        };
        assert_eq!(find("", PASSWD, GROUP), user(0, 0, &[], Some("/root")));
        assert_eq!(find("web", PASSWD, GROUP), user(33, 34, &[4], Some("/srv")));
        assert_eq!(find("33", PASSWD, GROUP), user(33, 34, &[4], Some("/srv")));
        assert_eq!(find("web:log", PASSWD, GROUP), user(33, 4, &[], Some("/srv")));
        assert_eq!(find("1000:1000", "", ""), user(1000, 1000, &[], None));
        assert_eq!(find(":log", PASSWD, GROUP), user(0, 4, &[], Some("/root")));
    }

    #[test]
    fn overflowing_uids_never_become_root() {
        for bad in [
            "big",
            "odd",
            "nobody",
            "4294967296",
            "4294967295",
            "2147483648",
            "0:big",
            "0:none",
            "99999999999999999999",
        ] {
            assert!(find(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(user in "\\PC{0,20}", passwd in "[a-z0-9:,\\n]{0,80}", group in "[a-z0-9:,\\n]{0,80}") {
            let _ = find(&user, &passwd, &group);
        }
    }
}
