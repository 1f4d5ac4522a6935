//! Resource types, the registry of kinds, defaults and validation. Pure: no I/O, no clock.
//!
//! Objects travel as JSON values ([`serde_json::Value`]) in Kubernetes' own form; a kind's [`Strategy`] is
//! written against the typed structs of `k8s-openapi`. One [`Kind`] drives storage, verbs, watch, patch,
//! discovery, OpenAPI, tables, RBAC, audit and completion.

pub mod columns;
mod compatibility;
pub mod faults;
pub mod kinds;
pub mod mergekeys;
pub mod meta;
#[cfg(feature = "mutate")]
pub mod mutate;
pub mod names;
pub mod quantity;
pub mod rastos;
pub mod read;
pub mod registry;
pub mod scale;
pub mod schema;
pub mod security;
pub mod selector;
pub mod support;
pub mod taints;
pub mod typed;
mod unknown;

pub use compatibility::compatibility;
pub use faults::{Cause, Fault, Faults, Path};
pub use kinds::{builtin, pod};
pub use quantity::Quantity;
pub use registry::{Column, Kind, Registry, Scope, Strategy, Subresource, Verb};
pub use selector::{FieldSelector, Selector};
