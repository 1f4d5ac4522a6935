//! ServiceAccount.

use k8s_openapi::api::core::v1::ServiceAccount;

use crate::{
    columns::{AGE, NAME, column, count},
    faults::{Faults, Path},
    names,
    registry::{Kind, Scope, Subresource},
    typed::Typed,
};

/// ServiceAccount.
pub fn kind() -> Kind {
    Kind {
        short: &["sa"],
        returns_deleted: true,
        subresources: &[Subresource::Token],
        columns: const { &[NAME, column("Secrets", |o, _| count(o, "/secrets").into()), AGE] },
        ..Kind::of::<ServiceAccount>("serviceaccounts", Scope::Namespaced)
    }
}

impl Typed for ServiceAccount {
    fn validate(&self, bad: &mut Faults) {
        for (index, secret) in self.image_pull_secrets.iter().flatten().enumerate() {
            let at = Path::root().field("imagePullSecrets").index(index).field("name");
            bad.named(at, &secret.name, names::subdomain);
        }
    }
}
