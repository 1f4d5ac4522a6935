//! One layer: a stream that is hashed, decompressed, hashed again and unpacked as it comes, and kept only if both digests
//! and the size are right.

use crate::{
    digest::Digest,
    entry,
    error::{Error, Result},
    manifest::Compression,
    unpack::{Unpacked, Unpacker},
};
use sha2::{Digest as _, Sha256};
use std::{
    cell::Cell,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
};

/// What a layer may take. Beyond it is [`Error::TooLarge`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the unpacked tar.
    pub bytes: u64,
    /// Unpacked bytes to each compressed one, once the tar is larger than `free`. Deflate itself ends near 1,030.
    pub ratio: u64,
    /// Bytes of a tar that no ratio is asked of: a file of zeros is no bomb.
    pub free: u64,
    /// Entries, extension headers counted.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, ratio: 200, free: 512 << 20, entries: 1_000_000 }
    }
}

/// What a layer's bytes must be.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Digest of the compressed bytes; none for layers of archives that name only the DiffID.
    pub digest: Option<Digest>,
    /// Their number.
    pub size: u64,
    /// Digest of the tar.
    pub diff_id: Digest,
    /// Between the two.
    pub compression: Compression,
}

/// Unpacks a layer into the empty directory `into`. On error what is there is worthless.
pub fn unpack(source: impl BufRead, expected: &Expected, limits: &Limits, into: &Path) -> Result<Unpacked> {
    let what = format!("layer {}", expected.digest.as_ref().unwrap_or(&expected.diff_id));
    let came = Rc::new(Cell::new(0));
    let mut source = Counted { inner: source, hasher: Sha256::new(), came: came.clone() };
    let broken = |e| lift(e, &what);
    let (unpacked, diff_id) = {
        let decoder: Box<dyn Read + '_> = match expected.compression {
            Compression::None => Box::new(&mut source),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&mut source)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(&mut source).map_err(broken)?),
        };
        let mut tar = Metered { inner: decoder, hasher: Sha256::new(), out: 0, came, limits, what: &what };
        let mut unpacker = Unpacker::new(&what, into)?;
        // A buffer for headers; larger reads go past it.
        let mut archive = tar::Archive::new(BufReader::with_capacity(32 << 10, &mut tar));
        entry::each(&what, archive.entries().map_err(broken)?, limits.entries, |e, data| unpacker.apply(e, data))?;
        drop(archive);
        let unpacked = unpacker.finish()?;
        io::copy(&mut tar, &mut io::sink()).map_err(broken)?;
        (unpacked, Digest::finish(tar.hasher))
    };
    io::copy(&mut source, &mut io::sink()).map_err(broken)?;
    let mismatch = |what: String, expected: String, found: String| Err(Error::Digest { what, expected, found });
    if source.came.get() != expected.size {
        return mismatch(what, format!("{} bytes", expected.size), format!("{}", source.came.get()));
    }
    let digest = Digest::finish(source.hasher);
    if expected.digest.as_ref().is_some_and(|d| *d != digest) {
        return mismatch(what, "that".into(), digest.to_string());
    }
    if diff_id != expected.diff_id {
        return mismatch(format!("{what}, unpacked"), expected.diff_id.to_string(), diff_id.to_string());
    }
    Ok(unpacked)
}

/// The typed error inside an I/O error that has come up through decoders, else what the error means.
pub fn lift(e: io::Error, what: &str) -> Error {
    if let Some(inner) = e.get_ref().and_then(|i| i.downcast_ref::<Error>()) {
        return inner.clone();
    }
    match e.raw_os_error() {
        Some(_) => Error::io(what, e),
        None => Error::archive(what, b"", e.to_string()),
    }
}

/// Hashes and counts what is read from a source, without copying it.
struct Counted<R> {
    inner: R,
    hasher: Sha256,
    came: Rc<Cell<u64>>,
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // Already filled, so this neither blocks nor fails.
        if let Ok(buffer) = self.inner.fill_buf() {
            self.hasher.update(&buffer[..amount]);
        }
        self.came.set(self.came.get() + amount as u64);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let n = available.read(into)?;
        self.consume(n);
        Ok(n)
    }
}

/// Hashes the tar and holds it to its limits.
struct Metered<'a, R> {
    inner: R,
    hasher: Sha256,
    out: u64,
    came: Rc<Cell<u64>>,
    limits: &'a Limits,
    what: &'a str,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(into)?;
        self.hasher.update(&into[..n]);
        self.out += n as u64;
        let too_large = |what: &str, limit| {
            Err(io::Error::other(Error::TooLarge { what: format!("{}: {what}", self.what), limit }))
        };
        if self.out > self.limits.bytes {
            return too_large("unpacked bytes", self.limits.bytes);
        }
        if self.out > self.limits.free && self.out / self.limits.ratio.max(1) > self.came.get() {
            return too_large("unpacked bytes to a compressed one", self.limits.ratio);
        }
        Ok(n)
    }
}
