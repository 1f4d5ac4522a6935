//! Log files of containers: where they are, rotated, removed, and read for those who ask.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use crate::{crilog, message::open_plain};

/// A log longer than this is put aside.
const ROTATE_AT: u64 = 10 << 20;
/// Files kept for an instance, the current one included.
const KEEP: usize = 5;
/// Longest line that is read in one piece.
const LINE: u64 = 1 << 20;

/// What is asked of a log.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Go on as the container writes.
    pub follow: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// The last so many lines.
    pub tail: Option<usize>,
    /// At most so many bytes.
    pub limit: Option<u64>,
    /// `stdout` or `stderr` only.
    pub stream: Option<Vec<u8>>,
}

/// Puts the log of a running container aside when it is long. True if none is there then, and the runtime must reopen it:
/// also when someone was killed who had just put it aside. The oldest ones go.
pub fn rotate(log: &Path, now: Timestamp) -> io::Result<bool> {
    match fs::symlink_metadata(log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Ok(meta) if meta.is_file() && meta.len() >= ROTATE_AT => {}
        _ => return Ok(false),
    }
    let older = rotated(log);
    for old in older.iter().take((older.len() + 2).saturating_sub(KEEP)) {
        fs::remove_file(old)?;
    }
    let mut aside = log.as_os_str().to_owned();
    aside.push(format!(".{}", now.strftime("%Y%m%d-%H%M%S")));
    fs::rename(log, PathBuf::from(aside))?;
    Ok(true)
}

/// Files put aside of a log, oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let name = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let entries = log.parent().and_then(|d| fs::read_dir(d).ok());
    let mut all: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&name))
        .map(|e| e.path())
        .collect();
    all.sort();
    all
}

/// Removes a log and what was put aside of it; absent is done.
pub fn remove(log: &Path) -> io::Result<()> {
    for file in rotated(log).into_iter().chain([log.to_path_buf()]) {
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// Removes the logs of pods that `live`, which is asked after they were listed, does not name. Directories that are not
/// named as ours are left alone.
pub fn collect(logs: &Path, live: impl FnOnce() -> BTreeSet<String>) {
    let here: Vec<_> = fs::read_dir(logs).into_iter().flatten().flatten().collect();
    let live = live();
    for entry in here {
        let name = entry.file_name();
        let uid = name.to_str().filter(|n| n.matches('_').count() == 2).and_then(|n| n.rsplit('_').next());
        if let Some(uid) = uid
            && !live.contains(uid)
            && let Err(e) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!("remove {}: {e}", entry.path().display());
        }
    }
}

/// Reads a log from file to file, lines in the form that was asked for.
pub struct Reader {
    log: PathBuf,
    query: Query,
    files: Vec<PathBuf>,
    current: Option<BufReader<File>>,
    inode: u64,
    rest: Vec<u8>,
    left: u64,
    continued: bool,
}

impl Reader {
    /// Opens a log, at the line that `tail` asks for.
    pub fn open(log: &Path, query: Query) -> io::Result<Self> {
        let mut files: Vec<PathBuf> = rotated(log);
        files.push(log.to_path_buf());
        files.retain(|f| open_plain(f).is_ok());
        if files.is_empty() && log.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the log is not a regular file"));
        }
        let left = query.limit.unwrap_or(u64::MAX);
        let mut reader =
            Self { log: log.into(), query, files, current: None, inode: 0, rest: vec![], left, continued: false };
        if let Some(tail) = reader.query.tail {
            reader.seek(tail)?;
        }
        Ok(reader)
    }

    /// Skips to the last `tail` lines: reads backwards in blocks, over as many files as it takes.
    fn seek(&mut self, tail: usize) -> io::Result<()> {
        let mut missing = tail;
        while let Some(file) = self.files.pop() {
            let mut open = open_plain(&file)?;
            let length = open.seek(SeekFrom::End(0))?;
            let (at, found) = last_lines(&mut open, length, missing)?;
            missing -= found;
            if missing == 0 || self.files.is_empty() {
                open.seek(SeekFrom::Start(at))?;
                self.inode = open.metadata()?.ino();
                let mut later = rotated(&self.log);
                later.push(self.log.clone());
                self.files = later.into_iter().skip_while(|f| *f != file).skip(1).collect();
                self.current = Some(BufReader::new(open));
                break;
            }
        }
        Ok(())
    }

    /// The next piece for the client; `None` when there is nothing (yet).
    pub fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            let Some(current) = &mut self.current else {
                if self.files.is_empty() {
                    return Ok(None);
                }
                let file = open_plain(&self.files.remove(0))?;
                self.inode = file.metadata()?.ino();
                self.current = Some(BufReader::new(file));
                continue;
            };
            let read = current.by_ref().take(LINE).read_until(b'\n', &mut self.rest)?;
            if self.rest.last() == Some(&b'\n') || (self.rest.len() as u64) >= LINE {
                let line = std::mem::take(&mut self.rest);
                match self.form(line.strip_suffix(b"\n").unwrap_or(&line)) {
                    Some(out) => return Ok(Some(out)),
                    None => continue,
                }
            }
            if read > 0 {
                continue;
            }
            // The end of this file: on to the next, or to the one that has taken its place.
            if !self.files.is_empty() {
                self.current = None;
            } else if fs::symlink_metadata(&self.log).is_ok_and(|m| m.is_file() && m.ino() != self.inode) {
                self.current = None;
                self.files.push(self.log.clone());
            } else {
                return Ok(None);
            }
        }
    }

    /// No more than was asked for will come.
    pub fn done(&self) -> bool {
        self.left == 0
    }

    fn form(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let line = crilog::parse(line)?;
        if self.query.stream.as_ref().is_some_and(|s| s != line.stream) {
            return None;
        }
        if self.query.since.is_some_and(|since| line.at().is_some_and(|at| at < since)) {
            return None;
        }
        let mut out = Vec::with_capacity(line.content.len() + 40);
        if self.query.timestamps && !self.continued {
            out.extend_from_slice(line.time);
            out.push(b' ');
        }
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
        self.continued = line.partial;
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        Some(out)
    }
}

