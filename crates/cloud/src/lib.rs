//! OpenStack: sessions, plans, stacks, and what a project holds.
//!
//! A cluster is two Heat stacks. What is to be done about them is decided by pure functions ([`plan`], [`up::next`],
//! [`down::next`]) from the project as it was [`seen`]; the effects are a loop around them.

pub mod account;
mod cause;
mod config;
pub mod down;
pub mod enrol;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod glance;
pub mod heat;
pub mod inventory;
mod mark;
pub mod neutron;
pub mod nova;
mod patience;
pub mod plan;
mod quota;
mod repair;
mod retry;
pub mod rights;
mod secret;
pub mod seen;
mod service;
mod session;
pub mod template;
mod token;
pub mod up;

pub use account::Account;
pub use cause::{Cause, Known, last_lines};
pub use config::{Auth, Config, ConfigError, Domain, Environment, Interface, Project, Tls, User};
pub use error::{Error, Refusal, optional};
pub use inventory::Inventory;
pub use mark::Mark;
pub use quota::{Amounts, Quota, Room, Rooms};
pub use secret::Secret;
pub use service::{Catalog, Service};
pub use session::{Call, Session};
pub use token::{Restriction, Token};
