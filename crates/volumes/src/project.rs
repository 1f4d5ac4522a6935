//! Files from the API: configMap, secret, downwardAPI, projected.
//!
//! A container sees all of one version or all of the next: the files lie in a directory of their own, `..data` is a
//! symlink to it that is replaced by one rename, and every name that users see is a symlink through `..data`.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use rustix::fs::{Gid, Uid};

use crate::{Error, Result, Volumes, component, error::At, relative, tree};

/// A file to be projected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Relative; may name directories.
    pub path: String,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// Its mode, e.g. 0o644.
    pub mode: u32,
    /// Its owner, else root.
    pub uid: Option<u32>,
}

/// How files are projected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// The group that owns the files and may read them.
    pub fs_group: Option<u32>,
    /// Keep them in memory only.
    pub secret: bool,
}

const DATA: &str = "..data";

impl Volumes {
    /// Makes the volume's files exactly `files`, in one step for those who read them; nothing is touched when they are
    /// that already. Killed half way, the old version stands and the next call cleans up.
    pub fn project(&self, pod: &str, name: &str, files: &[File], how: Projection) -> Result<PathBuf> {
        let dir = match how.secret {
            true => self.secrets.join(component(pod)?).join(component(name)?),
            false => self.volume(pod, name)?,
        };
        tree::make_private(dir.parent().unwrap_or(&dir))?;
        let plan = files.iter().map(|f| Ok((parts(&f.path)?, f))).collect::<Result<Vec<_>>>()?;
        tree::make(&dir, 0o755)?;
        let old = fs::read_link(dir.join(DATA)).ok();
        if let Some(old) = &old
            && same(&dir.join(old), &plan)
        {
            return Ok(dir);
        }
        let generation = old.as_ref().and_then(|o| o.to_str()?.strip_prefix("..")?.parse::<u64>().ok()).unwrap_or(0);
        let next = format!("..{}", generation + 1);
        tree::remove(&dir.join(&next))?;
        tree::make(&dir.join(&next), 0o755)?;
        for (parts, file) in &plan {
            write(&dir.join(&next), parts, file, how)?;
        }
        swap(&dir, &next)?;
        let tops: BTreeSet<&str> = plan.iter().map(|(p, _)| p[0]).collect();
        for top in &tops {
            let link = dir.join(top);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new(DATA).join(top), &link).at("link", &link)?;
            }
        }
        for entry in fs::read_dir(&dir).at("list", &dir)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let keep = tops.contains(&*name) || name == DATA || name == next;
            if !keep {
                tree::remove(&entry.path())?;
            }
        }
        Ok(dir)
    }
}

impl Volumes {
    /// Where a volume that was projected lies, whichever way.
    pub fn projected(&self, pod: &str, name: &str) -> Result<PathBuf> {
        let secret = self.secrets.join(component(pod)?).join(component(name)?);
        if secret.exists() { Ok(secret) } else { self.volume(pod, name) }
    }
}

/// The components of a file's path; none may look like the machinery.
fn parts(path: &str) -> Result<Vec<&str>> {
    let parts = relative(path)?;
    match parts.first() {
        None => Err(Error::Name { name: path.into(), why: "is empty" }),
        Some(first) if first.starts_with("..") => Err(Error::Name { name: path.into(), why: "starts with '..'" }),
        Some(_) => Ok(parts),
    }
}

fn write(root: &Path, parts: &[&str], file: &File, how: Projection) -> Result<()> {
    let (name, dirs) = parts.split_last().expect("not empty");
    let mut dir = root.to_path_buf();
    for part in dirs {
        dir.push(part);
        tree::make(&dir, 0o755)?;
    }
    let path = dir.join(name);
    // A later source wins over an earlier one with the same path.
    tree::remove(&path)?;
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).at("make", &path)?;
    out.write_all(&file.bytes).at("write", &path)?;
    let (uid, gid) = (file.uid.map(Uid::from_raw), how.fs_group.map(Gid::from_raw));
    if uid.is_some() || gid.is_some() {
        rustix::fs::fchown(&out, uid, gid).at("give", &path)?;
    }
    out.set_permissions(fs::Permissions::from_mode(mode(file, how))).at("set the mode of", &path)
}

