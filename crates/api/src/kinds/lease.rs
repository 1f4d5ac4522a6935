//! Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::{
    columns::{AGE, NAME, column, text},
    faults::{Faults, Path},
    registry::{Kind, Scope},
    typed::Typed,
};

/// Lease.
pub fn kind() -> Kind {
    Kind {
        columns: const { &[NAME, column("Holder", |o, _| text(o, "/spec/holderIdentity")), AGE] },
        ..Kind::of::<Lease>("leases", Scope::Namespaced)
    }
}

impl Typed for Lease {
    fn validate(&self, bad: &mut Faults) {
        let Some(spec) = &self.spec else { return };
        let at = Path::root().field("spec");
        if let Some(seconds) = spec.lease_duration_seconds {
            bad.ranged(at.field("leaseDurationSeconds"), seconds.into(), 1..=i64::MAX);
        }
        if let Some(count) = spec.lease_transitions {
            bad.ranged(at.field("leaseTransitions"), count.into(), 0..=i64::MAX);
        }
    }
}
