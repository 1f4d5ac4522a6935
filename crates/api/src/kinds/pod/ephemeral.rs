//! Ephemeral containers: added to a pod that runs, to look into it; never started again, never taken away.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodSpec};
use serde_json::Value;

use super::{container, default};
use crate::{
    faults::{Faults, Path},
    typed::{decode, encode},
};

const FIELD: &str = "ephemeralContainers";

/// The container that it is but for its target: all other fields are the same.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    decode(&encode(ephemeral)).unwrap_or_default()
}

pub(super) fn default(ephemeral: &mut EphemeralContainer) {
    let mut container = as_container(ephemeral);
    default::container(&mut container, false);
    let target = ephemeral.target_container_name.take();
    *ephemeral = decode(&encode(&container)).unwrap_or_default();
    ephemeral.target_container_name = target;
}

/// Refuses what may not stand; `taken` are the names of the pod's other containers.
pub(super) fn validate(spec: &PodSpec, at: &Path, pod: &container::In<'_>, bad: &mut Faults) {
    let others = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.name);
    let mut taken: Vec<&String> = others.collect();
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = at.field(FIELD).index(index);
        container::validate(&as_container(ephemeral), pod, &at, bad);
        if taken.contains(&&ephemeral.name) {
            bad.duplicate(at.field("name"), format!("{:.80?}", ephemeral.name));
        }
        taken.push(&ephemeral.name);
    }
}

/// Refuses a change or the loss of those that were there: of two states of a pod, the new one only has more.
pub fn validate_added(new: &Value, old: &Value, bad: &mut Faults) {
    let all = |pod: &Value| pod["spec"][FIELD].as_array().cloned().unwrap_or_default();
    let new = all(new);
    for (index, old) in all(old).into_iter().enumerate() {
        if new.iter().find(|c| c["name"] == old["name"]) != Some(&old) {
            let at = Path::root().field("spec").field(FIELD).index(index);
            bad.forbidden(at, "ephemeral containers may be added; those that were there stay as they were");
        }
    }
}
