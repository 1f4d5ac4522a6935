//! SPDY/3.1, the server's side, as far as Kubernetes' clients speak it: streams that the client opens, no priorities,
//! no pushes. Their SPDY never sends a WINDOW_UPDATE, so windows are not kept: the connection's own flow control is
//! all there is.

mod connection;
mod frame;
pub(crate) mod headers;

pub(crate) use connection::{Spdy, Stream, serve};

#[cfg(test)]
pub(crate) mod tests;
