//! Logs in the CRI format: `TIME STREAM TAG CONTENT`, where tag `P` marks a line that goes on.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Longer lines are written in parts.
pub const MAX_LINE: usize = 16 << 10;

/// Appends to `out` the entries of what a stream said; how much of it they hold. The rest, at most [`MAX_LINE`], is a
/// line without its end yet: `to_end` makes a part of that too.
pub fn entries(stream: &str, said: &[u8], now: &str, to_end: bool, out: &mut Vec<u8>) -> usize {
    let mut rest = said;
    loop {
        let head = &rest[..rest.len().min(MAX_LINE + 1)];
        let (content, taken, tag) = match head.iter().position(|b| *b == b'\n') {
            Some(end) => (&head[..end], end + 1, "F"),
            None if head.len() > MAX_LINE => (&head[..MAX_LINE], MAX_LINE, "P"),
            None if to_end && !head.is_empty() => (head, head.len(), "P"),
            None => return said.len() - rest.len(),
        };
        for field in [now, stream, tag] {
            out.extend_from_slice(field.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(content);
        out.push(b'\n');
        rest = &rest[taken..];
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

    /// Opens the file, so that an empty log exists too; whether it was closed.
    pub fn open(&mut self) -> io::Result<bool> {
        if self.file.is_some() {
            return Ok(false);
        }
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
        Ok(true)
    }

    /// Its file's number and length. Zeros while it is closed.
    pub fn extent(&self) -> (u64, u64) {
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.map_or((0, 0), |file| (file.ino(), file.len()))
    }

    /// Appends whole entries, all of them or none.
    pub fn write(&mut self, entries: &[u8]) -> io::Result<()> {
        let mut file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        // What a filesystem keeps back for the system is not the containers' to fill, not even by what they say.
        if rustix::fs::fstatvfs(file)?.f_bavail == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (_, length) = self.extent();
        file.write_all(entries).inspect_err(|_| self.cut(length))
    }

    /// Takes back what is beyond `length`.
    pub fn cut(&self, length: u64) {
        if let Some(file) = self.file.as_ref().filter(|_| self.extent().1 > length) {
            let _ = file.set_len(length);
        }
    }

    /// Continues in a fresh file at the same path.
    pub fn reopen(&mut self) -> io::Result<()> {
        self.file = None;
        self.open().map(drop)
    }

    /// Closes the file until it is opened again.
    pub fn close(&mut self) {
        self.file = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(said: &[u8], to_end: bool) -> (String, usize) {
        let mut out = Vec::new();
        let taken = entries("stdout", said, "T", to_end, &mut out);
        (String::from_utf8(out).unwrap(), taken)
    }

    #[test]
    fn a_line_waits_for_its_end() {
        assert_eq!(cut(b"a\n\nno end", false), ("T stdout F a\nT stdout F \n".into(), 3));
        assert_eq!(cut(b"no end", true), ("T stdout P no end\n".into(), 6));
        assert_eq!(cut(b"", true), (String::new(), 0));
    }

    #[test]
    fn long_lines_come_in_parts() {
        let x = |n: usize| "x".repeat(n);
        let said = x(MAX_LINE + 3) + "\n";
        assert_eq!(cut(said.as_bytes(), false).0, format!("T stdout P {}\nT stdout F xxx\n", x(MAX_LINE)));
        let said = x(MAX_LINE) + "\n";
        assert_eq!(cut(said.as_bytes(), false).0, format!("T stdout F {}\n", x(MAX_LINE)));
        assert_eq!(cut(&said.as_bytes()[..MAX_LINE], false).1, 0, "its end may come next");
    }

    #[test]
    fn a_write_that_is_refused_leaves_no_half_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(&dir.path().join("log"));
        assert!(log.open().unwrap());
        log.write(b"whole\n").unwrap();
        log.file.as_mut().unwrap().write_all(b"ha").unwrap();
        log.cut(6);
        log.cut(100);
        assert_eq!(fs::read(dir.path().join("log")).unwrap(), b"whole\n");
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(said in proptest::collection::vec(proptest::num::u8::ANY, 0..80_000), newline: u8) {
            let said: Vec<u8> = said.iter().map(|b| if *b == newline { b'\n' } else { *b }).collect();
            let mut out = Vec::new();
            let taken = entries("stderr", &said, "T", false, &mut out);
            proptest::prop_assert!(said.len() - taken <= MAX_LINE);
            entries("stderr", &said[taken..], "T", true, &mut out);
            let mut joined = Vec::new();
            for entry in out.split_inclusive(|b| *b == b'\n') {
                let content = &entry["T stderr ? ".len()..];
                let partial = entry["T stderr ".len()] == b'P';
                joined.extend_from_slice(if partial { &content[..content.len() - 1] } else { content });
            }
            proptest::prop_assert_eq!(joined, said);
        }
    }
}
