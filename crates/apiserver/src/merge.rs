//! Ways to change an object: patches and server-side apply. All pure.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod managed;
pub(crate) mod place;
pub(crate) mod strategic;
