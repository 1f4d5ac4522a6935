//! hostPath.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use crate::{Error, Result, error::At};

/// What a hostPath must be, or is made into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum HostKind {
    /// Anything, not checked.
    #[default]
    Unchecked,
    Directory,
    DirectoryOrCreate,
    File,
    FileOrCreate,
    Socket,
    CharDevice,
    BlockDevice,
}

impl std::str::FromStr for HostKind {
    type Err = Error;

    /// As `hostPath.type` is written.
    fn from_str(s: &str) -> Result<Self> {
        Ok(match s {
            "" => Self::Unchecked,
            "Directory" => Self::Directory,
            "DirectoryOrCreate" => Self::DirectoryOrCreate,
            "File" => Self::File,
            "FileOrCreate" => Self::FileOrCreate,
            "Socket" => Self::Socket,
            "CharDevice" => Self::CharDevice,
            "BlockDevice" => Self::BlockDevice,
            _ => return Err(Error::Name { name: s.into(), why: "is not a type of hostPath" }),
        })
    }
}

/// A path of the host, checked (and made, for the `…OrCreate` kinds: 0755 and 0644). The runtime resolves it once
/// more when it mounts it: hostPath is a right over the host, not a boundary.
pub fn host_path(path: &str, kind: HostKind) -> Result<PathBuf> {
    let refuse = |why| Error::Name { name: path.into(), why };
    if path.contains('\0') || !path.starts_with('/') {
        return Err(refuse("must be absolute"));
    }
    let at = Path::new(path);
    if at.components().any(|c| c == Component::ParentDir) {
        return Err(refuse("contains '..'"));
    }
    match kind {
        HostKind::DirectoryOrCreate if !at.exists() => fs::create_dir_all(at).at("make", at)?,
        HostKind::FileOrCreate if !at.exists() => {
            fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(at).at("make", at)?;
        }
        _ => {}
    }
    let is: (&'static str, fn(&fs::FileType) -> bool) = match kind {
        HostKind::Unchecked => return Ok(at.into()),
        HostKind::Directory | HostKind::DirectoryOrCreate => ("a directory", fs::FileType::is_dir),
        HostKind::File | HostKind::FileOrCreate => ("a file", fs::FileType::is_file),
        HostKind::Socket => ("a socket", |t| t.is_socket()),
        HostKind::CharDevice => ("a character device", |t| t.is_char_device()),
        HostKind::BlockDevice => ("a block device", |t| t.is_block_device()),
    };
    match fs::metadata(at) {
        Ok(meta) if is.1(&meta.file_type()) => Ok(at.into()),
        _ => Err(Error::HostPath { path: path.into(), want: is.0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let tmp = tempfile::tempdir().unwrap();
        let path = |n: &str| tmp.path().join(n).display().to_string();
        assert!(host_path("relative", HostKind::Unchecked).is_err());
        assert!(host_path("/a/../b", HostKind::Unchecked).is_err());
        assert!(host_path(&path("d"), HostKind::Directory).is_err());
        host_path(&path("d/e"), HostKind::DirectoryOrCreate).unwrap();
        host_path(&path("d"), HostKind::Directory).unwrap();
        host_path(&path("f"), HostKind::FileOrCreate).unwrap();
        host_path(&path("f"), HostKind::File).unwrap();
        let e = host_path(&path("f"), HostKind::Socket).unwrap_err();
        assert!(e.to_string().ends_with("is not a socket"), "{e}");
        host_path("/dev/null", HostKind::CharDevice).unwrap();
    }
}
