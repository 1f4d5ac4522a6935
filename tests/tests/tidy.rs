//! How the tree looks: what a reviewer would say again and again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn tracked(ending: &str) -> Vec<PathBuf> {
    let list = Command::new("git").arg("-C").arg(root()).args(["ls-files", ending]).output().expect("git");
    String::from_utf8_lossy(&list.stdout).lines().map(|line| root().join(line)).collect()
}

#[test]
fn no_file_is_too_long_to_read_in_a_sitting() {
    for file in tracked("*.rs") {
        let text = fs::read_to_string(&file).expect("tracked files are there");
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(code <= 600, "{}: {code} lines without its tests; split it by noun", file.display());
    }
}

#[test]
fn unsafe_stands_in_few_places() {
    for file in tracked("*.rs") {
        let allowed = ["runtime/src/sys.rs", "os/src/sys.rs", "initrd/mapper.rs", "tests/tidy.rs"]
            .iter()
            .any(|own| file.ends_with(own));
        let text = fs::read_to_string(&file).expect("tracked files are there");
        let used = text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        assert!(allowed || !used, "{}: unsafe belongs into a module of system calls", file.display());
    }
}

#[test]
fn every_shell_script_stops_at_its_first_failure() {
    for file in tracked("scripts/*").into_iter().chain(tracked(".ci/*")) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let shell = text.starts_with("#!/bin/bash");
        assert!(!shell || text.contains("set -euo pipefail"), "{}: set -euo pipefail", file.display());
    }
}
