//! The store file: a header, then frames; one frame is one group commit.
//!
//! ```text
//! header  "rastlog\n"  version u32  salt u64  crc u32
//! frame   marker u32   length u32   crc u32   last revision u64   records…
//! record  1 revision u64                                    the revision of the records that follow
//!         2 created u64  key  encoding u8  key id u32  value    the key was put
//!         3 key                                             the key was removed
//!         4 revision u64                                    revisions below this one are compacted
//! ```
//!
//! Integers are little-endian; keys and values are a `u32` length and bytes. The checksums cover the salt,
//! so that no value can pose as a frame. A rewritten file begins with the entries that the compacted
//! revision shows, in frames whose last revision is 0, ended by record 4; commits at or below that revision
//! may follow once more and are skipped. Zeros may follow the last frame.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

const MAGIC: [u8; 8] = *b"rastlog\n";
const MARKER: u32 = 0x7261_7346;
/// The version of the format that this program writes and the newest it reads.
pub const VERSION: u32 = 1;
/// Bytes of the file's header.
pub const HEADER: usize = 24;
/// Bytes of a frame's header.
pub const FRAME: usize = 20;
/// Longer frames are never written.
pub const MAX_FRAME: usize = 128 << 20;
/// How much is read ahead.
const CHUNK: usize = 128 << 10;

/// How a value is encoded: as it is. Encryption will add its own.
const PLAIN: u8 = 0;

