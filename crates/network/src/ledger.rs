//! What is attached, on disk: one file per attachment, shared by every process of the instance.
//!
//! `lock` is held for the few microseconds of a change. It holds a counter of changes: a process that finds it as it
//! left it knows that its own view is still true, and reads nothing.
//!
//! Nothing is fsynced: a record has to outlive its writer, not the machine, for no sandbox outlives that either.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{
    Attachment, Error, Request, Result,
    addresses::{Addresses, Exhausted},
    ports,
};

/// A file of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for and given.
    pub attachment: Attachment,
    /// The pod's end of the link.
    pub interface: String,
}

/// The records of an instance.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    view: Mutex<View>,
}

/// What this process knows.
#[derive(Debug)]
struct View {
    lock: File,
    head: Head,
    addresses: Addresses,
    records: BTreeMap<String, Record>,
}

/// The content of the lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Changes made, by anyone.
    changes: u64,
    /// Where each range goes on.
    cursors: Vec<u64>,
}

impl Ledger {
    /// Opens or makes the ledger in `dir`.
    pub fn open(dir: &Path, ranges: &[IpNet]) -> Result<Self> {
        let doing = || Error::io(format!("open the ledger {}", dir.display()));
        fs::create_dir_all(dir.join("attachments")).map_err(doing())?;
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("lock"));
        let lock = lock.map_err(doing())?;
        // Differs from what any file says, so that the first look reads all.
        let head = Head { changes: u64::MAX, cursors: Vec::new() };
        let view = View { lock, head, addresses: Addresses::new(ranges), records: BTreeMap::new() };
        Ok(Self { dir: dir.to_owned(), view: Mutex::new(view) })
    }

    /// The ledger, true until the guard is dropped. Blocks while another process holds it.
    pub fn lock(&self) -> Result<Locked<'_>> {
        // A view left half changed by a panic differs from the file's counter, or is what the file says.
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        let doing = || Error::io(format!("read the ledger {}", self.dir.display()));
        flock(&view.lock, FlockOperation::LockExclusive).map_err(io::Error::from).map_err(doing())?;
        let mut locked = Locked { ledger: self, view };
        let head = locked.view.read_head().map_err(doing())?;
        if head != locked.view.head {
            locked.reload(head).map_err(doing())?;
        }
        Ok(locked)
    }

    /// Removes it all.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the ledger {}", self.dir.display()))(e))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join("attachments").join(format!("{id}.json"))
    }
}

/// The ledger while no other process can change it.
pub struct Locked<'a> {
    ledger: &'a Ledger,
    view: MutexGuard<'a, View>,
}

impl Locked<'_> {
    /// The records by sandbox.
    pub fn records(&self) -> &BTreeMap<String, Record> {
        &self.view.records
    }

    /// The record of a request, made now unless it is there: `(record, new)`.
    pub fn enter(&mut self, request: &Request, interface: &str, prefix: &str) -> Result<(Record, bool)> {
        if let Some(known) = self.view.records.get(&request.id) {
            if known.attachment.request == *request && known.interface == interface {
                return Ok((known.clone(), false));
            }
            return Err(Error::invalid(
                "id",
                format!("{} is attached already, otherwise; detach it first", request.id),
            ));
        }
        ports::check(&request.host_ports)?;
        ports::free(request, self.view.records.values().map(|record| &record.attachment.request))?;
        let view = self.view.deref_mut();
        let addresses = view.addresses.take().map_err(exhausted)?;
        let number = addresses.first().and_then(|ip| view.addresses.number(*ip)).unwrap_or_default();
        let link = format!("{prefix}{}", digits(number));
        let attachment = Attachment { request: request.clone(), addresses, link };
        let record = Record { attachment, interface: interface.to_owned() };
        if let Err(e) = self.write(&record) {
            record.attachment.addresses.iter().for_each(|ip| self.view.addresses.free(*ip));
            return Err(Error::io(format!("record the attachment of {}", request.id))(e));
        }
        self.view.records.insert(request.id.clone(), record.clone());
        Ok((record, true))
    }

    /// Whether there is an address for one more.
    pub fn room(&mut self) -> Result<()> {
        let mut addresses = self.view.addresses.clone();
        addresses.take().map(drop).map_err(exhausted)
    }

    /// Forgets a record and frees its addresses; absent is done.
    pub fn forget(&mut self, id: &str) -> Result<()> {
        let Some(record) = self.view.records.get(id) else { return Ok(()) };
        let addresses = record.attachment.addresses.clone();
        let doing = || Error::io(format!("forget the attachment of {id}"));
        self.count().map_err(doing())?;
        match fs::remove_file(self.ledger.file(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(doing()(e)),
            _ => {}
        }
        self.view.records.remove(id);
        addresses.into_iter().for_each(|ip| self.view.addresses.free(ip));
        Ok(())
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.count()?;
        let path = self.ledger.file(&record.attachment.request.id);
        let staged = path.with_extension("new");
        fs::write(&staged, serde_json::to_vec(record)?)?;
        fs::rename(staged, path)
    }

    /// Counts a change, before it is made: dying in between costs others a reading, not the truth.
    fn count(&mut self) -> io::Result<()> {
        let view = self.view.deref_mut();
        view.head = Head { changes: view.head.changes.wrapping_add(1), cursors: view.addresses.cursors() };
        let text = serde_json::to_vec(&view.head)?;
        view.lock.seek(SeekFrom::Start(0))?;
        view.lock.write_all(&text)?;
        view.lock.set_len(text.len() as u64)
    }

    /// Reads what others wrote. A file that is no record is removed: its writer, or the machine, died over it.
    fn reload(&mut self, head: Head) -> io::Result<()> {
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(self.ledger.dir.join("attachments"))? {
            let path = entry?.path();
            let record = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
            match record {
                Some(record) if path == self.ledger.file(&record.attachment.request.id) => {
                    records.insert(record.attachment.request.id.clone(), record);
                }
                _ => {
                    tracing::warn!(path = %path.display(), "not a record of an attachment: removed");
                    fs::remove_file(&path)?;
                }
            }
        }
        let view = self.view.deref_mut();
        view.records.values().flat_map(|r| &r.attachment.addresses).for_each(|ip| view.addresses.free(*ip));
        for ip in records.values().flat_map(|record| &record.attachment.addresses) {
            view.addresses.occupy(*ip);
        }
        view.addresses.resume(&head.cursors);
        view.records = records;
        view.head = head;
        Ok(())
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let _ = flock(&self.view.deref().lock, FlockOperation::Unlock);
    }
}

impl View {
    fn read_head(&mut self) -> io::Result<Head> {
        let mut text = String::new();
        self.lock.seek(SeekFrom::Start(0))?;
        self.lock.read_to_string(&mut text)?;
        // New, or cut short by a crash: nothing anyone knows is trusted, all is read again.
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn exhausted(full: Exhausted) -> Error {
    let range = full.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Error::Exhausted { range, used: full.used }
}

/// Five digits of base 32.
fn digits(number: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    (0..5).rev().map(|place| char::from(DIGITS[(number >> (5 * place)) as usize & 31])).collect()
}
