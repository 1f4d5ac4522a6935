//! Rewriting the file without what compaction made useless, while commits go on.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    format::{self, Builder, HEADER},
    index::{Index, Version},
};

/// Bytes of kept entries in one frame.
const FRAME_BYTES: usize = 256 << 10;

/// A file beside the store's that may take its place; gone when dropped before.
pub struct Temporary {
    pub file: File,
    path: Option<PathBuf>,
}

impl Temporary {
    /// `PATH.new`, empty and locked: whoever opens it once it is in place finds it taken.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = beside(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.try_lock()?;
        Ok(Self { file, path: Some(path) })
    }

    /// Makes it durable and gives it the store's name, which [`sync_name`] must make durable in turn.
    pub fn install(mut self, path: &Path) -> io::Result<File> {
        let file = self.file.try_clone()?;
        file.sync_all()?;
        fs::rename(beside(path), path)?;
        self.path = None;
        Ok(file)
    }
}

/// Makes the name of the file durable.
pub fn sync_name(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Best effort: the next open removes it too.
            let _ = fs::remove_file(path);
        }
    }
}

/// Where a new file grows.
pub fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// What to keep, as of one moment.
pub struct Plan {
    path: PathBuf,
    file: Arc<File>,
    salt: u64,
    cut: u64,
    log: u64,
    end: u64,
    kept: Vec<(Box<str>, Version)>,
}

impl Plan {
    /// Keeps what the compacted revision shows and the log after it.
    pub fn new(index: &Index, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: index.file.clone(),
            salt: index.salt,
            cut: index.compacted,
            log: index.seek(index.compacted),
            end: index.end,
            kept: index.kept().map(|(key, version)| (key.into(), version)).collect(),
        }
    }

    /// Writes the new file up to the planned end.
    pub fn run(self) -> io::Result<Rewritten> {
        let new = Temporary::create(&self.path)?;
        new.file.write_all_at(&format::header(self.salt), 0)?;
        let (mut frame, mut at) = (Builder::new(), HEADER as u64);
        let mut kept = Vec::with_capacity(self.kept.len());
        for (key, version) in self.kept {
            let mut value = vec![0; version.len as usize];
            self.file.read_exact_at(&mut value, version.at)?;
            frame.revision(version.rev);
            let place = frame.put(&key, version.created, &value) as u64;
            kept.push((key, at + place));
            if frame.len() > FRAME_BYTES {
                at = flush(&mut frame, self.salt, &new.file, at)?;
            }
        }
        frame.compacted(self.cut);
        let new_log = flush(&mut frame, self.salt, &new.file, at)?;
        copy(&self.file, self.log..self.end, &new.file, new_log)?;
        new.file.sync_data()?;
        Ok(Rewritten { new, cut: self.cut, kept, old_log: self.log, old_end: self.end, new_log })
    }
}

fn flush(frame: &mut Builder, salt: u64, file: &File, at: u64) -> io::Result<u64> {
    file.write_all_at(frame.finish(salt, 0), at)?;
    let at = at + frame.len() as u64;
    frame.clear();
    Ok(at)
}

fn copy(from: &File, range: std::ops::Range<u64>, to: &File, mut at: u64) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut place = range.start;
    while place < range.end {
        let n = (range.end - place).min(buffer.len() as u64) as usize;
        from.read_exact_at(&mut buffer[..n], place)?;
        to.write_all_at(&buffer[..n], at)?;
        place += n as u64;
        at += n as u64;
    }
    Ok(())
}

/// A new file that holds everything up to `old_end` of the old one.
pub struct Rewritten {
    new: Temporary,
    cut: u64,
    kept: Vec<(Box<str>, u64)>,
    old_log: u64,
    old_end: u64,
    new_log: u64,
}

/// A new file in the old one's place.
pub struct Installed {
    pub file: File,
    /// The revision whose entries begin the file.
    pub cut: u64,
    /// Where their values lie, in key order.
    pub kept: Vec<(Box<str>, u64)>,
    /// Where the log began in the old file.
    pub old_log: u64,
    /// Where it begins now.
    pub new_log: u64,
}

impl Rewritten {
    /// Copies what was committed meanwhile and takes the old file's place.
    pub fn catch_up(self, old: &File, end: u64, path: &Path) -> io::Result<Installed> {
        let Self { new, cut, kept, old_log, old_end, new_log } = self;
        copy(old, old_end..end, &new.file, new_log + (old_end - old_log))?;
        Ok(Installed { file: new.install(path)?, cut, kept, old_log, new_log })
    }
}
