//! Logs in the CRI format: `TIME STREAM TAG CONTENT`, where tag `P` marks a line that goes on.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Longer lines are written in parts.
const MAX_LINE: usize = 16 << 10;

/// Cuts one stream into lines. Holds at most one part of a line.
pub struct Lines {
    stream: &'static str,
    pending: Vec<u8>,
}

impl Lines {
    /// For `stdout` or `stderr`.
    pub fn new(stream: &'static str) -> Self {
        Self { stream, pending: Vec::new() }
    }

    /// Adds what was read and appends to `out` the entries that are complete.
    pub fn push(&mut self, mut chunk: &[u8], now: &str, out: &mut Vec<u8>) {
        while let Some(end) = chunk.iter().position(|b| *b == b'\n') {
            self.take(&chunk[..end], now, out);
            self.entry("F", now, out);
            chunk = &chunk[end + 1..];
        }
        self.take(chunk, now, out);
        if self.pending.is_empty() {
            self.pending = Vec::new(); // thousands of quiet containers shall not hold buffers
        }
    }

    /// Appends a last line that had no end: as a part, for no newline was written.
    pub fn finish(&mut self, now: &str, out: &mut Vec<u8>) {
        if !self.pending.is_empty() {
            self.entry("P", now, out);
        }
    }

    fn take(&mut self, mut part: &[u8], now: &str, out: &mut Vec<u8>) {
        while self.pending.len() + part.len() > MAX_LINE {
            let (fits, rest) = part.split_at(MAX_LINE - self.pending.len());
            self.pending.extend_from_slice(fits);
            self.entry("P", now, out);
            part = rest;
        }
        self.pending.extend_from_slice(part);
    }

    fn entry(&mut self, tag: &str, now: &str, out: &mut Vec<u8>) {
        for field in [now, self.stream, tag] {
            out.extend_from_slice(field.as_bytes());
            out.push(b' ');
        }
        out.append(&mut self.pending);
        out.push(b'\n');
    }
}

/// The time as the CRI writes it.
pub fn now() -> String {
    format!("{:.9}", jiff::Timestamp::now())
}

/// A log file, opened when there is something to write. What a full disk refuses is lost, not waited for.
pub struct Log {
    path: PathBuf,
    file: Option<File>,
}

impl Log {
    /// A log at `path`; its directories are made.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None }
    }

    /// Opens the file, so that an empty log exists too.
    pub fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            if let Some(dir) = self.path.parent() {
                fs::create_dir_all(dir)?;
            }
            // A log turned into a link must not leak or be written elsewhere.
            let mut options = File::options();
            options.append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(&self.path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other(format!("{} is no regular file", self.path.display())));
            }
            self.file = Some(file);
        }
        self.file.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Appends whole entries.
    pub fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let file = self.open()?;
        // What a filesystem keeps back for the system is not the containers' to fill, not even by what they say.
        if rustix::fs::fstatvfs(&*file)?.f_bavail == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all(entries)
    }

    /// Continues in a fresh file at the same path.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        self.open().map(drop)
    }

    /// Closes the file until the next write.
    pub fn close(&mut self) {
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(chunks: &[&[u8]]) -> String {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        for chunk in chunks {
            lines.push(chunk, "T", &mut out);
        }
        lines.finish("T", &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_cross_reads() {
        assert_eq!(entries(&[b"a\nb", b"c\n\n"]), "T stdout F a\nT stdout F bc\nT stdout F \n");
        assert_eq!(entries(&[b"no end"]), "T stdout P no end\n");
        assert_eq!(entries(&[]), "");
    }

    #[test]
    fn long_lines_come_in_parts() {
        let long = vec![b'x'; MAX_LINE + 3];
        let x = |n: usize| "x".repeat(n);
        assert_eq!(entries(&[&long, b"\n"]), format!("T stdout P {}\nT stdout F xxx\n", x(MAX_LINE)));
        assert_eq!(entries(&[&long[..MAX_LINE], b"\n"]), format!("T stdout F {}\n", x(MAX_LINE)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..40_000), 0..4)) {
            let (mut lines, mut out) = (Lines::new("stderr"), Vec::new());
            for chunk in &chunks {
                lines.push(chunk, "T", &mut out);
            }
            lines.finish("T", &mut out);
            let mut joined = Vec::new();
            for entry in out.split_inclusive(|b| *b == b'\n') {
                let content = &entry["T stderr ? ".len()..];
                let partial = entry["T stderr ".len()] == b'P';
                joined.extend_from_slice(if partial { &content[..content.len() - 1] } else { content });
            }
            proptest::prop_assert_eq!(joined, chunks.concat());
        }
    }
}
