//! Streaming protocols of exec, attach and port-forward: WebSocket channels and SPDY/3.1.
//!
//! The node's end of `kubectl exec`: a request is upgraded to whatever the client speaks, and the caller
//! gets plain byte streams. The request must be the one hyper received: its upgrade extension is the connection.
//!
//! Back-pressure: a stream that nobody reads holds at most 64 KiB, then its connection is not read; what is written
//! waits for the client. As in Kubernetes' own servers, the streams of a connection hold each other up there: neither
//! WebSocket channels nor Kubernetes' SPDY clients know windows.

mod channels;
#[cfg(fuzzing)]
pub mod fuzzing;
mod outcome;
mod pipe;
mod ports;
mod session;
mod spdy;
mod tell;
mod tunnel;
mod upgrade;

pub use crate::{
    outcome::Outcome,
    pipe::{Reader, Writer},
    ports::{Forward, Ports, accept_ports},
    session::{Finish, Options, Session, Size, accept},
    tell::tell,
};

/// Why there are no streams.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request asks for nothing that is spoken here; the response says so too.
    #[error("{0}")]
    Refused(String),
    /// The connection could not be taken over.
    #[error("take over the connection")]
    Upgrade(#[source] hyper::Error),
    /// The client went away before all streams were there, or took longer than 30 s.
    #[error("the client opened {opened} of {expected} streams")]
    Incomplete {
        /// Streams that came.
        opened: usize,
        /// Streams that its request announced.
        expected: usize,
    },
}

/// The result of an upgrade.
pub type Result<T> = std::result::Result<T, Error>;
