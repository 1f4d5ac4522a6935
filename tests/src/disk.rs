//! A disk with a write cache of its own, as real ones have: of what nobody asked it to flush, a power cut loses some, tears
//! some and keeps some. qemu speaks to it by NBD (the network block device's protocol, fixed newstyle).

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::{
        fs::FileExt as _,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use crate::Dice;

/// What is written whole or not at all.
const SECTOR: u64 = 512;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION: u64 = 0x4948_4156_454f_5054;
const REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const ANSWER: u32 = 0x6744_6698;

/// A handshake of the kind that has options.
const NEWSTYLE: u16 = 1;
/// The option that asks for the disk and ends the handshake.
const GO: u32 = 7;
const ACK: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = (1 << 31) + 1;
/// The disk can be asked to flush. It cannot write past its cache: qemu flushes instead.
const CAN_FLUSH: u16 = 1 | 4;

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const INVALID: u32 = 22;

/// A disk that is being used by a machine.
pub struct Disk {
    socket: PathBuf,
    left: Arc<AtomicU64>,
    server: JoinHandle<Cache>,
}

impl Disk {
    /// Lets one machine use what a file holds; the socket's directory must be there.
    pub fn serve(file: &Path, socket: PathBuf) -> Self {
        let listener = UnixListener::bind(&socket).expect("a socket");
        let file = File::options().read(true).write(true).open(file).expect("the disk's file");
        let left = Arc::new(AtomicU64::new(u64::MAX));
        let mut cache = Cache { file, writes: Vec::new(), left: left.clone() };
        let server = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("qemu");
            // However the connection ends, the machine is off.
            let _off = handshake(&stream, &cache).and_then(|()| cache.answer(&stream));
            cache
        });
        Self { socket, left, server }
    }

    /// Where qemu finds it.
    pub fn url(&self) -> PathBuf {
        format!("nbd+unix:///?socket={}", self.socket.display()).into()
    }

    /// Lets the power fail with so many writes from now: that one and what comes after it are not answered any more.
    pub fn fail_after(&self, writes: u64) {
        self.left.store(writes.max(1), Relaxed);
    }

    /// Whether its power has failed.
    pub fn failed(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// When its machine has lost its power: leaves in the file what such a disk may hold then. Tells of how many writes
    /// that had not been flushed not everything is left.
    pub fn lose_power(self, dice: &mut Dice) -> usize {
        let cache = self.server.join().expect("the disk's server");
        let _ended = std::fs::remove_file(&self.socket);
        let mut lost = 0;
        for (at, bytes) in &cache.writes {
            let sectors = bytes.len() as u64 / SECTOR;
            let kept = match dice.below(3) {
                0 => 0,
                1 => dice.below(sectors),
                _ => sectors,
            };
            lost += usize::from(kept < sectors);
            cache.file.write_all_at(&bytes[..(kept * SECTOR) as usize], *at).expect("the disk's file takes it");
        }
        lost
    }
}

/// What was written since the last flush, in its order, before the file.
struct Cache {
    file: File,
    writes: Vec<(u64, Vec<u8>)>,
    left: Arc<AtomicU64>,
}

impl Cache {
    fn answer(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        loop {
            let (magic, _flags, kind) = (u32::from_be_bytes(get(stream)?), get::<2>(stream)?, get(stream)?);
            let (handle, at, length) = (get::<8>(stream)?, u64::from_be_bytes(get(stream)?), get(stream)?);
            assert_eq!(magic, REQUEST);
            let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
            let error = match u16::from_be_bytes(kind) {
                READ => self.read(at, &mut bytes)?,
                WRITE => {
                    stream.read_exact(&mut bytes)?;
                    self.writes.push((at, std::mem::take(&mut bytes)));
                    if self.left.fetch_sub(1, Relaxed) == 1 {
                        return io::copy(&mut stream, &mut io::sink()).map(drop);
                    }
                    0
                }
                FLUSH => {
                    for (at, bytes) in self.writes.drain(..) {
                        self.file.write_all_at(&bytes, at)?;
                    }
                    0
                }
                _ => INVALID,
            };
            let answer = [&ANSWER.to_be_bytes()[..], &error.to_be_bytes(), &handle, &bytes].concat();
            stream.write_all(&answer)?;
        }
    }

    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<u32> {
        self.file.read_exact_at(into, at)?;
        let end = at + into.len() as u64;
        for (from, bytes) in &self.writes {
            let (first, last) = (at.max(*from), end.min(from + bytes.len() as u64));
            if first < last {
                into[(first - at) as usize..(last - at) as usize]
                    .copy_from_slice(&bytes[(first - from) as usize..(last - from) as usize]);
            }
        }
        Ok(0)
    }
}

