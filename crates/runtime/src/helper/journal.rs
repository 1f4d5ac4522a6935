//! The way of a container's words to its log: each byte once and in order, whenever this process is killed.
//!
//! Who reads a pipe into memory and is killed has lost what it read. So the kernel moves it: `splice` writes to the
//! stream's *journal*, a file beside the container's record, and takes from the pipe just what it has written; a kill
//! makes that shorter, never uneven. From there, lines go to the log as they are whole, and the *mark* at the journal's
//! head tells how much of it the log holds and how long the log is with that. The next helper cuts off what the log
//! has beyond its mark, and goes on from there. A mark lies within one page: it is written or it is not.
//!
//! Assumes: nobody else writes this log. The journals end with the container, so nothing is synced.
//! Not kept when killed: one chunk of a terminal, which cannot be spliced, or of a pipe while the run directory has no
//! room for a journal. Lines stand twice if their log was put aside between their writing and their mark.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    pipe::SpliceFlags,
};

#[cfg(test)]
use tests::step;

use super::logs::{self, Log};

/// Names of the streams, in the order of their index.
pub const STREAMS: [&str; 2] = ["stdout", "stderr"];
/// Room for what [`Journal::pump`] takes at once, after a line without its end.
pub const SCRATCH: usize = (64 << 10) + logs::MAX_LINE;

/// The mark: the log's inode and length, and up to where this file is in it.
const HEAD: u64 = 24;
const PAGE: u64 = 4096;
/// How many bytes that the log holds a journal may hold too.
const SLACK: u64 = 16 << 10;

/// Where a kill makes a difference.
#[cfg(not(test))]
fn step() {}

/// A container's journals and the log they end in. Closed until its first words: most containers say little.
pub struct Journal {
    dir: PathBuf,
    log: Log,
    streams: [Option<Stream>; 2],
}

impl Journal {
    /// For a container with its record in `dir`.
    pub fn new(dir: &Path, log: &Path) -> Self {
        Self { dir: dir.to_owned(), log: Log::new(log), streams: [None, None] }
    }

    /// Opens the log, so that a container that says nothing has one too.
    pub fn open_log(&mut self) -> io::Result<()> {
        self.log.open().map(drop)
    }

    /// Continues the log in a fresh file.
    pub fn reopen_log(&mut self) -> io::Result<()> {
        self.log.reopen()?;
        self.mark(0);
        Ok(())
    }

    /// Closes the log until there is something to write.
    pub fn close_log(&mut self) {
        self.log.close();
    }

