//! Kernel modules: each is loaded when something asks for one of its aliases, as udev and modprobe would. A device asks by
//! its modalias, a mount by `fs-KIND`, the kernel's cryptography by `crypto-NAME`; everything answers to its own name.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry},
    io,
    path::{Path, PathBuf},
    str::FromStr,
};

use glob::Pattern;
use rustix::{io::Errno, system::finit_module};

/// Where the root has them.
pub const MACHINE: &str = "/usr/lib/modules/rastos";
/// What a node asks for before its first container.
#[rustfmt::skip]
pub const NODE: &[&str] = &[
    "efivarfs", "fuse", "loop",
    // The network.
    "bridge", "br_netfilter", "veth", "vxlan", "tun", "wireguard", "tls",
    // The packet filter.
    "nf_tables", "nft_chain_nat", "nft_ct", "nft_nat", "nft_masq", "nft_redir", "nft_fib_inet", "nft_reject_inet",
    "nft_limit", "nft_log", "nft_numgen", "nft_hash", "nft_objref", "nf_conntrack_netlink",
    // Limits on traffic, the watchdog.
    "sch_htb", "sch_ingress", "softdog",
];
/// The names of those that the image's builder wants, whatever asks for them; a line each.
pub const CHOSEN: &str = "chosen";
/// The list of a directory's modules.
pub const INDEX: &str = "index";

/// A module, or what is known of them, could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("load kernel modules: {file}")]
pub struct Error {
    file: String,
    source: io::Error,
}

/// What an index says of a module: `NAME NEEDED,… ALIAS …`. A module stands behind those that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, which is its file's without `.ko`.
    pub name: String,
    /// The modules that must be there before it.
    pub needs: Vec<String>,
    /// What it answers to, as globs.
    pub aliases: Vec<Pattern>,
}

/// A line of an index that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not NAME NEEDED,… ALIAS …")]
pub struct BadLine(String);

impl FromStr for Module {
    type Err = BadLine;

    fn from_str(line: &str) -> Result<Self, BadLine> {
        let mut words = line.split(' ');
        let (Some(name), Some(needs)) = (words.next(), words.next()) else { return Err(BadLine(line.to_owned())) };
        let aliases = words.map(Pattern::new).collect::<Result<_, _>>().map_err(|_| BadLine(line.to_owned()))?;
        let needs = needs.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Self { name: name.to_owned(), needs, aliases })
    }
}

impl std::fmt::Display for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.name, self.needs.join(","))?;
        self.aliases.iter().try_for_each(|alias| write!(f, " {alias}"))
    }
}

/// The modules of a directory.
pub struct Modules {
    directory: PathBuf,
    known: Vec<Module>,
}

impl Modules {
    /// Reads the index of a directory.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let index = directory.join(INDEX);
        let text = fs::read_to_string(&index).map_err(failed(&index))?;
        let known = text.lines().map(str::parse).collect::<Result<_, BadLine>>();
        let known = known.map_err(|e| failed(&index)(io::Error::new(io::ErrorKind::InvalidData, e)))?;
        Ok(Self { directory: directory.to_owned(), known })
    }

    /// The names of those that the image's builder has chosen.
    pub fn chosen(&self) -> Result<Vec<String>, Error> {
        let file = self.directory.join(CHOSEN);
        Ok(fs::read_to_string(&file).map_err(failed(&file))?.lines().map(str::to_owned).collect())
    }

    /// Loads those that answer to one of these, and what they need. Nothing may answer: much is built into the kernel.
    /// Where one fails, the others are loaded all the same; the first failure is told.
    pub fn want<S: AsRef<str>>(&self, aliases: &[S]) -> Result<(), Error> {
        let mut first = Ok(());
        for module in wanted(&self.known, aliases) {
            first = first.and(self.load(module));
        }
        first
    }

    /// Loads what the devices of this machine ask for, until no new one has come up by that.
    pub fn want_for_devices(&self) -> Result<(), Error> {
        self.want_for(&buses(&self.known))
    }

    /// The same for the devices of these buses only.
    pub fn want_for(&self, buses: &BTreeSet<&str>) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        loop {
            let new: Vec<String> = devices(buses).into_iter().filter(|alias| seen.insert(alias.clone())).collect();
            if new.is_empty() {
                return Ok(());
            }
            self.want(&new)?;
        }
    }

    /// Loads one. One that is there already is fine, and so is one whose device is not.
    fn load(&self, module: &Module) -> Result<(), Error> {
        // The kernel would read and check all of it to say that it is there.
        if Path::new("/sys/module").join(&module.name).exists() {
            return Ok(());
        }
        let path = self.directory.join(format!("{}.ko", module.name));
        let file = fs::File::open(&path).map_err(failed(&path))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
            Err(errno) => Err(failed(&path)(errno.into())),
        }
    }
}

