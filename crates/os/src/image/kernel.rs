//! The kernel and its modules, out of Debian's package.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use glob::Pattern;

use super::{Error, package, tree::Node};
use crate::modules::{self, Module};

/// Files of a directory: modules, and the index that tells what each is for.
pub type Files = Vec<(String, Vec<u8>)>;

/// A kernel package.
pub struct Kernel {
    program: Vec<u8>,
    modules: BTreeMap<String, Vec<u8>>,
    builtin: BTreeSet<String>,
}

impl Kernel {
    /// Reads a kernel package.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let contents = package::contents(file, |path| {
            path.starts_with("boot") || path.starts_with("lib/modules") || path.starts_with("usr/lib/modules")
        })?;
        let mut kernel = Self { program: Vec::new(), modules: BTreeMap::new(), builtin: BTreeSet::new() };
        for (path, node) in contents.iter() {
            let Node::File { bytes, .. } = node else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.starts_with("boot") && name.starts_with("vmlinuz-") {
                kernel.program = bytes.clone();
            } else if name == "modules.builtin" {
                let text = String::from_utf8_lossy(bytes);
                kernel.builtin = text.lines().map(|line| plain(Path::new(line))).collect();
            } else if path.extension().is_some_and(|e| e == "ko") {
                kernel.modules.insert(plain(path), bytes.clone());
            }
        }
        match kernel.program.is_empty() {
            true => Err(Error::Lacks(package::name(file), "boot/vmlinuz-*".into())),
            false => Ok(kernel),
        }
    }

    /// The kernel itself.
    pub fn program(&self) -> &[u8] {
        &self.program
    }

    /// Modules and all they need, with an index in which each stands behind what it needs.
    pub fn modules<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Result<Files, Error> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(name, &mut order)?;
        }
        let index: String = order.iter().map(|name| format!("{}\n", entry(name, &self.modules[name]))).collect();
        let files = order.iter().map(|name| (format!("{name}.ko"), self.modules[name].clone()));
        Ok(files.chain([(modules::INDEX.to_owned(), index.into_bytes())]).collect())
    }

    fn visit(&self, name: &str, order: &mut Vec<String>) -> Result<(), Error> {
        let name = name.replace('-', "_");
        if order.contains(&name) || self.builtin.contains(&name) {
            return Ok(());
        }
        let module = self.modules.get(&name).ok_or_else(|| Error::NoModule(name.clone()))?;
        for needed in needs(module) {
            self.visit(&needed, order)?;
        }
        order.push(name);
        Ok(())
    }
}

/// A module's name: its file's, with underscores.
fn plain(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// What an index says of a module.
fn entry(name: &str, module: &[u8]) -> Module {
    // One that no device or mount could have is left out.
    let aliases = told(module, b"alias=").filter_map(|alias| Pattern::new(&alias).ok());
    Module { name: name.to_owned(), needs: needs(module), aliases: aliases.collect() }
}

/// The modules that a module needs.
fn needs(module: &[u8]) -> Vec<String> {
    let names = told(module, b"depends=").next().unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// What a module says of itself in its `.modinfo`, where words of the form `field=value` stand between zero bytes.
fn told<'a>(module: &'a [u8], field: &'static [u8]) -> impl Iterator<Item = String> + 'a {
    let words = module.split(|byte| *byte == 0).filter_map(move |word| word.strip_prefix(field));
    words.map(|word| String::from_utf8_lossy(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(modules: &[(&str, &str)]) -> Kernel {
        let module = |needs: &str| format!("elf\0license=GPL\0alias=fs-x\0depends={needs}\0name=x\0").into_bytes();
        let modules = modules.iter().map(|(name, needs)| ((*name).to_owned(), module(needs))).collect();
        Kernel { program: Vec::new(), modules, builtin: BTreeSet::from(["ext4".to_owned()]) }
    }

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let kernel = kernel(&[("dm_verity", "dm-bufio,dm_mod"), ("dm_bufio", "dm_mod"), ("dm_mod", "")]);
        let files = kernel.modules(["dm-verity", "ext4"]).unwrap();
        let (names, files): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        assert_eq!(names, ["dm_mod.ko", "dm_bufio.ko", "dm_verity.ko", "index"]);
        let index = "dm_mod  fs-x\ndm_bufio dm_mod fs-x\ndm_verity dm_bufio,dm_mod fs-x\n";
        assert_eq!(String::from_utf8_lossy(&files[3]), index);
    }

    #[test]
    fn a_module_that_does_not_exist_is_named() {
        assert_eq!(kernel(&[]).modules(["nosuch"]).unwrap_err().to_string(), "the kernel package has no module nosuch");
    }
}
