//! The operating system around `rast`: how its image is built, what PID 1 does, how a machine learns what it is.

pub mod image;
pub mod initrd;
pub mod modules;
pub mod verity;
