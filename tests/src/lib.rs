//! What whole-system tests stand on: an instance of the real program with everything below a root of its own, and
//! the clients that judge it.

mod admin;
mod client;
pub mod cloud;
mod dice;
mod disk;
mod health;
pub mod host;
mod instance;
pub mod machine;
mod metadata;
pub mod place;
pub mod pods;
mod relay;
pub mod steps;

pub use admin::Admin;
pub use client::{Answer, Client};
pub use dice::Dice;
pub use disk::Disk;
pub use health::health_server;
pub use instance::{Instance, program};
pub use machine::{Machine, Parts};
pub use metadata::Metadata;
pub use place::Place;
pub use relay::Relay;

use std::time::{Duration, Instant};

/// The registry that tests pull from, `HOST:PORT`; `make test` starts it.
pub fn registry() -> String {
    std::env::var("RAST_TEST_REGISTRY").expect("RAST_TEST_REGISTRY is set by scripts/test")
}

/// Waits for `state` to give a value; fails with what `state` said last, after 90 s or `RAST_TEST_PATIENCE` seconds.
#[track_caller]
pub fn eventually<T>(what: &str, mut state: impl FnMut() -> Result<T, String>) -> T {
    let patience = std::env::var("RAST_TEST_PATIENCE").ok().and_then(|s| s.parse().ok()).unwrap_or(90);
    let end = Instant::now() + Duration::from_secs(patience);
    loop {
        match state() {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => panic!("{what}: still {last}"),
            Err(_) => pause(),
        }
    }
}

/// Lets other processes run between two looks at what cannot be waited for.
fn pause() {
    let (reader, _writer) = nix::unistd::pipe().expect("a pipe");
    let mut nothing = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&reader), nix::poll::PollFlags::POLLIN)];
    let _timed_out = nix::poll::poll(&mut nothing, 50u16);
}
