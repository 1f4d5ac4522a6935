//! ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::{
    columns::{AGE, NAME, column, count},
    registry::{Kind, Scope, Subresource},
    typed::Typed,
};

/// ServiceAccount.
pub fn kind() -> Kind {
    Kind {
        short: &["sa"],
        subresources: &[Subresource::Token],
        columns: const { &[NAME, column("Secrets", |o, _| count(o, "/secrets").to_string().into()), AGE] },
        ..Kind::of::<ServiceAccount>("serviceaccounts", Scope::Namespaced)
    }
}

impl Typed for ServiceAccount {}
