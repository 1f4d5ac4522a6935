//! Resource types, the registry of kinds, defaults and validation. Pure: no I/O, no clock.
//!
//! Objects travel as JSON values ([`serde_json::Value`]) in Kubernetes' own form; a kind's [`Strategy`] is
//! written against the typed structs of `k8s-openapi`. One [`Kind`] drives storage, verbs, watch, patch,
//! discovery, OpenAPI, tables, RBAC, audit and completion.

pub mod columns;
pub mod faults;
pub mod kinds;
pub mod registry;
pub mod typed;

pub use faults::{Cause, Fault, Faults, Path};
pub use kinds::builtin;
pub use registry::{Column, Kind, Registry, Scope, Strategy, Subresource, Verb};
