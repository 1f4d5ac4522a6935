//! What the child says of itself, as services tell systemd (sd_notify(3)): `READY=1`, in a datagram to the socket that
//! `NOTIFY_SOCKET` names.

use std::{
    fs, io,
    net::Shutdown,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

/// No container sees the host's /run.
const AT: &str = "/run/rastos.notify";
const LIMIT: usize = 4096;

/// The socket of one child: what an earlier one has said is not taken for its word.
pub struct Ear(Arc<UnixDatagram>);

impl Ear {
    /// Listens, and tells a program that is about to be started where.
    pub fn open(command: &mut Command) -> io::Result<Self> {
        Self::open_at(Path::new(AT), command)
    }

    fn open_at(at: &Path, command: &mut Command) -> io::Result<Self> {
        match fs::remove_file(at) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = UnixDatagram::bind(at)?;
        fs::set_permissions(at, fs::Permissions::from_mode(0o600))?;
        command.env("NOTIFY_SOCKET", at);
        Ok(Self(Arc::new(socket)))
    }

    /// Calls `ready` when the child says that it is, until this is closed.
    pub fn hear(&self, ready: impl Fn() + Send + 'static) {
        let socket = self.0.clone();
        thread::spawn(move || {
            let mut words = [0; LIMIT];
            while let Ok(length @ 1..) = socket.recv(&mut words) {
                if words[..length].split(|byte| *byte == b'\n').any(|word| word == b"READY=1") {
                    ready();
                }
            }
        });
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _nobody_hears = self.0.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn readiness_is_heard_until_the_ear_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("notify");
        let mut command = Command::new("true");
        let (heard, hears) = channel();
        let ear = Ear::open_at(&at, &mut command).unwrap();
        ear.hear(move || heard.send(()).unwrap());
        assert!(command.get_envs().any(|(name, value)| name == "NOTIFY_SOCKET" && value == Some(at.as_os_str())));
        let child = UnixDatagram::unbound().unwrap();
        for words in ["STATUS=READY=1", "STATUS=starting\nREADY=1\n"] {
            child.send_to(words.as_bytes(), &at).unwrap();
        }
        hears.recv().unwrap();
        drop(ear);
        assert!(hears.recv().is_err(), "once, and the thread has ended");
        Ear::open_at(&at, &mut command).unwrap();
    }
}
