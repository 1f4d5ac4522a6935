//! Directories: made, owned, removed; never through a symlink.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::{Gid, StatFs},
    mount::{MountFlags, MountPropagationFlags},
};

use crate::{Result, error::At};

/// `TMPFS_MAGIC` of `statfs(2)`.
const TMPFS: i64 = 0x0102_1994;

/// A directory (with its parents) that only root may enter.
pub(crate) fn make_private(dir: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(dir).at("make", dir)
}

/// A directory that exists afterwards with exactly this mode.
pub(crate) fn make(dir: &Path, mode: u32) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.at("make", dir)?,
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).at("set the mode of", dir)
}

/// Gives a fresh directory to a group: what is made in it later belongs to the group too.
pub(crate) fn give(dir: &Path, group: Option<u32>, mode: u32) -> Result<()> {
    if let Some(gid) = group {
        rustix::fs::chown(dir, None, Some(Gid::from_raw(gid))).at("give", dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o2770)).at("set the mode of", dir)?;
    }
    Ok(())
}

/// Mounts a private tmpfs of `size` bytes (`None`: the kernel's default, half of memory).
pub(crate) fn mount_tmpfs(dir: &Path, mode: u32, size: Option<u64>) -> Result<()> {
    let mut data = format!("mode={mode:o}");
    if let Some(size) = size {
        data.push_str(&format!(",size={size}"));
    }
    let data = std::ffi::CString::new(data).expect("digits only");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, data.as_c_str()).at("mount a tmpfs on", dir)?;
    rustix::mount::mount_change(dir, MountPropagationFlags::PRIVATE).at("make private", dir)
}

/// Makes sure that what is written to `dir` stays in memory.
pub(crate) fn ensure_tmpfs(dir: &Path) -> Result<()> {
    if is_tmpfs(dir)? { Ok(()) } else { mount_tmpfs(dir, 0o750, None) }
}

pub(crate) fn is_tmpfs(dir: &Path) -> Result<bool> {
    let stat: StatFs = rustix::fs::statfs(dir).at("stat", dir)?;
    Ok(stat.f_type as i64 == TMPFS)
}

/// Whether another filesystem than the parent's is mounted on `dir`.
pub(crate) fn is_mount(dir: &Path) -> Result<bool> {
    let (Ok(own), Some(parent)) = (fs::symlink_metadata(dir), dir.parent()) else { return Ok(false) };
    Ok(own.dev() != fs::symlink_metadata(parent).at("stat", parent)?.dev())
}

/// Removes a tree; absent is done. Symlinks are removed, not followed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).at("stat", path),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path).at("remove", path),
        Ok(_) => fs::remove_file(path).at("remove", path),
    }
}
