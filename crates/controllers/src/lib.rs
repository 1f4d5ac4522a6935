//! Controllers: level-triggered loops that talk to the API only.
//!
//! Every controller is a pure `plan` from what is seen to steps. [`run()`] keeps what is seen up to date,
//! decides which plans to make anew, and carries the steps out; a process killed between any two of them goes on
//! from what it sees the next time.

mod account;
mod deployment;
mod door;
mod ending;
mod events;
mod eviction;
mod garbage;
mod leftover;
mod node;
mod object;
mod ownership;
mod queue;
mod replicaset;
mod run;
mod step;
mod world;

pub use run::{Config, run};
