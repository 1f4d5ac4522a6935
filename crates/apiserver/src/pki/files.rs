//! Secrets on disk: whole or not at all, for their owner alone.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use super::Error;

/// Makes a directory (and those above it) that only its owner can enter; one that exists is left as it is.
pub(super) fn private_dir(path: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Io { doing: "create directory", path: path.to_owned(), source })
}

/// The file's text; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// Replaces the file with `bytes`, mode 0600. Guarantee: whoever reads it at any moment, also after a power loss,
/// sees the old content or the new; after `Ok` the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let io = |doing| move |source| Error::Io { doing, path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // A left-over of a crash may have any mode: start afresh.
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io("replace")(e)),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io("create"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write"))?;
    std::fs::rename(&new, path).map_err(io("replace"))?;
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync directory of"))
}