    /// Takes once what a stream's `source` holds, and logs it; what that was. Nothing: there is no more now.
    pub fn pump<'s>(&mut self, at: usize, source: &File, scratch: &'s mut [u8]) -> io::Result<&'s [u8]> {
        self.open(at);
        let pending = self.pending(at, scratch);
        let (taken, kept) = self.take(at, source, &mut scratch[pending..])?;
        // What no journal keeps cannot wait for the end of its line.
        self.settle(at, &scratch[..pending + taken], !kept);
        Ok(&scratch[pending..pending + taken])
    }

    /// Goes on where a former helper was cut off.
    pub fn recover(&mut self, scratch: &mut [u8]) {
        for at in 0..2 {
            self.streams[at] = Stream::open(&self.path(at), false).ok();
        }
        if self.streams.iter().all(Option::is_none) {
            return;
        }
        let _ = self.log.open();
        let (inode, _) = self.log.extent();
        let marks = self.streams.iter().flatten().map(|stream| stream.marked);
        // The later of the two: each was true when it was written.
        if let Some(length) = marks.filter(|marked| marked.0 == inode).map(|marked| marked.1).max() {
            self.log.cut(length);
        }
        self.mark(0);
        for at in 0..2 {
            self.drain(at, scratch, false);
        }
    }

    /// Logs the last lines, which never ended, and removes the journals.
    pub fn finish(&mut self, scratch: &mut [u8]) {
        for at in 0..2 {
            self.drain(at, scratch, true);
        }
        for at in 0..2 {
            if self.streams[at].take().is_some() {
                let _ = fs::remove_file(self.path(at));
                step();
            }
        }
        self.log.close();
    }

    fn path(&self, at: usize) -> PathBuf {
        self.dir.join(format!("{}.journal", STREAMS[at]))
    }

    /// Opens what is not open yet, and marks it before anything is written to it.
    fn open(&mut self, at: usize) {
        if self.log.open().unwrap_or(false) {
            self.mark(0);
        }
        if self.streams[at].is_none() {
            let marked = |mut stream: Stream| stream.mark(self.log.extent()).map(|()| stream);
            self.streams[at] = Stream::open(&self.path(at), true).and_then(marked).ok();
        }
    }

    /// Reads what is not in the log yet; how much.
    fn pending(&mut self, at: usize, scratch: &mut [u8]) -> usize {
        let Some(stream) = &mut self.streams[at] else { return 0 };
        let length = scratch.len().min((stream.end - stream.taken) as usize);
        if stream.file.read_exact_at(&mut scratch[..length], stream.taken).is_err() {
            stream.taken = stream.end; // a broken disk
            return 0;
        }
        length
    }

    /// Moves what `source` holds to the journal and to `room`; how much, and whether the journal has it.
    fn take(&mut self, at: usize, source: &File, room: &mut [u8]) -> io::Result<(usize, bool)> {
        let nothing = |e| if matches!(e, Errno::AGAIN | Errno::INTR) { Ok(0) } else { Err(e) };
        let spliced = self.streams[at].as_mut().map(|stream| stream.splice(source, room).or_else(nothing));
        if let Some(Ok(taken)) = spliced {
            return Ok((taken, true));
        }
        // A terminal, or no room in the run directory.
        let read = rustix::io::read(source, &mut *room).or_else(nothing)?;
        step();
        let kept = |stream: &mut Stream| stream.append(&room[..read]).is_ok();
        Ok((read, read == 0 || self.streams[at].as_mut().is_some_and(kept)))
    }

    /// Logs what the journal holds, as far as lines are whole or `to_end`.
    fn drain(&mut self, at: usize, scratch: &mut [u8], to_end: bool) {
        loop {
            let pending = self.pending(at, scratch);
            if self.settle(at, &scratch[..pending], to_end) == 0 {
                return;
            }
        }
    }

    /// Logs of what is pending the whole lines, or all; how much. What the log refuses is lost.
    fn settle(&mut self, at: usize, said: &[u8], to_end: bool) -> usize {
        let mut entries = Vec::with_capacity(said.len() + 64);
        let taken = logs::entries(STREAMS[at], said, &logs::now(), to_end, &mut entries);
        if taken > 0 {
            let _ = self.log.write(&entries);
            if let Some(stream) = &mut self.streams[at] {
                stream.taken = stream.end.min(stream.taken + taken as u64);
            }
            self.mark(at);
        }
        taken
    }

    /// Notes in both journals how long the log is, whoever wrote to it; in that one's first, for what it says of the
    /// log must be known with what it says of itself.
    fn mark(&mut self, writer: usize) {
        let extent = self.log.extent();
        for at in [writer, 1 - writer] {
            step();
            if let Some(stream) = &mut self.streams[at]
                && stream.mark(extent).is_ok()
            {
                step();
                stream.free();
            }
        }
    }
}

/// The journal of one stream.
struct Stream {
    file: File,
    marked: (u64, u64),
    /// Up to where it is in the log.
    taken: u64,
    /// Up to where its room was given back.
    freed: u64,
    end: u64,
}

