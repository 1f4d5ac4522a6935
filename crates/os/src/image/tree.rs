//! A tree of files in memory, before it becomes a filesystem or an archive.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// One entry of a tree. Everything belongs to root; nobody may write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A file.
    File {
        /// What it holds.
        bytes: Vec<u8>,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symbolic link.
    Link(PathBuf),
    /// A directory that something else is mounted on.
    Directory,
}

/// Entries by their paths, which are relative and have no dots. Parents come before their children.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// Adds an entry and its parents.
    pub fn add(&mut self, path: impl Into<PathBuf>, node: Node) {
        let path = path.into();
        for parent in path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()) {
            self.0.entry(parent.to_owned()).or_insert(Node::Directory);
        }
        self.0.insert(path, node);
    }

    /// Adds a file that is only read.
    pub fn add_data(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.add(path, Node::File { bytes: bytes.into(), executable: false });
    }

    /// Adds a program.
    pub fn add_program(&mut self, path: impl Into<PathBuf>, bytes: Vec<u8>) {
        self.add(path, Node::File { bytes, executable: true });
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// Takes a file's bytes out, by way of links beside it.
    pub fn take(&mut self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        match self.0.remove(path.as_ref())? {
            Node::File { bytes, .. } => Some(bytes),
            Node::Link(target) => self.take(path.as_ref().parent()?.join(target.file_name()?)),
            Node::Directory => None,
        }
    }
}

/// Whether an ELF program asks for a loader (PT_INTERP).
pub fn needs_loader(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let word = |at: usize, width: usize| -> usize {
        let bytes = program.get(at..at + width).unwrap_or_default();
        bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte))
    };
    let (table, size, count) = (word(0x20, 8), word(0x36, 2), word(0x38, 2));
    (0..count).any(|n| word(table.saturating_add(n * size), 4) == INTERPRETER as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_link() {
        let mut tree = Tree::default();
        tree.add("usr/lib/liba.so.1", Node::Link("liba.so.1.2".into()));
        tree.add_data("usr/lib/liba.so.1.2", *b"elf");
        assert_eq!(tree.take("usr/lib/liba.so.1").unwrap(), b"elf");
        assert_eq!(tree.take("usr/lib/liba.so.1"), None);
    }

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        assert!(needs_loader(&std::fs::read("/bin/ls").unwrap()));
        assert!(!needs_loader(&std::fs::read("/bin/busybox").unwrap()));
        assert!(!needs_loader(b"#!/bin/sh"));
    }
}
