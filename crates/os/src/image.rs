//! The image: Debian's cloud kernel, an initrd that only opens the root, a root that holds one program and what it
//! runs. Built as an ordinary user; the same inputs give the same bytes.

mod disk;
mod initrd;
mod kernel;
mod package;
mod root;
mod spec;
mod tool;
mod tree;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

pub use self::spec::{Image, Kernel, Spec};
use crate::{boot, modules, verity};

/// Why an image was not built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{doing} {}", file.display())]
    File {
        /// What was done to it.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A tool is missing.
    #[error("run {tool}: install the Debian package {package}")]
    Missing {
        /// The tool.
        tool: &'static str,
        /// What brings it.
        package: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A tool refused.
    #[error("{0}: {1}")]
    Tool(&'static str, String),
    /// A package has not what it should have.
    #[error("the package {0} has no {1}")]
    Lacks(String, String),
    /// A program needs a loader and libraries, which the image has not.
    #[error("{} is not statically linked; `make image` builds one that is", .0.display())]
    Dynamic(PathBuf),
    /// The root has outgrown its slot.
    #[error("the root takes {size} bytes and a slot has {slot}; raise spec.slotSize")]
    Large {
        /// The root's size.
        size: u64,
        /// The slot's.
        slot: u64,
    },
    /// A module is neither in the kernel package nor built into the kernel.
    #[error("the kernel package has no module {0}")]
    NoModule(String),
}

/// Where a build finds and leaves things.
#[derive(Debug, Clone)]
pub struct Places {
    /// The program that becomes PID 1, unless the document names one.
    pub program: PathBuf,
    /// The initrd's program, unless the document names one.
    pub initrd: PathBuf,
    /// Packages are kept here.
    pub cache: PathBuf,
    /// The image goes here.
    pub output: PathBuf,
}

/// Builds an image; says what it made, and how large that is.
pub fn build(image: &Image, places: &Places) -> Result<Vec<(PathBuf, u64)>, Error> {
    let spec = &image.spec;
    let program = program(spec.program.as_ref().unwrap_or(&places.program))?;
    let handover = self::program(spec.initrd.as_ref().unwrap_or(&places.initrd))?;
    let (packages, kernel) = inputs(spec, &places.cache)?;
    create_dir(&places.output)?;
    let out = |name: &str| places.output.join(name);

    let initrd = initrd::archive(handover, kernel.modules(initrd::modules())?);
    write(&out("initrd"), &initrd)?;
    write(&out("kernel"), kernel.program())?;

    let chosen = spec.modules.iter().map(String::as_str);
    let mut modules = kernel.modules(root::modules().chain(chosen))?;
    modules.push((modules::CHOSEN.to_owned(), spec.modules.join("\n").into_bytes()));
    let mut tree = root::tree(&packages, program, modules)?;
    tree.add_data(boot::DIGESTS.trim_start_matches('/'), digests(&[("kernel", kernel.program()), ("initrd", &initrd)]));
    root::filesystem(&tree, &out("root"))?;
    let root = append_tree(&out("root"))?;
    let command_line = spec.command_line(&root);
    write(&out("cmdline"), command_line.as_bytes())?;

    let (kernel, initrd, root) = (&*out("kernel"), &*out("initrd"), &*out("root"));
    let parts = disk::Parts { kernel, initrd, root, command_line: &command_line, slot: spec.slot_size() };
    disk::raw(&parts, &packages, &out("disk.raw"))?;
    disk::qcow2(&out("disk.raw"), &out("disk.qcow2"))?;

    ["kernel", "initrd", "root", "cmdline", "disk.raw", "disk.qcow2"].into_iter().map(|name| sized(out(name))).collect()
}

/// Debian's part: the packages, and the kernel among them.
fn inputs(spec: &Spec, cache: &Path) -> Result<(package::Store, kernel::Kernel), Error> {
    let mut names: BTreeSet<&str> = root::packages().chain(disk::PACKAGES).collect();
    let named = match &spec.kernel.file {
        Some(_) => None,
        None => Some(package::behind(&spec.kernel.package)?),
    };
    names.extend(named.as_deref());
    let packages = package::Store::fetch(cache, &names)?;
    let file = match (&spec.kernel.file, &named) {
        (None, Some(named)) => packages.file(named)?,
        (Some(file), _) => file,
        (None, None) => packages.file(&spec.kernel.package)?,
    };
    let kernel = kernel::Kernel::read(file)?;
    Ok((packages, kernel))
}

/// A line for each file, as `sha256sum` has them.
fn digests(files: &[(&str, &[u8])]) -> String {
    files.iter().map(|(name, bytes)| format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)))).collect()
}

/// Appends a filesystem's hash tree to it.
fn append_tree(file: &Path) -> Result<verity::Root, Error> {
    let mut tree = Vec::new();
    let mut data = File::open(file).map_err(failed("open", file))?;
    let root = verity::tree(&mut data, &mut tree).map_err(failed("hash", file))?;
    let mut whole = File::options().append(true).open(file).map_err(failed("open", file))?;
    whole.set_len(root.blocks * verity::BLOCK as u64).map_err(failed("fill up", file))?;
    whole.write_all(&tree).map_err(failed("write", file))?;
    Ok(root)
}

/// Reads a program that needs nothing beside itself.
fn program(file: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(file).map_err(failed("read", file))?;
    if tree::needs_loader(&bytes) { Err(Error::Dynamic(file.to_owned())) } else { Ok(bytes) }
}

fn sized(file: PathBuf) -> Result<(PathBuf, u64), Error> {
    let size = fs::metadata(&file).map_err(failed("look at", &file))?.len();
    Ok((file, size))
}

fn create_dir(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(failed("create", directory))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(file, bytes).map_err(failed("write", file))
}

fn failed(doing: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Error {
    let file = file.to_owned();
    move |source| Error::File { doing, file, source }
}
