//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::{
    columns::{AGE, NAME, column, count},
    registry::{Kind, Scope},
    typed::Typed,
};

/// ConfigMap.
pub fn kind() -> Kind {
    Kind {
        short: &["cm"],
        columns: const {
            &[NAME, column("Data", |o, _| (count(o, "/data") + count(o, "/binaryData")).to_string().into()), AGE]
        },
        ..Kind::of::<ConfigMap>("configmaps", Scope::Namespaced)
    }
}

impl Typed for ConfigMap {}
