//! The operating system around `rast`: how its image is built, what PID 1 does, how a machine learns what it is.

pub mod boot;
pub mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod image;
pub mod init;
pub mod initrd;
pub mod modules;
pub mod slot;
pub mod state;
mod sys;
mod uevents;
pub mod verity;
