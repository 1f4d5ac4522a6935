//! Authorisation: whether an identity may do what a request asks for.

use crate::{Attributes, Identity};

/// The answer to "may it?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// Why (not): names the role that allows.
    pub reason: String,
}

/// Decides on requests.
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `identity` may do what `attributes` say.
    fn decide(&self, identity: &Identity, attributes: &Attributes) -> Decision;
}

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of node agents.
pub const NODES: &str = "system:nodes";
