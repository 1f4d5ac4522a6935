//! How a container ended, in words: its exit, its termination message, or the last lines of its log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use jiff::Timestamp;
use runtime::Exit;

use crate::{crilog, observe::Ended};

/// Longest termination message.
const MESSAGE: u64 = 4096;
/// What of a log stands in for one: this much, and at most so many lines.
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

/// Opens a file for reading if it is a regular file and no symlink. A container can put anything where it may write
/// (FACTS, isolation check 26): a symlink would show the host's files, a FIFO would hang.
pub fn open_plain(path: &Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags as i32).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file")),
    }
}

/// The termination message: the file's first 4 KiB; with `fallback` and a failure, else the end of the log.
pub fn read(file: Option<&Path>, log: &Path, fallback: bool, failed: bool) -> String {
    let mut bytes = Vec::new();
    if let Some(file) = file.and_then(|f| open_plain(f).ok()) {
        let _ = file.take(MESSAGE).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.is_empty() && fallback && failed { tail(log).unwrap_or_default() } else { text }
}

/// The end of a log, without times.
pub fn tail(log: &Path) -> io::Result<String> {
    let mut file = open_plain(log)?;
    let length = file.metadata()?.len();
    // Lines carry a time and a tag of about 40 bytes each.
    let window = (LOG_BYTES + LOG_LINES * 48) as u64;
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let start = if length > window { bytes.iter().position(|b| *b == b'\n').map_or(0, |n| n + 1) } else { 0 };
    let mut text = Vec::new();
    let lines: Vec<_> = bytes[start..].split(|b| *b == b'\n').filter_map(crilog::parse).collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        text.extend_from_slice(line.content);
        if !line.partial {
            text.push(b'\n');
        }
    }
    let from = text.len().saturating_sub(LOG_BYTES);
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

/// An end as a status tells it. What is not known is not invented.
pub fn ended(attempt: u32, since: Option<Timestamp>, exit: &Exit, message: String) -> Ended {
    let at = Timestamp::try_from(exit.at).unwrap_or_default();
    let (reason, message) = match exit.code {
        None => (
            "ContainerStatusUnknown",
            "The container ended while nobody watched; its exit code is not known.".to_string(),
        ),
        Some(0) => ("Completed", message),
        Some(_) if exit.oom => ("OOMKilled", message),
        Some(_) => ("Error", message),
    };
    Ended { attempt, since, at, code: exit.code, signal: exit.signal, reason: reason.into(), message }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn file_then_log() {
        let tmp = tempfile::tempdir().unwrap();
        let (file, log) = (tmp.path().join("m"), tmp.path().join("0.log"));
        fs::write(&log, "2026-11-24T00:00:00.1Z stdout F one\n2026-11-24T00:00:00.2Z stderr P tw\n2026-11-24T00:00:00.2Z stderr F o\n").unwrap();
        assert_eq!(read(Some(&file), &log, true, true), "one\ntwo\n");
        assert_eq!(read(Some(&file), &log, false, true), "");
        assert_eq!(read(Some(&file), &log, true, false), "");
        fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(read(Some(&file), &log, true, true).len(), 4096);
    }

    #[test]
    fn links_and_fifos_show_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let link = tmp.path().join("l");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(open_plain(&link).is_err());
        assert_eq!(read(Some(&link), &link, true, true), "");
        let fifo = tmp.path().join("f");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open_plain(&fifo).is_err());
    }
}