fn handshake(mut stream: &UnixStream, cache: &Cache) -> io::Result<()> {
    stream.write_all(&[&MAGIC.to_be_bytes()[..], &OPTION.to_be_bytes(), &NEWSTYLE.to_be_bytes()].concat())?;
    let _flags: [u8; 4] = get(stream)?;
    loop {
        let (magic, option, length) = (u64::from_be_bytes(get(stream)?), get(stream)?, get(stream)?);
        assert_eq!(magic, OPTION);
        io::copy(&mut stream.take(u32::from_be_bytes(length).into()), &mut io::sink())?;
        let mut reply = |kind: u32, data: &[u8]| {
            let head = [&REPLY.to_be_bytes()[..], &option, &kind.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
            stream.write_all(&[&head.concat(), data].concat())
        };
        if u32::from_be_bytes(option) != GO {
            reply(UNSUPPORTED, &[])?;
            continue;
        }
        let size = cache.file.metadata()?.len();
        // Information of kind 0: the size, and what the disk can do.
        reply(INFO, &[&0u16.to_be_bytes()[..], &size.to_be_bytes(), &CAN_FLUSH.to_be_bytes()].concat())?;
        return reply(ACK, &[]);
    }
}

fn get<const N: usize>(mut stream: &UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_stays_and_the_rest_is_as_chance_will() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(64 * SECTOR).unwrap();
        let disk = Disk::serve(&path, dir.path().join("socket"));
        let mut qemu = UnixStream::connect(dir.path().join("socket")).unwrap();
        let _hello: [u8; 18] = get(&qemu).unwrap();
        qemu.write_all(&[&[0; 4][..], &OPTION.to_be_bytes(), &GO.to_be_bytes(), &[0; 4]].concat()).unwrap();
        let _information: [u8; 20 + 12 + 20] = get(&qemu).unwrap();
        let mut ask = |kind: u16, at: u64, length: u32, data: &[u8]| {
            let head = [&REQUEST.to_be_bytes()[..], &[0; 2], &kind.to_be_bytes(), &[7; 8], &at.to_be_bytes()];
            qemu.write_all(&[&head.concat()[..], &length.to_be_bytes(), data].concat()).unwrap();
            let mut answer = vec![0; 16 + if kind == READ { length as usize } else { 0 }];
            qemu.read_exact(&mut answer).unwrap();
            answer.split_off(16)
        };
        ask(WRITE, 0, 1024, &[1; 1024]);
        ask(FLUSH, 0, 0, &[]);
        for at in 2..64 {
            ask(WRITE, at * SECTOR, SECTOR as u32, &[2; SECTOR as usize]);
        }
        assert_eq!(ask(READ, 512, 1024, &[]), [[1; 512], [2; 512]].concat());
        drop(qemu);
        let lost = disk.lose_power(&mut Dice::seeded());
        let left = std::fs::read(&path).unwrap();
        assert_eq!(left[..1024], [1; 1024]);
        let kept = left[1024..].chunks(SECTOR as usize).filter(|sector| **sector == [2; SECTOR as usize]).count();
        assert_eq!(kept + lost, 62);
        assert!(kept > 0 && lost > 0);
    }
}
