//! One node: from desired pods to running pods.
//!
//! The API's pods of this node are *wanted*; what effects and the runtime tell is *observed*; [`decide::next`] compares
//! the two and names steps, `act` carries them out side by side, and what comes of them is observed again. Nothing is
//! kept that cannot be found again on the host or in the API, so the agent can be killed at any moment.
//!
//! ```text
//! agent         state and loops: watch, exits, time          decide · observe · status   pure: what next, what is known
//! act           effects of a step                            spec · env · fields · security · resources · files   pure: from the API's words to the runtime's
//! pull · mounts · probe · objects   what effects need        adopt                       pure: what a new agent makes of what it finds
//! node · events                     what the API hears       server · logs               what clients ask of the node
//! housekeeping                      what is due by the clock
//! ```

mod act;
pub mod admit;
pub mod adopt;
mod agent;
pub mod config;
pub mod crilog;
pub mod decide;
pub mod env;
pub mod events;
mod exec;
pub mod fields;
pub mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod housekeeping;
pub mod logs;
pub mod message;
pub mod mounts;
pub mod node;
pub mod objects;
pub mod observe;
pub mod pod;
mod probe;
mod proxy;
mod pull;
pub mod resources;
pub mod security;
mod server;
pub mod spec;
pub mod status;
mod tls;

pub use agent::{Agent, Parts};
pub use config::{Capacity, Config, Dns, Rounds};

#[cfg(test)]
mod simulate;
