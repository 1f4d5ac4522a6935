//! The kernel and its modules, out of Debian's package.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Error, package, tree::Node};

/// A module's file, ready to be loaded in the order of such names.
pub type Numbered = (String, Vec<u8>);

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

    /// Modules and all they need, for the stages of a boot: each numbered after what it needs, and none in a stage
    /// when an earlier one has loaded it.
    pub fn modules<const N: usize>(&self, stages: [&[&str]; N]) -> Result<[Vec<Numbered>; N], Error> {
        let mut order = Vec::new();
        let mut staged = [const { Vec::new() }; N];
        for (wanted, staged) in stages.into_iter().zip(&mut staged) {
            let earlier = order.len();
            for name in wanted {
                self.visit(name, &mut order)?;
            }
            let modules = order[earlier..].iter().enumerate();
            staged.extend(modules.map(|(n, name)| (format!("{n:03}-{name}.ko"), self.modules[name].clone())));
        }
        Ok(staged)
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

/// The modules that a module names in its `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let names = module[at + FIELD.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(modules: &[(&str, &str)]) -> Kernel {
        let module = |needs: &str| format!("elf\0license=GPL\0depends={needs}\0name=x\0").into_bytes();
        let modules = modules.iter().map(|(name, needs)| ((*name).to_owned(), module(needs))).collect();
        Kernel { program: Vec::new(), modules, builtin: BTreeSet::from(["ext4".to_owned()]) }
    }

    #[test]
    fn a_module_comes_after_what_it_needs() {
        let kernel = kernel(&[("dm_verity", "dm-bufio,dm_mod"), ("dm_bufio", "dm_mod"), ("dm_mod", "")]);
        let stages = kernel.modules([&["dm-bufio"], &["dm-verity", "ext4"], &["dm-mod"]]).unwrap();
        let names = stages.map(|stage| stage.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
        assert_eq!(names, [vec!["000-dm_mod.ko", "001-dm_bufio.ko"], vec!["000-dm_verity.ko"], vec![]]);
    }

    #[test]
    fn a_module_that_does_not_exist_is_named() {
        assert_eq!(
            kernel(&[]).modules([&["nosuch"]]).unwrap_err().to_string(),
            "the kernel package has no module nosuch"
        );
    }
}