/// The modules that answer to one of the aliases, and those that they need, in the index's order.
fn wanted<'a, S: AsRef<str>>(known: &'a [Module], aliases: &[S]) -> Vec<&'a Module> {
    let plain = |name: &str| name.replace('-', "_");
    let answers = |module: &Module| {
        let named = aliases.iter().any(|alias| plain(alias.as_ref()) == module.name);
        named || module.aliases.iter().any(|glob| aliases.iter().any(|alias| glob.matches(alias.as_ref())))
    };
    let mut wanted = Vec::new();
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for module in known.iter().rev() {
        if needed.contains(&*module.name) || answers(module) {
            needed.extend(module.needs.iter().map(String::as_str));
            wanted.insert(0, module);
        }
    }
    wanted
}

/// What the devices of some buses or classes are.
fn devices(buses: &BTreeSet<&str>) -> Vec<String> {
    let entries = |path: String| fs::read_dir(path).into_iter().flatten().flatten();
    let modalias = |device: DirEntry| fs::read_to_string(device.path().join("modalias")).ok();
    let of = |bus| entries(format!("/sys/bus/{bus}/devices")).chain(entries(format!("/sys/class/{bus}")));
    let found = buses.iter().flat_map(of).filter_map(modalias);
    found.map(|alias| alias.trim_end().to_owned()).collect()
}

/// The buses that aliases begin with: `pci:v…`, `acpi*:…`.
fn buses(known: &[Module]) -> BTreeSet<&str> {
    let aliases = known.iter().flat_map(|module| &module.aliases);
    aliases.filter_map(|alias| alias.as_str().split_once(':')).map(|(bus, _)| bus.trim_end_matches('*')).collect()
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = file.display().to_string();
    move |source| Error { file, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
virtio 
scsi_mod 
sd_mod scsi_mod scsi:t-0x00*
virtio_scsi scsi_mod,virtio virtio:d00000008v*
button  acpi*:PNP0C0C:*
overlay  fs-overlay
dm_verity ";

    fn known() -> Vec<Module> {
        INDEX.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn names(aliases: &[&str]) -> Vec<String> {
        wanted(&known(), aliases).iter().map(|module| module.name.clone()).collect()
    }

    #[test]
    fn an_alias_brings_its_module_and_what_that_needs() {
        assert_eq!(names(&["virtio:d00000008v00001AF4"]), ["virtio", "scsi_mod", "virtio_scsi"]);
        assert_eq!(names(&["scsi:t-0x00"]), ["scsi_mod", "sd_mod"]);
        assert_eq!(names(&["fs-overlay", "acpi:PNP0C0C:"]), ["button", "overlay"]);
        assert_eq!(names(&["dm-verity"]), ["dm_verity"]);
        assert_eq!(names(&["virtio:d00000001v00001AF4", "fs-over", "verity", ""]), [""; 0]);
    }

    #[test]
    fn an_index_reads_back() {
        let written: Vec<String> = known().iter().map(Module::to_string).collect();
        assert_eq!(written.join("\n"), INDEX);
        assert!("alone".parse::<Module>().is_err());
        assert!("a b [".parse::<Module>().is_err());
    }

    #[test]
    fn the_buses_are_those_of_the_aliases() {
        assert_eq!(buses(&known()), BTreeSet::from(["acpi", "scsi", "virtio"]));
    }
}