/// Where the last `wanted` whole lines of a file begin, and how many there are.
fn last_lines(file: &mut File, length: u64, wanted: usize) -> io::Result<(u64, usize)> {
    const BLOCK: u64 = 16 * 1024;
    let (mut found, mut end) = (0, length);
    let mut block = vec![];
    if wanted == 0 {
        return Ok((length, 0));
    }
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (n, _) in block.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = start + n as u64 + 1;
            if after == length {
                continue; // the newline that ends the last line
            }
            found += 1;
            if found == wanted {
                return Ok((after, found));
            }
        }
        end = start;
    }
    Ok((0, found + usize::from(length > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(log: &Path, query: Query) -> String {
        let mut reader = Reader::open(log, query).unwrap();
        let mut out = vec![];
        while let Some(more) = reader.read().unwrap() {
            out.extend(more);
        }
        String::from_utf8(out).unwrap()
    }

    fn lines(from: usize, to: usize) -> String {
        (from..to).map(|n| format!("2026-11-24T00:00:{n:02}.5Z stdout F {n}\n")).collect()
    }

    fn tail(n: usize) -> Query {
        Query { tail: Some(n), ..Query::default() }
    }

    #[test]
    fn queries() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("0.log");
        fs::write(&log, lines(0, 5) + "2026-11-24T00:00:05.5Z stderr P a\n2026-11-24T00:00:05.6Z stderr F b\n")
            .unwrap();
        assert_eq!(all(&log, Query::default()), "0\n1\n2\n3\n4\nab\n");
        let since = Some("2026-11-24T00:00:04Z".parse().unwrap());
        assert_eq!(all(&log, Query { since, ..Query::default() }), "4\nab\n");
        assert_eq!(all(&log, Query { limit: Some(3), ..Query::default() }), "0\n1");
        assert_eq!(all(&log, Query { stream: Some(b"stderr".into()), ..Query::default() }), "ab\n");
        let timed = Query { timestamps: true, stream: Some(b"stderr".into()), ..Query::default() };
        assert_eq!(all(&log, timed), "2026-11-24T00:00:05.5Z ab\n");
        assert_eq!(all(&log, tail(0)), "");
    }

    #[test]
    fn tails_reach_over_files() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("0.log");
        fs::write(tmp.path().join("0.log.20261124-000001"), lines(0, 3)).unwrap();
        fs::write(&log, lines(3, 5)).unwrap();
        assert_eq!(all(&log, tail(1)), "4\n");
        assert_eq!(all(&log, tail(2)), "3\n4\n");
        assert_eq!(all(&log, tail(4)), "1\n2\n3\n4\n");
        assert_eq!(all(&log, tail(99)), "0\n1\n2\n3\n4\n");
    }

    #[test]
    fn a_reader_follows_a_rotation() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("0.log");
        fs::write(&log, lines(0, 1)).unwrap();
        let mut reader = Reader::open(&log, Query::default()).unwrap();
        assert_eq!(reader.read().unwrap().unwrap(), b"0\n");
        assert_eq!(reader.read().unwrap(), None);
        fs::rename(&log, tmp.path().join("0.log.20261124-000000")).unwrap();
        assert_eq!(reader.read().unwrap(), None);
        fs::write(&log, lines(1, 2)).unwrap();
        assert_eq!(reader.read().unwrap().unwrap(), b"1\n");
    }

    #[test]
    fn rotation_keeps_five() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("0.log");
        for n in 0..8 {
            File::create(&log).unwrap().set_len(ROTATE_AT).unwrap();
            assert!(rotate(&log, Timestamp::from_second(n * 60).unwrap()).unwrap());
        }
        fs::write(&log, "x").unwrap();
        assert!(!rotate(&log, Timestamp::UNIX_EPOCH).unwrap());
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), KEEP);
        fs::remove_file(&log).unwrap();
        assert!(rotate(&log, Timestamp::UNIX_EPOCH).unwrap(), "put aside by someone who was killed then");
        remove(&log).unwrap();
        assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    /// FACTS, isolation check 26.
    #[test]
    fn a_log_that_became_a_symlink_shows_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("0.log");
        std::os::unix::fs::symlink("/etc/passwd", &log).unwrap();
        assert!(Reader::open(&log, Query::default()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn tail_is_the_end(count in 0..40usize, n in 0..50usize) {
            let tmp = tempfile::tempdir().unwrap();
            let log = tmp.path().join("0.log");
            fs::write(&log, lines(0, count)).unwrap();
            let want: String = (count.saturating_sub(n)..count).map(|n| format!("{n}\n")).collect();
            proptest::prop_assert_eq!(all(&log, tail(n)), want);
        }
    }
}
