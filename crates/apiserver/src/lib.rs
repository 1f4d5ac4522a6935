//! The HTTP API: verbs, watch, patch, discovery, OpenAPI, authentication, authorisation, admission, audit.
//!
//! Generic over the registry of kinds: nothing here names a kind that is not special to the API itself.

pub mod admission;
pub mod attributes;
pub mod audit;
pub mod authn;
mod cache;
mod call;
mod discovery;
mod filters;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod identity;
mod limits;
mod merge;
pub mod nodes;
mod oidc;
mod openapi;
pub mod pki;
pub mod rbac;
mod reviews;
mod selector;
mod serve;
mod server;
pub mod status;
mod tasks;
#[cfg(test)]
mod testing;
mod verbs;
pub mod warnings;
mod wire;

pub use admission::Admission;
pub use attributes::Attributes;
pub use audit::Audit;
pub use authn::Authenticator;
pub use identity::Identity;
pub use nodes::Nodes;
pub use rbac::{Authorizer, Decision};
pub use serve::LocalService;
pub use server::{Clock, Config, Door, Server, Version};
pub use status::{ApiError, Result};
pub use warnings::Warnings;