fn mode(file: &File, how: Projection) -> u32 {
    (file.mode & 0o777) | if how.fs_group.is_some() { 0o440 } else { 0 }
}

fn swap(dir: &Path, next: &str) -> Result<()> {
    let tmp = dir.join("..data_tmp");
    tree::remove(&tmp)?;
    symlink(next, &tmp).at("link", &tmp)?;
    let data = dir.join(DATA);
    fs::rename(&tmp, &data).at("replace", &data)
}

/// Whether a version holds exactly these files.
fn same(version: &Path, plan: &[(Vec<&str>, &File)]) -> bool {
    let wanted: BTreeSet<PathBuf> = plan.iter().map(|(p, _)| p.iter().collect()).collect();
    let mut found = BTreeSet::new();
    if wanted.len() != plan.len() || !walk(version, Path::new(""), &mut found) || found != wanted {
        return false;
    }
    plan.iter().all(|(parts, file)| {
        let path = version.join(parts.iter().collect::<PathBuf>());
        fs::metadata(&path).is_ok_and(|m| m.len() == file.bytes.len() as u64)
            && fs::read(&path).is_ok_and(|b| b == file.bytes)
    })
}

fn walk(root: &Path, below: &Path, found: &mut BTreeSet<PathBuf>) -> bool {
    let Ok(entries) = fs::read_dir(root.join(below)) else { return false };
    entries.flatten().all(|e| {
        let path = below.join(e.file_name());
        match e.file_type() {
            Ok(t) if t.is_dir() => walk(root, &path, found),
            Ok(_) => found.insert(path),
            Err(_) => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), bytes: text.into(), mode: 0o644, uid: None }
    }

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let tmp = tempfile::tempdir().unwrap();
        let v = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        (tmp, v)
    }

    #[test]
    fn replaces_all_at_once() {
        let (_tmp, v) = volumes();
        let dir = v.project("u", "c", &[file("a", "1"), file("d/b", "2")], Projection::default()).unwrap();
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        let before = fs::read_link(dir.join("..data")).unwrap();
        v.project("u", "c", &[file("a", "1"), file("d/b", "2")], Projection::default()).unwrap();
        assert_eq!(fs::read_link(dir.join("..data")).unwrap(), before, "unchanged files are left alone");

        // An open directory of the old version keeps showing the old version's files.
        let old = fs::File::open(dir.join("..data/a")).unwrap();
        v.project("u", "c", &[file("a", "3"), file("e", "4")], Projection::default()).unwrap();
        assert_eq!(std::io::read_to_string(old).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        let names: BTreeSet<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(names, ["..2", "..data", "a", "e"].map(String::from).into());
        v.close().unwrap();
    }

    #[test]
    fn mends_what_was_left_half_way() {
        let (_tmp, v) = volumes();
        let dir = v.project("u", "c", &[file("a", "1")], Projection::default()).unwrap();
        fs::create_dir_all(dir.join("..2/junk")).unwrap();
        symlink("..2", dir.join("..data_tmp")).unwrap();
        v.project("u", "c", &[file("a", "2")], Projection::default()).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "2");
        assert!(!dir.join("..2/junk").exists() && !dir.join("..data_tmp").exists());
        v.close().unwrap();
    }

    #[test]
    fn group_and_owner() {
        let (_tmp, v) = volumes();
        let token = File { uid: Some(1234), mode: 0o600, ..file("token", "t") };
        let how = Projection { fs_group: Some(77), secret: true };
        let dir = v.project("u", "s", &[token], how).unwrap();
        let meta = fs::metadata(dir.join("token")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (1234, 77, 0o640));
        /// `TMPFS_MAGIC` of `statfs(2)`.
        const TMPFS: i64 = 0x0102_1994;
        let kind = rustix::fs::statfs(&dir).unwrap().f_type as i64;
        assert_eq!(kind, TMPFS, "secrets never reach the disk");
        v.close().unwrap();
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let (_tmp, v) = volumes();
        for bad in ["../x", "/etc/passwd", "a/../../x", "", "..data", "..data/x"] {
            assert!(v.project("u", "c", &[file(bad, "x")], Projection::default()).is_err(), "{bad:?}");
        }
        assert!(v.project("../u", "c", &[], Projection::default()).is_err());
        v.close().unwrap();
    }
}
