//! Tar entries as a layer has them: long names, PAX records, xattrs. Everything read into memory is bounded.
//!
//! The `tar` crate reads raw headers; its own handling of extensions would read a PAX header of any size into memory.

use crate::error::{Error, Result};
use std::io::Read;
use tar::EntryType;

/// The most bytes of extension headers (long names, PAX records) before one entry: "endless PAX header".
const EXTENSION_LIMIT: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name for an earlier entry.
    Hardlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// Owner, mode, times and extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes that survive our policy.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// One entry, its name as it was written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its attributes.
    pub attributes: Attributes,
}

/// Calls `apply` for each entry of a tar, with its data. Stops at the end mark; what follows is not read.
pub fn each<R: Read>(
    what: &str,
    entries: tar::Entries<'_, R>,
    limit: u64,
    mut apply: impl FnMut(Entry, &mut tar::Entry<'_, R>) -> Result<()>,
) -> Result<()> {
    let broken = |e| crate::layer::lift(e, what);
    let mut extensions = Extensions::default();
    let mut count = 0;
    for raw in entries.raw(true) {
        let mut raw = raw.map_err(broken)?;
        count += 1;
        if count > limit {
            return Err(Error::TooLarge { what: format!("{what}: entries"), limit });
        }
        if !extensions.take(what, &mut raw)? {
            let entry = std::mem::take(&mut extensions)
                .entry(raw.header())
                .map_err(|(name, reason)| Error::archive(what, &name, reason))?;
            apply(entry, &mut raw)?;
        }
    }
    if extensions.bytes > 0 {
        return Err(Error::archive(what, b"", "ends after an extension header"));
    }
    Ok(())
}

/// What extension headers say of the entry that follows them.
#[derive(Default)]
struct Extensions {
    bytes: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Extensions {
    /// Takes in an extension header; false if it is none.
    fn take<R: Read>(&mut self, what: &str, raw: &mut tar::Entry<'_, R>) -> Result<bool> {
        let kind = raw.header().entry_type();
        if !matches!(
            kind,
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
        ) {
            return Ok(false);
        }
        let size = raw.size();
        self.bytes = self.bytes.saturating_add(size).saturating_add(512);
        if self.bytes > EXTENSION_LIMIT {
            return Err(Error::TooLarge {
                what: format!("{what}: bytes of extension headers"),
                limit: EXTENSION_LIMIT,
            });
        }
        let mut data = Vec::new();
        raw.read_to_end(&mut data).map_err(|e| crate::layer::lift(e, what))?;
        if data.len() as u64 != size {
            return Err(Error::archive(what, b"", "ends within an extension header"));
        }
        match kind {
            EntryType::GNULongName => self.path = Some(until_nul(data)),
            EntryType::GNULongLink => self.link = Some(until_nul(data)),
            EntryType::XHeader => self.records(&data).map_err(|reason| Error::archive(what, b"", reason))?,
            // Global records name archives, not files; nobody applies them to a layer.
            _ => {}
        }
        Ok(true)
    }

    /// `LENGTH KEY=VALUE\n` records. By length, not by line: values may hold newlines.
    fn records(&mut self, mut data: &[u8]) -> Result<(), &'static str> {
        const BROKEN: &str = "PAX record is broken";
        while !data.is_empty() {
            let space = data.iter().take(20).position(|b| *b == b' ').ok_or(BROKEN)?;
            let length = number(&data[..space]).ok_or(BROKEN)? as usize;
            let record = data.get(space + 1..length).and_then(|r| r.strip_suffix(b"\n")).ok_or(BROKEN)?;
            data = &data[length..];
            let equals = record.iter().position(|b| *b == b'=').ok_or(BROKEN)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            let key = std::str::from_utf8(key).map_err(|_| BROKEN)?;
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.link = Some(value.to_vec()),
                "uid" => self.uid = Some(number(value).ok_or("PAX uid is no number")?),
                "gid" => self.gid = Some(number(value).ok_or("PAX gid is no number")?),
                "size" => self.size = Some(number(value).ok_or("PAX size is no number")?),
                "mtime" => self.mtime = Some(time(value).ok_or("PAX mtime is no time")?),
                _ if key.starts_with("GNU.sparse.") => return Err("sparse files are not supported"),
                _ => {
                    if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                        self.xattr(name, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps file capabilities and `user.*`. Labels and ACLs of another host are dropped, as everyone does.
    fn xattr(&mut self, name: &str, value: &[u8]) -> Result<(), &'static str> {
        // Overlay's own attributes would redirect a name in the image to any inode of the layers below.
        if name.starts_with("trusted.") || name.starts_with("user.overlay.") {
            return Err("sets an attribute that is the kernel's own");
        }
        if name == "security.capability" || name.starts_with("user.") {
            if name.contains('\0') || name.len() > 255 || value.len() > 65_536 {
                return Err("attribute is too large");
            }
            self.xattrs.push((name.into(), value.to_vec()));
        }
        Ok(())
    }

    fn entry(self, header: &tar::Header) -> Result<Entry, (Vec<u8>, &'static str)> {
        let path = self.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let fail = |reason| (path.clone(), reason);
        let field = |value: std::io::Result<u64>, reason| value.map_err(|_| fail(reason));
        let size = field(header.entry_size(), "size is no number")?;
        // A reader that believes the other of the two sees other entries (CVE-2025-62518).
        if self.size.is_some_and(|s| s != size) {
            return Err(fail("has two sizes"));
        }
        if path.contains(&0) {
            return Err(fail("name holds NUL"));
        }
        let link = self.link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(size),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink if link.is_empty() || link.len() > 4095 || link.contains(&0) => {
                return Err(fail("is a symlink to nowhere"));
            }
            EntryType::Symlink => Kind::Symlink(link),
            EntryType::Link => Kind::Hardlink(link),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            EntryType::GNUSparse => return Err(fail("sparse files are not supported")),
            _ => return Err(fail("is of an unknown type")),
        };
        // The all-ones id means "leave as it is" to chown; larger ones would wrap round to root.
        let id = |pax: Option<u64>, header: std::io::Result<u64>, reason| {
            let id = pax.map_or_else(|| field(header, reason), Ok)?;
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| fail(reason))
        };
        let mtime = self.mtime.unwrap_or_else(|| (header.mtime().unwrap_or(0).min(i64::MAX as u64) as i64, 0));
        let attributes = Attributes {
            mode: header.mode().map_err(|_| fail("mode is no number"))? & 0o7777,
            uid: id(self.uid, header.uid(), "uid is out of range")?,
            gid: id(self.gid, header.gid(), "gid is out of range")?,
            mtime,
            xattrs: self.xattrs,
        };
        Ok(Entry { path, kind, attributes })
    }
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
    name
}

fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// `[-]SECONDS[.FRACTION]`; a fraction of a time before 1970 counts forward from the second below.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"7.1234567899"), Some((7, 123_456_789)));
        for bad in [&b""[..], b"x", b"1.x", b"1.-2", b"99999999999999999999"] {
            assert_eq!(time(bad), None);
        }
    }

    #[test]
    fn values_may_hold_newlines() {
        let mut found = Extensions::default();
        let body = b"SCHILY.xattr.security.capability=a\nb\n";
        let record = [format!("{} ", body.len() + 3).into_bytes(), body.to_vec()].concat();
        found.records(&record).unwrap();
        assert_eq!(found.xattrs, [("security.capability".to_string(), b"a\nb".to_vec())]);
    }

    proptest! {
        #[test]
        fn records_never_panic(data in prop::collection::vec(any::<u8>(), 0..200), text in "[0-9 a-z=.\\n]{0,60}") {
            let _ = Extensions::default().records(&data);
            let _ = Extensions::default().records(text.as_bytes());
            let _ = time(text.as_bytes());
        }

        #[test]
        fn tar_never_panics(mut blocks in prop::collection::vec(any::<u8>(), 0..4096), kind in any::<u8>()) {
            let count = |bytes: &[u8]| {
                let mut archive = tar::Archive::new(bytes);
                let entries = archive.entries().unwrap();
                each("t", entries, 100, |_, data| { std::io::copy(data, &mut std::io::sink()).ok(); Ok(()) })
            };
            let _ = count(&blocks);
            // With a right checksum the garbage gets further in.
            if let Some((head, _)) = blocks.split_at_mut_checked(512) {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(head);
                header.set_entry_type(EntryType::new(kind));
                header.set_size(u64::from(kind) * 16);
                header.set_cksum();
                head.copy_from_slice(header.as_bytes());
                let _ = count(&blocks);
            }
        }
    }
}