impl Stream {
    /// Opens one that is there or shall be made.
    fn open(path: &Path, make: bool) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(make).truncate(false).mode(0o600).open(path)?;
        let mut head = [[0; 8]; HEAD as usize / 8];
        let end = file.metadata()?.len();
        if end >= HEAD {
            file.read_exact_at(head.as_flattened_mut(), 0)?;
        }
        let ([inode, length, taken], end) = (head.map(u64::from_le_bytes), end.max(HEAD));
        let stream = Self { file, marked: (inode, length), taken: taken.clamp(HEAD, end), freed: PAGE, end };
        if end == HEAD {
            stream.punch(PAGE, PAGE)?; // where no room can be given back, no journal
        }
        Ok(stream)
    }

    fn mark(&mut self, log: (u64, u64)) -> io::Result<()> {
        self.marked = log;
        self.file.write_all_at([log.0, log.1, self.taken].map(u64::to_le_bytes).as_flattened(), 0)
    }

    /// Moves what the pipe holds and reads it.
    fn splice(&mut self, pipe: &File, room: &mut [u8]) -> Result<usize, Errno> {
        let (mut end, flags) = (self.end, SpliceFlags::NONBLOCK);
        let moved = rustix::pipe::splice(pipe, None, &self.file, Some(&mut end), room.len(), flags)?;
        step();
        let read = self.file.read_exact_at(&mut room[..moved], self.end);
        self.end += moved as u64;
        read.map_err(|_| Errno::IO)?;
        Ok(moved)
    }

    /// Adds all of `chunk` or nothing.
    fn append(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.end).inspect_err(|_| drop(self.file.set_len(self.end)))?;
        self.end += chunk.len() as u64;
        Ok(())
    }

    /// Gives back the pages of what is in the log, several at a time.
    fn free(&mut self) {
        let taken = self.taken / PAGE * PAGE;
        if taken >= self.freed + SLACK && self.punch(self.freed, taken - self.freed).is_ok() {
            self.freed = taken;
        }
    }

    fn punch(&self, from: u64, length: u64) -> io::Result<()> {
        Ok(fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, length)?)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io::Write,
        os::{
            fd::OwnedFd,
            unix::{fs::MetadataExt, net::UnixStream},
        },
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    use proptest::{collection::vec, prelude::*};
    use rustix::mount::{MountFlags, UnmountFlags};

    use super::*;

    thread_local! {
        /// Steps until this helper is killed.
        static FUSE: Cell<Option<u32>> = const { Cell::new(None) };
    }

    struct Killed;
    /// After how many steps, and how much of 255 of a write to the log under way is done.
    type Kill = (u32, u64);

    /// Dies here, with all that is in memory, when it is time.
    pub fn step() {
        match FUSE.get() {
            Some(0) => resume_unwind(Box::new(Killed)),
            fuse => FUSE.set(fuse.map(|left| left - 1)),
        }
    }

    /// A container's side, what it said, and the directories.
    struct Bench {
        dir: tempfile::TempDir,
        ends: [(File, File); 2],
        said: [Vec<u8>; 2],
        scratch: Vec<u8>,
        rotated: usize,
    }

    impl Bench {
        fn new() -> Self {
            Self::with(|| {
                let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
                (reader.into(), writer.into())
            })
        }

        fn with(ends: impl Fn() -> (File, File)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("run")).unwrap();
            let said = [vec![], vec![]];
            Self { dir, ends: [ends(), ends()], said, scratch: vec![0; SCRATCH], rotated: 0 }
        }

        fn run(&self) -> PathBuf {
            self.dir.path().join("run")
        }

        fn log(&self) -> PathBuf {
            self.dir.path().join("logs/log")
        }

        fn helper(&self) -> Journal {
            Journal::new(&self.run(), &self.log())
        }

        fn say(&mut self, at: usize, words: &[u8]) {
            self.ends[at].1.write_all(words).unwrap();
            self.said[at].extend_from_slice(words);
        }

        fn pump(&mut self, helper: &mut Journal) {
            for at in 0..2 {
                while !helper.pump(at, &self.ends[at].0, &mut self.scratch).unwrap().is_empty() {}
            }
        }

        /// Helpers that come, take what there is, do `work` and may be killed at it, until one lives.
        fn live(&mut self, helper: &mut Journal, kills: &mut Vec<Kill>, work: impl Fn(&mut Journal, &mut [u8])) {
            let mut first = true;
            loop {
                let kill = kills.pop();
                FUSE.set(kill.map(|(steps, _)| steps));
                let life = || {
                    if !std::mem::take(&mut first) {
                        *helper = self.helper();
                        helper.recover(&mut self.scratch);
                    }
                    self.pump(helper);
                    work(helper, &mut self.scratch);
                };
                let end = catch_unwind(AssertUnwindSafe(life));
                FUSE.set(None);
                match (end, kill) {
                    (Ok(()), _) => return,
                    (Err(why), Some((_, part))) if why.is::<Killed>() => self.tear(part),
                    (Err(why), _) => resume_unwind(why),
                }
            }
        }

        fn put_aside(&mut self) {
            self.rotated += 1;
            let _ = fs::rename(self.log(), self.log().with_extension(self.rotated.to_string()));
        }

        /// A kill in the middle of a write to the log: leaves `part` of 255 of what was not marked yet.
        fn tear(&self, part: u64) {
            let Ok(log) = File::options().write(true).open(self.log()) else { return };
            let (inode, length) = log.metadata().map(|m| (m.ino(), m.len())).unwrap();
            let streams = (0..2).filter_map(|at| Stream::open(&self.helper().path(at), false).ok());
            let marked = streams.filter(|s| s.marked.0 == inode).map(|s| s.marked.1).max();
            let marked = marked.unwrap_or(length).min(length);
            log.set_len(marked + (length - marked) * part / 255).unwrap();
        }

        /// What the logs hold of each stream.
        fn logged(&self) -> [Vec<u8>; 2] {
            let mut logged = [vec![], vec![]];
            let older = (1..=self.rotated).map(|n| self.log().with_extension(n.to_string()));
            for file in older.chain([self.log()]) {
                let text = fs::read(file).unwrap_or_default();
                for entry in text.split_inclusive(|b| *b == b'\n') {
                    let mut fields = entry.splitn(4, |b| *b == b' ');
                    let mut next = || fields.next().expect("a whole entry");
                    let (_, stream, tag, content) = (next(), next(), next(), next());
                    let at = STREAMS.iter().position(|name| name.as_bytes() == stream).expect("a stream");
                    let whole = if tag == b"F" { content.len() } else { content.len() - 1 };
                    logged[at].extend_from_slice(&content[..whole]);
                }
            }
            logged
        }

        fn room(&self) -> u64 {
            let files = fs::read_dir(self.run()).unwrap().flatten();
            files.map(|file| file.metadata().unwrap().blocks() * 512).sum()
        }
    }

    #[derive(Clone, Debug)]
    enum Act {
        Say(usize, Vec<u8>),
        Rotate,
    }

    fn act() -> impl Strategy<Value = Act> {
        let byte = prop_oneof![9 => any::<u8>(), 1 => Just(b'\n')];
        let words =
            prop_oneof![4 => vec(byte.clone(), 0..60), 1 => vec(byte, 0..50_000), 1 => vec(Just(b'x'), 0..50_000)];
        prop_oneof![9 => (0..2usize, words).prop_map(|(at, words)| Act::Say(at, words)), 1 => Just(Act::Rotate)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_kill_at_any_step_loses_and_repeats_nothing(
            acts in vec(act(), 1..16),
            mut kills in vec((0..12u32, 0..=255u64), 0..24),
        ) {
            let mut bench = Bench::new();
            let mut helper = bench.helper();
            for act in acts {
                match act {
                    Act::Say(at, words) => {
                        bench.say(at, &words);
                        bench.live(&mut helper, &mut kills, |_, _| ());
                    }
                    Act::Rotate => {
                        bench.put_aside();
                        bench.live(&mut helper, &mut kills, |helper, _| helper.reopen_log().unwrap());
                    }
                }
                prop_assert!(bench.room() <= 2 * (SLACK + 6 * PAGE + SCRATCH as u64));
            }
            bench.live(&mut helper, &mut kills, |helper, scratch| helper.finish(scratch));
            prop_assert_eq!(bench.room(), 0);
            let logged = bench.logged();
            for (said, logged) in bench.said.iter().zip(logged) {
                let same = said.iter().zip(&logged).take_while(|(a, b)| a == b).count();
                prop_assert!(*said == logged, "{} bytes became {}, the first {same} alike", said.len(), logged.len());
            }
        }
    }

    #[test]
    fn a_line_s_beginning_waits_for_its_end_in_the_journal() {
        let mut bench = Bench::new();
        let mut helper = bench.helper();
        bench.say(0, b"one\ntw");
        bench.pump(&mut helper);
        assert_eq!(bench.logged()[0], b"one\n");
        let mut helper = bench.helper();
        helper.recover(&mut bench.scratch);
        bench.say(0, b"o\n");
        bench.pump(&mut helper);
        assert!(fs::read_to_string(bench.log()).unwrap().ends_with("stdout F two\n"));
    }

    #[test]
    fn what_cannot_be_spliced_is_read() {
        let mut bench = Bench::with(|| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (OwnedFd::from(ours).into(), OwnedFd::from(theirs).into())
        });
        let mut helper = bench.helper();
        bench.say(0, b"$ ");
        bench.pump(&mut helper);
        assert_eq!(bench.logged()[0], b"", "a prompt is no line yet");
        let mut helper = bench.helper();
        helper.recover(&mut bench.scratch);
        bench.say(0, b"ls\n");
        bench.pump(&mut helper);
        assert!(fs::read_to_string(bench.log()).unwrap().ends_with("stdout F $ ls\n"));
    }

    /// A filesystem of so many KiB.
    struct Small(PathBuf);

    impl Small {
        fn mount(dir: PathBuf, kib: usize) -> Self {
            fs::create_dir_all(&dir).unwrap();
            let options = std::ffi::CString::new(format!("size={kib}k")).unwrap();
            rustix::mount::mount("test", &dir, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
            Self(dir)
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            rustix::mount::unmount(&self.0, UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn a_full_disk_gets_whole_entries_and_holds_nobody_up() {
        let mut bench = Bench::new();
        let small = Small::mount(bench.dir.path().join("logs"), 64);
        let mut helper = bench.helper();
        for _ in 0..100 {
            bench.say(0, &b"0123456789\n".repeat(500));
            bench.pump(&mut helper);
        }
        assert!(bench.room() <= SLACK + 6 * PAGE + SCRATCH as u64);
        let lines = bench.logged()[0].len() / 11;
        assert!((1..50_000).contains(&lines), "{lines}");
        assert!(bench.logged()[0].chunks(11).all(|line| line == b"0123456789\n"));
        drop((helper, small));
    }

    #[test]
    fn a_full_run_directory_costs_no_word() {
        let mut bench = Bench::new();
        let small = Small::mount(bench.run(), 64);
        let mut helper = bench.helper();
        for room in [true, false, true, false] {
            let ballast = bench.run().join("ballast");
            match room {
                true => drop(fs::remove_file(ballast)),
                false => drop(fs::write(ballast, [0; 64 << 10]).unwrap_err()),
            }
            for n in 0..20 {
                bench.say(0, format!("{n} {}\nno end", "x".repeat(3000)).as_bytes());
                bench.say(1, b"beside\n");
                bench.pump(&mut helper);
            }
        }
        helper.finish(&mut bench.scratch);
        assert!(bench.logged() == bench.said);
        drop((helper, small));
    }
}
