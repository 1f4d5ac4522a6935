//! Bodies: what comes in and goes out.

pub(crate) mod protobuf;
