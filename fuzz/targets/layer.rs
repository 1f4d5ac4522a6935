//! Layers: tars, plain and compressed, unpacked into a directory beside which nothing may appear.
#![no_main]
use std::sync::LazyLock;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| images::fuzzing::layer(bytes, DIR.path()));
