//! Debian packages: fetched by apt as an ordinary user, kept, read without being installed.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Packages that have been fetched, by their names.
pub struct Store(BTreeMap<String, PathBuf>);

impl Store {
    /// Packages of the versions that apt would install; fetched into the directory unless they are there already.
    pub fn fetch(directory: &Path, names: &BTreeSet<&str>) -> Result<Self, Error> {
        create_dir(directory)?;
        let printed = APT_GET.run(|c| c.args(["download", "-qq", "--print-uris"]).args(names))?;
        let printed = String::from_utf8_lossy(&printed);
        let files: BTreeMap<_, _> = printed.lines().filter_map(offered).collect();
        let mut store = BTreeMap::new();
        let mut absent = Vec::new();
        for name in names {
            let (file, digest) = files.get(name).ok_or_else(|| unknown(name, &printed))?;
            if !is(&directory.join(file), digest) {
                absent.push((*name, *file));
            }
            store.insert((*name).to_owned(), directory.join(file));
        }
        if !absent.is_empty() {
            // apt checks the digests of what it fetches; another build may be at it in the same directory.
            let work = tempfile::tempdir_in(directory).map_err(failed("create a directory in", directory))?;
            APT_GET
                .run(|c| c.args(["download", "-qq"]).args(absent.iter().map(|(name, _)| name)).current_dir(&work))?;
            for (_, file) in absent {
                let to = directory.join(file);
                fs::rename(work.path().join(file), &to).map_err(failed("write", &to))?;
            }
        }
        Ok(Self(store))
    }

    /// A package's file.
    pub fn file(&self, name: &str) -> Result<&Path, Error> {
        self.0.get(name).map(PathBuf::as_path).ok_or_else(|| unknown(name, ""))
    }
}

/// The package that a package without files of its own stands for: the kernel that it depends on.
pub fn behind(name: &str) -> Result<String, Error> {
    let shown = APT_CACHE.run(|c| c.args(["show", "--no-all-versions", name]))?;
    let shown = String::from_utf8_lossy(&shown);
    let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
    let first = depends.split([',', ' ']).next().unwrap_or_default();
    Ok(if first.starts_with("linux-image-") { first.to_owned() } else { name.to_owned() })
}

/// `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:DIGEST`: name, file, digest.
fn offered(line: &str) -> Option<(&str, (&str, &str))> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let file = words.next().filter(|file| !file.contains('/'))?;
    let digest = words.nth(1)?.strip_prefix("SHA256:")?;
    Some((file.split('_').next()?, (file, digest)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_offers_is_read() {
        let line = "'http://x/libgmp10_6.2.1_amd64.deb' libgmp10_2%3a6.2.1_amd64.deb 562588 SHA256:abc";
        assert_eq!(offered(line), Some(("libgmp10", ("libgmp10_2%3a6.2.1_amd64.deb", "abc"))));
        assert_eq!(offered("'u' ../x_1_amd64.deb 5 SHA256:abc"), None);
        assert_eq!(offered("Err: no network"), None);
    }
}
