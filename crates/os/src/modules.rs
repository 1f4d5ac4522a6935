//! Kernel modules, loaded in the order of their names: the image's builder has numbered each after what it needs.

use std::{fs, io, path::Path};

use rustix::{io::Errno, system::finit_module};

/// A module, or their directory, could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("load kernel modules: {file}")]
pub struct Error {
    file: String,
    source: io::Error,
}

/// Loads all modules of a directory. Those that are there already are fine, and so are those whose device is not.
pub fn load(directory: &Path) -> Result<(), Error> {
    let failed = |file: &Path| {
        let file = file.display().to_string();
        move |source: io::Error| Error { file, source }
    };
    let entries = fs::read_dir(directory).map_err(failed(directory))?;
    let mut files = entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>().map_err(failed(directory))?;
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "ko")) {
        let module = fs::File::open(file).map_err(failed(file))?;
        match finit_module(&module, c"", 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(errno) => return Err(failed(file)(errno.into())),
        }
    }
    Ok(())
}
