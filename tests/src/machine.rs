//! A machine that boots rastOS's own image, in software emulation, and what it says on its console.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::pause;

/// The directory that `scripts/image` filled; `make test` names it in RAST_TEST_IMAGE.
pub fn image() -> PathBuf {
    std::env::var_os("RAST_TEST_IMAGE").expect("RAST_TEST_IMAGE is set by scripts/test").into()
}

/// A machine's parts, before it is switched on. Its network ends at this host: nothing passes on.
pub struct Parts {
    arguments: Vec<OsString>,
    memory: u32,
    network: String,
    disks: usize,
    restarts: bool,
}

impl Default for Parts {
    fn default() -> Self {
        let network = "user,id=net,restrict=on".to_owned();
        Self { arguments: Vec::new(), memory: 256, network, disks: 0, restarts: false }
    }
}

impl Parts {
    /// The kernel, the initrd and the root of an image, with further words on the kernel's command line.
    pub fn direct(image: &Path, words: &str) -> Self {
        let line = fs::read_to_string(image.join("cmdline")).expect("the image's command line");
        let kernel = Self::default().option("-kernel", image.join("kernel")).option("-initrd", image.join("initrd"));
        kernel.option("-append", format!("{line} {words}")).read_only(&image.join("root"), "raw")
    }

    /// A disk to boot from or to write on. `format` is qemu's: `raw` or `qcow2`.
    pub fn disk(self, file: &Path, format: &str) -> Self {
        self.drive(file, format, "", "")
    }

    /// A disk that the machine knows by its serial, as OpenStack's volumes are known.
    pub fn volume(self, file: &Path, serial: &str) -> Self {
        self.drive(file, "raw", "", &format!(",serial={serial}"))
    }

    /// A disk that nobody writes on.
    pub fn read_only(self, file: &Path, format: &str) -> Self {
        self.drive(file, format, ",readonly=on", "")
    }

    fn drive(mut self, file: &Path, format: &str, how: &str, device: &str) -> Self {
        let id = format!("disk{}", self.disks);
        self.disks += 1;
        let drive = format!("if=none,id={id},format={format},file={}{how}", file.display());
        self.option("-drive", drive).option("-device", format!("virtio-blk-pci,drive={id}{device}"))
    }

    /// Memory, in MiB.
    pub fn memory(mut self, mebibytes: u32) -> Self {
        self.memory = mebibytes;
        self
    }

    /// Makes a port of the machine reachable on this host's loopback.
    pub fn forward(mut self, host: u16, machine: u16) -> Self {
        self.network += &format!(",hostfwd=tcp:127.0.0.1:{host}-:{machine}");
        self
    }

    /// Makes a server on this host's loopback reachable from the machine, at 10.0.2.100.
    pub fn serve(mut self, machine: u16, host: u16) -> Self {
        self.network += &format!(",guestfwd=tcp:10.0.2.100:{machine}-cmd:socat - TCP:127.0.0.1:{host}");
        self
    }

    /// Makes a server on this host's loopback the cloud's metadata service.
    pub fn metadata(mut self, host: u16) -> Self {
        // The address must lie in the machine's own network.
        self.network += ",net=169.254.0.0/16,dhcpstart=169.254.0.15,host=169.254.0.2";
        self.network += &format!(",guestfwd=tcp:169.254.169.254:80-cmd:socat - TCP:127.0.0.1:{host}");
        self
    }

    /// A drive with these files, labelled.
    pub fn labelled(self, file: &Path, label: &str, files: &Path) -> Self {
        let mut made = Command::new("genisoimage");
        made.args(["-quiet", "-R", "-V", label, "-o"]).arg(file).arg(files);
        assert!(made.status().expect("genisoimage runs").success());
        self.read_only(file, "raw")
    }

    /// Lets the machine restart; otherwise a restart ends it.
    pub fn restarts(mut self) -> Self {
        self.restarts = true;
        self
    }

    /// Boots by UEFI instead of BIOS.
    pub fn uefi(self) -> Self {
        self.option("-bios", "/usr/share/ovmf/OVMF.fd")
    }

    /// One more option of qemu's.
    pub fn option(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.arguments.extend([name.into(), value.into()]);
        self
    }

