//! Parsers of what machines, networks and clouds tell a machine that boots, for `fuzz/`.

pub use crate::{init::converse, state::partitions};

use crate::{
    config::{self, Found, Source},
    slot::Slot,
    verity,
};

/// A file of a cloud's by its name, and what is decided by it.
pub fn file(name: &str, text: &str) {
    let mut found = Found::at(Source::Metadata);
    found.take(name, text.to_owned());
    config::plan(std::slice::from_ref(&found));
    let _refused = config::decide(&[found]);
}

/// The kernel's command line.
pub fn command_line(line: &str) {
    let _refused = (verity::Root::on(line), Slot::on(line));
    let _refused = config::on_command_line(line).map(|found| config::decide(&[found]));
}
