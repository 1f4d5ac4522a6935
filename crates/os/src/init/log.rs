//! Log files that stay small, and the kernel's log in one of them.

use std::{
    fs::{self, File},
    io::{self, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::supervise::Service;

/// Bytes of a log before the next one is begun; one full one is kept beside it.
const FULL: u64 = 4 << 20;

/// A log file of at most twice [`FULL`].
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Log {
    /// Continues the file, or begins it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = File::options().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size })
    }

    /// Writes one line.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        if self.size >= FULL {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            *self = Self::open(&self.path)?;
        }
        self.size += line.len() as u64 + 1;
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

/// How long the kernel's log may lie unread.
const GLANCE: Duration = Duration::from_secs(1);

/// Copies the kernel's log to a file, from its beginning on, until all is to end: an open file would hold the state.
/// What a full disk refuses is lost, for there may be room again, and `lost` hears of it. Any other failure ends it: the
/// kernel has its own word on that, which would fail in its turn.
pub fn follow_kernel(path: &Path, service: &Service, lost: impl Fn(io::Error)) -> io::Result<()> {
    let log = Log::open(path)?;
    let kernel = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    copy(kernel, log, service, lost)
}

fn copy(mut kernel: impl Read, mut log: Log, service: &Service, lost: impl Fn(io::Error)) -> io::Result<()> {
    let mut record = [0; 8192];
    while !service.ending() {
        match kernel.read(&mut record) {
            Ok(length) => {
                if let Some(line) = kernel_line(&String::from_utf8_lossy(&record[..length])) {
                    match log.line(&line) {
                        Err(e) if e.kind() == io::ErrorKind::StorageFull => lost(e),
                        other => other?,
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => service.pause(GLANCE),
            // Records were overwritten before they were read: the next read goes on with the oldest there is.
            Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `priority,sequence,microseconds,flags;text` as people read it.
fn kernel_line(record: &str) -> Option<String> {
    let (head, text) = record.split_once(';')?;
    let time: u64 = head.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next()?;
    Some(format!("[{:5}.{:06}] {text}", time / 1_000_000, time % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_the_kernel() {
        let record = "6,339,5140900,-;NET: Registered PF_INET6\n SUBSYSTEM=net\n";
        assert_eq!(kernel_line(record).unwrap(), "[    5.140900] NET: Registered PF_INET6");
        assert_eq!(kernel_line("nonsense"), None);
    }

    #[test]
    fn a_full_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/kernel.log");
        let mut log = Log::open(&path).unwrap();
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            log.line(&long).unwrap();
        }
        let size = |p: &Path| fs::metadata(p).unwrap().len();
        assert!(size(&path) <= FULL + (1 << 20) + 1 && size(&path.with_extension("log.1")) <= FULL + (1 << 20) + 1);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    /// Gives records, then an error that ends it all.
    struct Kernel(Vec<&'static [u8]>);

    impl Read for Kernel {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let record = self.0.pop().ok_or(io::ErrorKind::Unsupported)?;
            buffer[..record.len()].copy_from_slice(record);
            Ok(record.len())
        }
    }

    #[test]
    fn a_full_disk_does_not_end_the_kernel_s_log() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("kernel.log");
        let log =
            |path: &Path| Log { path: kept.clone(), file: File::options().write(true).open(path).unwrap(), size: 0 };
        let lost = std::cell::Cell::new(0);
        let records = || Kernel(vec![b"6,2,2,-;b", b"6,1,1,-;a"]);
        let ended = copy(records(), log(Path::new("/dev/full")), &Service::default(), |e| {
            assert_eq!(e.kind(), io::ErrorKind::StorageFull);
            lost.set(lost.get() + 1);
        });
        assert_eq!((ended.unwrap_err().kind(), lost.get()), (io::ErrorKind::Unsupported, 2));
        File::create(&kept).unwrap();
        copy(records(), log(&kept), &Service::default(), |e| panic!("{e}")).unwrap_err();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "[    0.000001] a\n[    0.000002] b\n");
    }

    proptest::proptest! {
        #[test]
        fn no_record_panics(record: String) {
            kernel_line(&record);
        }
    }
}
