//! One `rast up` per root.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use crate::exit::{Exit, Failure};

/// Held for as long as the instance runs; the kernel lets it go with the process, however that ends.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock below `run`, or says who has it.
    pub fn take(run: &Path) -> Result<Self> {
        fs::create_dir_all(run).with_context(|| format!("make {}", run.display()))?;
        let path = path(run);
        let mut file = open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = holder(run)?.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let why = format!("rast already runs here{holder}: {} is locked; `rast down` ends it", path.display());
            return Err(Failure::new(Exit::Failed, why).into());
        }
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// The process that holds the lock; `None` when nobody does.
pub fn holder(run: &Path) -> Result<Option<i32>> {
    let path = path(run);
    if !path.exists() {
        return Ok(None);
    }
    let mut file = open(&path)?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    Ok(pid.trim().parse().ok())
}

fn path(run: &Path) -> PathBuf {
    run.join("rast.lock")
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let error = Lock::take(dir.path()).err().unwrap().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert_eq!(holder(dir.path()).unwrap(), Some(std::process::id() as i32));
        drop(lock);
        assert_eq!(holder(dir.path()).unwrap(), None);
        Lock::take(dir.path()).unwrap();
    }
}
