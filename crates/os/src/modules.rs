//! Kernel modules, loaded in the order of their names: the image's builder has numbered each after what it needs.

use std::{fs, io, path::Path};

use rustix::{io::Errno, system::finit_module};

/// Where the root has what PID 1 loads.
pub const MACHINE: &str = "/usr/lib/modules/machine";
/// Where it has what the node loads before its first container.
pub const NODE: &str = "/usr/lib/modules/node";

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
    for file in files.iter().filter(|file| !loaded(file)) {
        let module = fs::File::open(file).map_err(failed(file))?;
        match finit_module(&module, c"", 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => {}
            Err(errno) => return Err(failed(file)(errno.into())),
        }
    }
    Ok(())
}

/// Whether the module of such a file (`007-name.ko`) is there: the kernel would read and check all of it to say so.
fn loaded(file: &Path) -> bool {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.split_once('-').is_some_and(|(_, name)| Path::new("/sys/module").join(name).exists())
}
