//! Directories: made, owned, removed; never through a symlink.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

use rustix::{
    fs::Gid,
    mount::{MountFlags, MountPropagationFlags},
};

use crate::{Result, error::At};

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

/// Mounts a private tmpfs with these options, see tmpfs(5).
pub(crate) fn mount_tmpfs(dir: &Path, options: String) -> Result<()> {
    let data = std::ffi::CString::new(options).expect("ours hold no NUL");
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, data.as_c_str()).at("mount a tmpfs on", dir)?;
    rustix::mount::mount_change(dir, MountPropagationFlags::PRIVATE).at("make private", dir)
}

/// Whether another filesystem than the parent's is mounted on `dir`.
pub(crate) fn is_mount(dir: &Path) -> Result<bool> {
    let (Ok(own), Some(parent)) = (fs::symlink_metadata(dir), dir.parent()) else { return Ok(false) };
    Ok(own.dev() != fs::symlink_metadata(parent).at("stat", parent)?.dev())
}

/// Removes a tree; absent is done. Symlinks are removed, not followed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    walk::remove_path(path).at("remove", path)
}
