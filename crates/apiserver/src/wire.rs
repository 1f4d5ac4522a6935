//! Bodies: what comes in and goes out.

pub(crate) mod accept;
pub(crate) mod body;
pub(crate) mod list;
pub(crate) mod protobuf;
pub(crate) mod table;

pub(crate) const JSON: &str = "application/json";