    /// Switches the machine on.
    pub fn start(self) -> Machine {
        let directory = tempfile::Builder::new().prefix("rast-machine-").tempdir_in("/tmp").expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-M", "q35,smm=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-nodefaults"]);
        qemu.args(["-display", "none", "-m", &self.memory.to_string(), "-device", "virtio-rng-pci"]);
        qemu.args(["-netdev", &self.network, "-device", "virtio-net-pci,netdev=net,romfile="]);
        qemu.arg("-serial").arg(format!("file:{}", at("console").display()));
        qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", at("qmp").display()));
        if !self.restarts {
            qemu.arg("-no-reboot");
        }
        qemu.args(self.arguments).stdin(Stdio::null());
        let complaints = File::create(at("qemu")).expect("a file for qemu's complaints");
        let child = qemu.stdout(Stdio::null()).stderr(complaints).spawn().expect("qemu starts");
        Machine { directory, child, read: 0 }
    }
}

/// A machine that is switched on. Dropping it pulls the plug.
pub struct Machine {
    directory: TempDir,
    child: Child,
    read: usize,
}

/// How long a console may stay silent before its machine is given up.
const SILENCE: Duration = Duration::from_secs(180);

impl Machine {
    /// Waits until the console says something, after what was waited for last; gives the whole line.
    #[track_caller]
    pub fn says(&mut self, words: &str) -> String {
        let (mut length, mut since) = (0, Instant::now());
        loop {
            let ended = self.child.try_wait().expect("qemu can be waited for").is_some();
            let console = self.console();
            // A line counts when it is whole.
            let fresh = console.get(self.read..).unwrap_or_default();
            let whole = if ended { fresh.len() } else { fresh.rfind('\n').map_or(0, |end| end + 1) };
            let mut at = self.read;
            for line in fresh[..whole].split_inclusive('\n') {
                at += line.len();
                if line.contains(words) {
                    self.read = at;
                    return line.trim().to_owned();
                }
            }
            if console.len() > length {
                (length, since) = (console.len(), Instant::now());
            }
            let over = if ended { "ended" } else { "fell silent" };
            assert!(!ended && since.elapsed() < SILENCE, "the machine {over} before {words:?}:\n{}", self.last_words());
            pause();
        }
    }

    /// The console's next line, if it has been said.
    pub fn line(&mut self) -> Option<String> {
        let console = self.console();
        let (line, _) = console.get(self.read..)?.split_once('\n')?;
        self.read += line.len() + 1;
        Some(line.trim().to_owned())
    }

    /// Waits until the machine has switched itself off, or restarted where it may not.
    #[track_caller]
    pub fn ends(&mut self) {
        let (mut length, mut since) = (0, Instant::now());
        while self.child.try_wait().expect("qemu can be waited for").is_none() {
            let now = self.console().len();
            if now > length {
                (length, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < SILENCE, "the machine does not end:\n{}", self.last_words());
            pause();
        }
    }

    /// Everything that the console has said.
    pub fn console(&self) -> String {
        let bytes = fs::read(self.directory.path().join("console")).unwrap_or_default();
        // Character by character, so that places in it stay what they are while it grows.
        bytes.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect()
    }

    fn last_words(&self) -> String {
        let console = self.console();
        let complaints = fs::read_to_string(self.directory.path().join("qemu")).unwrap_or_default();
        let from = console.len().saturating_sub(6000);
        format!("{}\n{complaints}", &console[from..])
    }

    /// Presses the power button.
    pub fn press_power(&self) {
        self.command("system_powerdown");
    }

    /// Presses the reset button.
    pub fn reset(&self) {
        self.command("system_reset");
    }

    /// Carries out one of QMP's commands that take nothing.
    fn command(&self, name: &str) {
        let stream = UnixStream::connect(self.directory.path().join("qmp")).expect("qemu's control socket");
        let mut answers = BufReader::new(stream.try_clone().expect("a second handle")).lines();
        let mut answered = || answers.next().expect("an answer").expect("a line");
        answered();
        for command in ["qmp_capabilities", name] {
            writeln!(&stream, "{{\"execute\": \"{command}\"}}").expect("qemu listens");
            while !answered().contains("\"return\"") {}
        }
    }

    /// qemu's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Pulls the plug: nothing is written back.
    pub fn kill(&mut self) {
        // An error says that it has ended already.
        let _ended = self.child.kill();
        self.child.wait().expect("qemu ends");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
