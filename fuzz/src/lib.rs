//! What the programs of `targets/` share. Each holds one crate's parsers; the variable `TARGET` says which is tried.
//! Without it the program prints their names, which is how `scripts/fuzz` knows them.

use std::{
    path::Path,
    sync::{LazyLock, OnceLock},
};

#[doc(hidden)]
pub use libfuzzer_sys;

/// A parser's name, and what is tried with some bytes. It may refuse them; it may not panic, hang or take much memory.
pub type Target = (&'static str, fn(&[u8]));

/// Makes a program of a list of [`Target`]s.
#[macro_export]
macro_rules! program {
    ($targets:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::choose($targets), |bytes: &[u8]| $crate::run(bytes));
    };
}

static CHOSEN: OnceLock<fn(&[u8])> = OnceLock::new();

#[doc(hidden)]
pub fn choose(targets: &[Target]) {
    let wanted = std::env::var("TARGET").unwrap_or_default();
    let Some((_, run)) = targets.iter().find(|(name, _)| *name == wanted) else {
        targets.iter().for_each(|(name, _)| println!("{name}"));
        std::process::exit(i32::from(!wanted.is_empty()));
    };
    CHOSEN.get_or_init(|| *run);
}

#[doc(hidden)]
pub fn run(bytes: &[u8]) {
    CHOSEN.get().expect("chosen at the start")(bytes);
}

/// Gives a parser of text what is text.
pub fn text(bytes: &[u8], parse: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        parse(text);
    }
}

/// What is read reads back the same from how it is written.
pub fn round<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(value) = text.parse::<T>() {
            assert_eq!(value.to_string().parse::<T>().ok(), Some(value), "{text:?}");
        }
    });
}

/// A directory in memory, of this process.
pub fn dir() -> &'static Path {
    static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));
    DIR.path()
}

/// Runs a parser that waits for its bytes.
pub fn wait(parse: impl Future<Output = ()>) {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    RUNTIME.block_on(parse);
}

/// The kinds that there are.
#[cfg(feature = "api")]
pub static KINDS: LazyLock<api::Registry> = LazyLock::new(api::builtin);

/// What the rules of an object's kind say of it.
#[cfg(feature = "api")]
pub fn judge(value: &serde_json::Value) -> api::Faults {
    let mut faults = api::Faults::default();
    let field = |name: &str| value[name].as_str().unwrap_or_default();
    let Some(kind) = KINDS.object(field("apiVersion"), field("kind")) else { return faults };
    match (kind.strategy.decode)(value) {
        Err(refused) => return refused,
        Ok(mut object) => {
            kind.unknown_fields(value, &object);
            (kind.strategy.default)(&mut object);
            (kind.strategy.validate)(&object, &mut faults);
        }
    }
    faults
}