/// The header of a new file.
pub fn header(salt: u64) -> [u8; HEADER] {
    let mut out = [0; HEADER];
    out[..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&salt.to_le_bytes());
    let crc = crc32fast::hash(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The salt from a header, or why the file cannot be read.
pub fn salt(header: &[u8]) -> Result<u64, String> {
    if header.len() < HEADER || header[..8] != MAGIC {
        return Err("it is not a rastOS store; move it away to start with an empty one".into());
    }
    let version = u32_at(header, 8);
    if version != VERSION {
        return Err(format!("its format is {version}, this program reads {VERSION}; use the program that wrote it"));
    }
    if crc32fast::hash(&header[..20]) != u32_at(header, 20) {
        return Err("its header is damaged; restore a backup".into());
    }
    Ok(u64::from_le_bytes(std::array::from_fn(|i| header[12 + i])))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn checksum(salt: u64, last: u64, records: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(&last.to_le_bytes());
    crc.update(records);
    crc.finalize()
}

/// A frame under construction.
pub struct Builder(Vec<u8>);

impl Builder {
    /// Without records yet.
    pub fn new() -> Self {
        Self(vec![0; FRAME])
    }

    /// Bytes so far, with the header.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The records that follow belong to this revision.
    pub fn revision(&mut self, rev: u64) {
        self.0.push(1);
        self.0.extend(rev.to_le_bytes());
    }

    /// A put; tells where in the frame the value's bytes begin.
    pub fn put(&mut self, key: &str, created: u64, value: &[u8]) -> usize {
        self.0.push(2);
        self.0.extend(created.to_le_bytes());
        self.bytes(key.as_bytes());
        self.0.push(PLAIN);
        self.0.extend(0u32.to_le_bytes());
        self.bytes(value);
        self.0.len() - value.len()
    }

    /// A removal.
    pub fn delete(&mut self, key: &str) {
        self.0.push(3);
        self.bytes(key.as_bytes());
    }

    /// Revisions below `rev` are compacted.
    pub fn compacted(&mut self, rev: u64) {
        self.0.push(4);
        self.0.extend(rev.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u32).to_le_bytes());
        self.0.extend(bytes);
    }

    /// The finished frame; `last` is the newest revision up to its end, 0 for entries kept by a rewrite.
    pub fn finish(&mut self, salt: u64, last: u64) -> &[u8] {
        let (head, records) = self.0.split_at_mut(FRAME);
        head[..4].copy_from_slice(&MARKER.to_le_bytes());
        head[4..8].copy_from_slice(&(records.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&checksum(salt, last, records).to_le_bytes());
        head[12..].copy_from_slice(&last.to_le_bytes());
        &self.0
    }

    /// Starts the next frame in the same memory.
    pub fn clear(&mut self) {
        self.0.truncate(FRAME);
        self.0.shrink_to(1 << 20);
    }
}

/// A whole frame as read.
pub struct Frame<'a> {
    /// Where in the file it begins.
    pub at: u64,
    /// The newest revision up to its end.
    pub last: u64,
    /// Its records, which begin [`FRAME`] bytes after `at`.
    pub records: &'a [u8],
}

/// What stands at a place of the file.
pub enum Next<'a> {
    /// A frame.
    Frame(Frame<'a>),
    /// The end.
    End,
    /// Something that is not a whole frame.
    Torn,
}

/// Reads frames one after the other.
pub struct Frames {
    file: Arc<File>,
    salt: u64,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    /// From `at` (a frame's beginning) to `end`.
    pub fn new(file: Arc<File>, salt: u64, at: u64, end: u64) -> Self {
        Self { file, salt, at, end, buffer: Vec::new(), start: 0 }
    }

    /// The next frame; after [`Next::Torn`] the place stays the same.
    pub fn next(&mut self) -> io::Result<Next<'_>> {
        if self.at >= self.end {
            return Ok(Next::End);
        }
        if !self.fill(FRAME)? {
            return Ok(Next::Torn);
        }
        let head = &self.buffer[self.start..self.start + FRAME];
        let (marker, len, crc) = (u32_at(head, 0), u32_at(head, 4) as usize, u32_at(head, 8));
        let last = u64::from_le_bytes(std::array::from_fn(|i| head[12 + i]));
        if marker != MARKER || len > MAX_FRAME || !self.fill(FRAME + len)? {
            return Ok(Next::Torn);
        }
        let records = self.start + FRAME..self.start + FRAME + len;
        if checksum(self.salt, last, &self.buffer[records.clone()]) != crc {
            return Ok(Next::Torn);
        }
        let at = self.at;
        self.at += (FRAME + len) as u64;
        self.start = records.end;
        Ok(Next::Frame(Frame { at, last, records: &self.buffer[records] }))
    }

    /// Whether nothing but zeros, which are written ahead of frames, follows.
    pub fn only_zeros(&self) -> io::Result<bool> {
        let (mut at, mut chunk) = (self.at, vec![0; CHUNK]);
        while at < self.end {
            let n = (self.end - at).min(CHUNK as u64) as usize;
            self.file.read_exact_at(&mut chunk[..n], at)?;
            if chunk[..n].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += n as u64;
        }
        Ok(true)
    }

    /// Whether a whole frame begins anywhere after the torn one: then the file is damaged, not cut short.
    pub fn any_after_torn(&mut self) -> io::Result<bool> {
        while self.at + (FRAME as u64) < self.end {
            self.at += 1;
            self.start += 1;
            if !self.fill(FRAME)? {
                break;
            }
            if u32_at(&self.buffer, self.start) == MARKER && matches!(self.next()?, Next::Frame(_)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has `n` bytes from the current place in memory, unless the file ends before.
    fn fill(&mut self, n: usize) -> io::Result<bool> {
        if self.buffer.len() >= self.start + n {
            return Ok(true);
        }
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        let want = (n.max(CHUNK) as u64).min(self.end - self.at) as usize;
        if want < n {
            return Ok(false);
        }
        let have = self.buffer.len();
        self.buffer.resize(want, 0);
        self.file.read_exact_at(&mut self.buffer[have..], self.at + have as u64)?;
        Ok(true)
    }
}

/// One record.
#[derive(Debug, PartialEq)]
pub enum Record<'a> {
    /// The records that follow belong to this revision.
    Revision(u64),
    /// The key was put; `at` is where in the records the value begins.
    Put { key: &'a str, created: u64, at: usize, value: &'a [u8] },
    /// The key was removed.
    Delete { key: &'a str },
    /// Revisions below this one are compacted.
    Compacted(u64),
}

/// Parses records; the error says what cannot be read.
pub struct Records<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    /// The records of a frame.
    pub fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.all.len());
        let taken = &self.all[self.at..end.ok_or("a record is cut short")?];
        self.at += n;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32_at(self.take(4)?, 0))
    }

    fn u64(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    fn key(&mut self) -> Result<&'a str, String> {
        let len = self.u32()? as usize;
        std::str::from_utf8(self.take(len)?).map_err(|_| "a key is not UTF-8".into())
    }

    fn put(&mut self) -> Result<Record<'a>, String> {
        let created = self.u64()?;
        let key = self.key()?;
        let (encoding, key_id) = (self.take(1)?[0], self.u32()?);
        if (encoding, key_id) != (PLAIN, 0) {
            return Err(format!("{key} has encoding {encoding} with key {key_id}, which this program cannot read"));
        }
        let len = self.u32()? as usize;
        Ok(Record::Put { key, created, at: self.at, value: self.take(len)? }) // `at` is read before `take` moves it
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.all.len() {
            return None;
        }
        let tag = self.all[self.at];
        self.at += 1;
        let record = match tag {
            1 => self.u64().map(Record::Revision),
            2 => self.put(),
            3 => self.key().map(|key| Record::Delete { key }),
            4 => self.u64().map(Record::Compacted),
            other => Err(format!("a record has the unknown tag {other}")),
        };
        if record.is_err() {
            self.at = self.all.len();
        }
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            let _ = (Records::new(&bytes).count(), salt(&bytes));
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let mut frames = Frames::new(Arc::new(file), 7, 0, bytes.len() as u64);
            prop_assert!(!matches!(frames.next().unwrap(), Next::Frame(_)));
            prop_assert!(!frames.any_after_torn().unwrap());
        }

        #[test]
        fn what_is_written_is_read(key in ".{0,40}", value: Vec<u8>, rev: u64, created: u64) {
            let mut b = Builder::new();
            b.revision(rev);
            let at = b.put(&key, created, &value);
            b.delete(&key);
            b.compacted(rev);
            let bytes = b.finish(7, rev).to_vec();
            prop_assert_eq!(&bytes[at..at + value.len()], &value[..]);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let mut frames = Frames::new(Arc::new(file), 7, 0, bytes.len() as u64);
            let Next::Frame(frame) = frames.next().unwrap() else { panic!("no frame") };
            let records: Vec<_> = Records::new(frame.records).map(Result::unwrap).collect();
            prop_assert_eq!(records, vec![
                Record::Revision(rev),
                Record::Put { key: &key, created, at: at - FRAME, value: &value },
                Record::Delete { key: &key },
                Record::Compacted(rev),
            ]);
        }
    }

    #[test]
    fn a_value_cannot_pose_as_a_frame_of_another_file() {
        let mut forged = Builder::new();
        forged.compacted(9);
        let forged = forged.finish(1, 9).to_vec();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&forged, 3).unwrap();
        let file = Arc::new(file);
        let end = 3 + forged.len() as u64;
        assert!(!Frames::new(file.clone(), 2, 0, end).any_after_torn().unwrap());
        assert!(Frames::new(file, 1, 0, end).any_after_torn().unwrap());
    }
}
