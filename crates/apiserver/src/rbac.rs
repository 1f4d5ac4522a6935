//! Authorisation: whether an identity may do what a request asks for.
//!
//! Rules only ever add: a request is allowed when one rule of one role that is bound to the identity allows it
//! (`rbac.authorization.k8s.io/v1`). Beside that, `system:masters` may do everything, and a node what it needs for
//! the pods that are bound to it ([`node`]).

pub(crate) mod defaults;
pub(crate) mod escalation;
mod follow;
mod node;
mod policy;
pub(crate) mod rules;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::PolicyRule;
use store::Store;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{Attributes, Identity, limits::Shares};
use follow::{Change, Follower};
use node::Placed;
use policy::Policy;

pub(crate) use node::name as node_name;

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of node agents, `system:node:NAME` each.
pub const NODES: &str = "system:nodes";
/// The user that controllers run as.
pub const CONTROLLERS: &str = "system:controllers";
/// The user that the scheduler runs as.
pub const SCHEDULER: &str = "system:kube-scheduler";

/// What tells an allowing reason from a refusing one, also in the audit log.
pub const ALLOWED: &str = ": allowed";

/// How far behind the store this may be.
const BEHIND: Duration = Duration::from_millis(100);
/// Refusals that are put off for that at a time: all of them, and those of one node.
const PUT_OFF: (usize, usize) = (400, 100);

/// The answer to "may it?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may.
    pub allowed: bool,
    /// Why (not): names the role that allows. Contains [`ALLOWED`] if and only if `allowed`.
    pub reason: String,
}

impl Decision {
    fn allowed(reason: impl Into<String>) -> Self {
        Self { allowed: true, reason: reason.into() }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self { allowed: false, reason: reason.into() }
    }
}

/// Decides on requests.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// Whether `identity` may do what `attributes` say.
    fn decide(&self, identity: &Identity, attributes: &Attributes) -> Decision;

    /// The same for a request that is under way: a refusal that may come of not knowing yet is not given at once.
    async fn decide_soon(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        self.decide(identity, attributes)
    }

    /// All that roles allow `identity` in a namespace (empty: in the whole cluster).
    fn rules(&self, _identity: &Identity, _namespace: &str) -> Vec<PolicyRule> {
        vec![]
    }

    /// What a Role of that namespace (empty: a ClusterRole) allows, with what it aggregates.
    fn role(&self, _namespace: &str, _name: &str) -> Vec<PolicyRule> {
        vec![]
    }
}

/// The authoriser of a cluster: roles, bindings and the places of pods, as the store tells them. It follows the
/// store; a change acts within milliseconds of its commit, not with it.
pub struct Rbac {
    policy: RwLock<Policy>,
    placed: RwLock<Placed>,
    /// Told of each change of where pods are.
    moves: watch::Sender<()>,
    put_off: Arc<Shares>,
}

impl Default for Rbac {
    /// One that knows of nothing.
    fn default() -> Self {
        let put_off = Shares::new(PUT_OFF.0, PUT_OFF.1);
        Self { policy: RwLock::default(), placed: RwLock::default(), moves: watch::Sender::default(), put_off }
    }
}

impl Rbac {
    /// Adds the default roles and bindings that are missing, reads what there is, and goes on following it.
    pub async fn open(store: Arc<dyn Store>, now: Timestamp) -> store::Result<Arc<Self>> {
        defaults::ensure(store.as_ref(), now).await?;
        let rbac = Arc::new(Self::default());
        let this = rbac.clone();
        let policy = move |change: Change<'_>| {
            let mut policy = this.policy.write().unwrap_or_else(PoisonError::into_inner);
            match change {
                Change::Anew => *policy = Policy::default(),
                Change::Put { key, value } => policy.put(key, value),
                Change::Delete { key } => policy.delete(key),
            }
        };
        Follower::new(store.clone(), policy::PREFIX, policy).start().await?;
        let this = rbac.clone();
        let placed = move |change: Change<'_>| {
            let mut placed = this.placed.write().unwrap_or_else(PoisonError::into_inner);
            match change {
                Change::Anew => *placed = Placed::default(),
                Change::Put { key, value } => placed.put(key, value),
                Change::Delete { key } => placed.delete(key),
            }
            drop(placed);
            this.moves.send_replace(());
        };
        Follower::new(store, node::PREFIX, placed).start().await?;
        Ok(rbac)
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn decide_soon(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let mut moves = self.moves.subscribe();
        let mut decision = self.decide(identity, attributes);
        if decision.allowed || node::name(identity).is_none() {
            return decision;
        }
        // A node hears of a pod as soon as this does, and asks for what it needs at once.
        let (place, deadline) = (self.put_off.take(&identity.user), Instant::now() + BEHIND);
        while !decision.allowed && place.is_some() && timeout_at(deadline, moves.changed()).await.is_ok() {
            decision = self.decide(identity, attributes);
        }
        decision
    }

    fn decide(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        if identity.is_in(MASTERS) {
            return Decision::allowed("system:masters: allowed");
        }
        if let Some(name) = node::name(identity) {
            let placed = self.placed.read().unwrap_or_else(PoisonError::into_inner);
            let decision = node::decide(name, attributes, &placed);
            if decision.allowed {
                return decision;
            }
            let roles = self.policy.read().unwrap_or_else(PoisonError::into_inner).decide(identity, attributes);
            return if roles.allowed { roles } else { decision };
        }
        self.policy.read().unwrap_or_else(PoisonError::into_inner).decide(identity, attributes)
    }

    fn rules(&self, identity: &Identity, namespace: &str) -> Vec<PolicyRule> {
        if identity.is_in(MASTERS) {
            return defaults::everything();
        }
        self.policy.read().unwrap_or_else(PoisonError::into_inner).rules(identity, namespace)
    }

    fn role(&self, namespace: &str, name: &str) -> Vec<PolicyRule> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).role(namespace, name)
    }
}

#[cfg(test)]
mod tests;
