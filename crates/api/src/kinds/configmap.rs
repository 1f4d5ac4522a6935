//! ConfigMap.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::{
    columns::{AGE, NAME, column, count},
    faults::{Cause, Faults, Path},
    meta, names,
    registry::{Kind, Scope},
    typed::Typed,
};

/// ConfigMap.
pub fn kind() -> Kind {
    Kind {
        short: &["cm"],
        columns: const { &[NAME, column("Data", |o, _| (count(o, "/data") + count(o, "/binaryData")).into()), AGE] },
        ..Kind::of::<ConfigMap>("configmaps", Scope::Namespaced)
    }
}

/// How many bytes all keys and values of a ConfigMap or Secret may have.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

impl Typed for ConfigMap {
    fn validate(&self, bad: &mut Faults) {
        let at = Path::root();
        let (data, binary) = (self.data.iter().flatten(), self.binary_data.iter().flatten());
        let entries = data.map(|(key, value)| ("data", key, value.len()));
        let entries = entries.chain(binary.map(|(key, value)| ("binaryData", key, value.0.len())));
        let mut size = 0;
        for (field, key, bytes) in entries {
            keyed(key, at.field(field), bad);
            if field == "binaryData" && self.data.as_ref().is_some_and(|data| data.contains_key(key)) {
                bad.duplicate(at.field(field).key(key), "the key (in data too)");
            }
            size += key.len() + bytes;
        }
        sized(size, at.field("data"), bad);
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        let same = self.data == old.data && self.binary_data == old.binary_data;
        frozen(self.immutable, old.immutable, same, bad);
    }
}

pub(super) fn keyed(key: &str, at: Path, bad: &mut Faults) {
    bad.ruled(at, key, names::config_key);
}

pub(super) fn sized(size: usize, at: Path, bad: &mut Faults) {
    if size > MAX_SIZE {
        bad.push(at, Cause::Invalid, format!("has {size} bytes; at most {MAX_SIZE} are allowed"));
    }
}

/// What is immutable stays so, and keeps its data.
pub(super) fn frozen(new: Option<bool>, old: Option<bool>, same: bool, bad: &mut Faults) {
    if old == Some(true) {
        if new != Some(true) {
            meta::immutable(Path::root().field("immutable"), bad);
        }
        if !same {
            meta::immutable(Path::root().field("data"), bad);
        }
    }
}
