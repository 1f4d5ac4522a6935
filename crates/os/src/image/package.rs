//! Debian packages: fetched by apt as an ordinary user, kept, read without being installed.

use std::{
    fs,
    io::Read as _,
    path::{Component, Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use super::{
    Error, create_dir, failed,
    tool::Tool,
    tree::{Node, Tree},
};

const APT_GET: Tool = Tool("apt-get", "apt");
const APT_CACHE: Tool = Tool("apt-cache", "apt");
const DPKG_DEB: Tool = Tool("dpkg-deb", "dpkg");

/// Packages that have been fetched.
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the store in a directory, which it makes.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        create_dir(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// A package of the version that apt would install; fetched unless it is here already.
    pub fn fetch(&self, name: &str) -> Result<PathBuf, Error> {
        let printed = APT_GET.run(|c| c.args(["download", "-qq", "--print-uris", name]))?;
        let printed = String::from_utf8_lossy(&printed);
        // 'URI' FILE SIZE SHA256:DIGEST
        let mut words = printed.split_ascii_whitespace().skip(1);
        let (file, digest) = words.next().zip(words.nth(1)).ok_or_else(|| unknown(name, &printed))?;
        let digest = digest.strip_prefix("SHA256:").ok_or_else(|| unknown(name, &printed))?;
        let file = self.directory.join(Path::new(file).file_name().ok_or_else(|| unknown(name, &printed))?);
        if !is(&file, digest) {
            // apt checks the digest of what it fetches against the signed list.
            APT_GET.run(|c| c.args(["download", "-qq", name]).current_dir(&self.directory))?;
        }
        Ok(file)
    }

    /// The package that a package without files of its own stands for: the first it depends on, in that name's family.
    pub fn behind(&self, name: &str) -> Result<String, Error> {
        let shown = APT_CACHE.run(|c| c.args(["show", "--no-all-versions", name]))?;
        let shown = String::from_utf8_lossy(&shown);
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let first = depends.split([',', ' ']).next().unwrap_or_default();
        Ok(if first.starts_with("linux-image-") { first.to_owned() } else { name.to_owned() })
    }
}

fn unknown(name: &str, printed: &str) -> Error {
    Error::Tool("apt-get", format!("no word on where {name} is to be had: {printed:?}"))
}

fn is(file: &Path, digest: &str) -> bool {
    fs::read(file).is_ok_and(|bytes| hex::encode(Sha256::digest(bytes)) == digest)
}

/// The files and links of a package that are wanted, by their paths.
pub fn contents(package: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Tree, Error> {
    // Through a file: a pipe left unread would make dpkg-deb fail for a reason of ours.
    let archive = DPKG_DEB.run(|c| c.arg("--fsys-tarfile").arg(package))?;
    let mut tree = Tree::default();
    let mut archive = tar::Archive::new(archive.as_slice());
    for entry in archive.entries().map_err(failed("read", package))? {
        let mut entry = entry.map_err(failed("read", package))?;
        let path = entry.path().map_err(failed("read", package))?;
        let path: PathBuf = path.components().filter(|c| matches!(c, Component::Normal(_))).collect();
        if !wanted(&path) {
            continue;
        }
        let node = match entry.header().entry_type() {
            tar::EntryType::Regular => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(failed("read", package))?;
                Node::File { bytes, executable: entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0) }
            }
            tar::EntryType::Symlink => match entry.link_name().map_err(failed("read", package))? {
                Some(target) => Node::Link(target.into_owned()),
                None => continue,
            },
            _ => continue,
        };
        tree.add(path, node);
    }
    Ok(tree)
}

/// A package's name, from its file's.
pub fn name(package: &Path) -> String {
    package.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
