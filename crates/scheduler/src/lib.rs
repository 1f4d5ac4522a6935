//! Placement of pods on nodes: pure filter and score, and the loop around it.
//!
//! [`choose`] says where a pod goes, or why it goes nowhere, from a [`View`] of the cluster; it reads no clock
//! and no network. [`run()`] keeps a view up to date and binds what is pending. Ties are broken by name, so
//! equal views give equal choices.

mod choice;
mod filter;
mod queue;
mod report;
mod run;
mod score;
mod view;
mod wire;

pub use choice::{Unfit, choose};
pub use filter::Reason;
pub use run::{NAME, run};
pub use view::{Demand, HostPort, Node, Resources, View, Wish};
pub use wire::{Pod, PodSpec};
