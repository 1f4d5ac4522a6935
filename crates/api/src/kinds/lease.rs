//! Lease.

use k8s_openapi::api::coordination::v1::Lease;

use crate::{
    columns::{AGE, NAME, column, text},
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

impl Typed for Lease {}
