//! The file: appended to, and put aside when it has grown.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use super::{Backlog, line};

/// The most that is written at once.
const BATCH: usize = 256 << 10;
/// How long after a failed write the next is tried.
const RETRY: Duration = Duration::from_secs(1);

/// An appended file of bounded size, with its predecessors.
pub(super) struct Rotated {
    path: PathBuf,
    limit: u64,
    kept: u32,
    file: File,
    size: u64,
    /// The last write ended within a line.
    torn: bool,
}

impl Rotated {
    pub(super) fn open(path: &Path, limit: u64, kept: u32) -> io::Result<Self> {
        let (file, size) = open(path)?;
        // A crash may have ended the last line anywhere.
        let torn = size > 0 && last_byte(path, size)? != b'\n';
        Ok(Self { path: path.to_owned(), limit, kept, file, size, torn })
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + lines.len() as u64 > self.limit {
            self.rotate()?;
        }
        if self.torn {
            self.file.write_all(b"\n")?;
        }
        self.torn = true;
        if let Err(e) = self.file.write_all(lines) {
            // No half of it stays, for all of it will be written again.
            self.torn = self.file.set_len(self.size).is_err();
            return Err(e);
        }
        self.torn = false;
        self.size += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let older = |n: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{n}"));
            PathBuf::from(name)
        };
        for n in (1..self.kept).rev() {
            match std::fs::rename(older(n), older(n + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        if self.kept > 0 {
            std::fs::rename(&self.path, older(1))?;
        } else {
            std::fs::remove_file(&self.path)?;
        }
        (self.file, self.size) = open(&self.path)?;
        self.torn = false;
        Ok(())
    }
}

fn last_byte(path: &Path, size: u64) -> io::Result<u8> {
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, size - 1)?;
    Ok(last[0])
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Writes lines as they come until their sender is gone, many at once when many wait. What cannot be written is tried
/// again until the end.
pub(super) fn write(mut file: Rotated, lines: Receiver<String>, backlog: &Backlog, end: &Receiver<()>) {
    let mut batch = String::new();
    while let Ok(first) = lines.recv() {
        batch.push_str(&first);
        let mut count = 1;
        while batch.len() < BATCH
            && let Ok(next) = lines.try_recv()
        {
            batch.push_str(&next);
            count += 1;
        }
        let missed = backlog.lost.swap(0, Ordering::Relaxed);
        if missed > 0 {
            tracing::error!("audit log {}: {missed} records lost", file.path.display());
            batch.push_str(&line::lost(missed, jiff::Timestamp::now()));
        }
        if !persist(&mut file, &batch, end) {
            tracing::error!("audit log {}: {count} records lost", file.path.display());
            backlog.lost.fetch_add(missed + count as u64, Ordering::Relaxed);
        }
        backlog.waiting.fetch_sub(count, Ordering::Relaxed);
        batch.clear();
    }
}

/// False when it ends without having written.
fn persist(file: &mut Rotated, batch: &str, end: &Receiver<()>) -> bool {
    let mut told = false;
    while let Err(error) = file.append(batch.as_bytes()) {
        if !told {
            tracing::error!("audit log {}: {error}; its records wait in memory", file.path.display());
            told = true;
        }
        if let Err(RecvTimeoutError::Disconnected) = end.recv_timeout(RETRY) {
            return file.append(batch.as_bytes()).is_ok();
        }
    }
    true
}
