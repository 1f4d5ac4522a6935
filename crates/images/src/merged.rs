//! Looks into an image's layers as overlay would merge them, without mounting them and without following a symlink.

use crate::error::{Error, Result};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fgetxattr, openat, statat},
    io::Errno,
};
use std::path::PathBuf;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a path leads to.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Absent,
    /// Some component is a symlink.
    Symlink,
    /// This.
    Present(Stat),
}

/// Looks up a relative path in `layers`, topmost first.
pub fn find(layers: &[PathBuf], path: &str) -> rustix::io::Result<Found> {
    // Layers are reached through short links.
    let open = |p: &PathBuf| openat(rustix::fs::CWD, p, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty());
    let mut dirs = layers.iter().map(open).collect::<rustix::io::Result<Vec<_>>>()?;
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let mut below = Vec::new();
        for dir in dirs {
            let stat = match statat(&dir, part, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink if below.is_empty() => return Ok(Found::Symlink),
                FileType::CharacterDevice if stat.st_rdev == 0 => break,
                _ if parts.peek().is_none() => return Ok(Found::Present(stat)),
                FileType::Directory => {
                    let next = openat(&dir, part, DIRECTORY, Mode::empty())?;
                    let opaque = fgetxattr(&next, c"trusted.overlay.opaque", &mut [0u8; 8]).is_ok();
                    below.push(next);
                    if opaque {
                        break;
                    }
                }
                _ => break,
            }
        }
        dirs = below;
    }
    Ok(Found::Absent)
}

/// Refuses an image in which a place the runtime mounts over is a symlink: the mount would land elsewhere
/// (CVE-2019-19921, CVE-2023-27561, CVE-2025-31133).
pub fn check_mount_points(layers: &[PathBuf]) -> Result<()> {
    for path in ["dev", "proc", "sys", "etc/resolv.conf", "etc/hosts", "etc/hostname"] {
        if let Found::Symlink = find(layers, path).map_err(|e| Error::io(format!("image: {path}"), e))? {
            return Err(Error::archive("image", path.as_bytes(), "is, or leads through, a symlink"));
        }
    }
    Ok(())
}

/// Mode, owner and group of a directory, in the topmost layer that has an entry for it.
pub fn attributes(layers: &[(PathBuf, &[String])], path: &str) -> Option<(u32, u32, u32)> {
    layers.iter().filter(|(_, implied)| !implied.iter().any(|i| i == path)).find_map(|(layer, _)| {
        let dir = walk::open(layer).ok()?;
        let stat = rustix::fs::openat2(
            dir,
            path,
            DIRECTORY,
            Mode::empty(),
            rustix::fs::ResolveFlags::BENEATH | rustix::fs::ResolveFlags::NO_SYMLINKS,
        )
        .and_then(rustix::fs::fstat)
        .ok()?;
        Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    })
}
