//! Where values of variables and files come from: fields of the pod, resources of a container.

use k8s_openapi::api::core::v1::{ObjectFieldSelector, ResourceFieldSelector};

use super::container;
use crate::{
    faults::{Cause, Faults, Path},
    names,
    quantity::Quantity,
};

/// The fields that a variable can have.
pub(super) const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields that a file can have.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations"];

/// A field by its path, or one entry of the labels or annotations: `metadata.labels['app']`.
pub(super) fn field(selector: &ObjectFieldSelector, fields: &[&str], at: &Path, bad: &mut Faults) {
    bad.one_of(at.field("apiVersion"), selector.api_version.as_deref().filter(|v| !v.is_empty()), &["v1"]);
    let at = at.field("fieldPath");
    let path = &selector.field_path;
    if path.is_empty() {
        bad.required(at, "must be given");
    } else if let Some((map, key)) = entry(path) {
        bad.one_of(at.clone(), Some(map), &["metadata.labels", "metadata.annotations"]);
        bad.ruled(at, &key.to_lowercase(), names::qualified);
    } else {
        bad.one_of(at, Some(path), fields);
    }
}

/// The map and key of `metadata.labels['app']`.
pub fn entry(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

/// An amount that a container may use.
pub(super) fn resource(selector: &ResourceFieldSelector, at: &Path, bad: &mut Faults) {
    let name = selector.resource.strip_prefix("limits.").or_else(|| selector.resource.strip_prefix("requests."));
    match name {
        _ if selector.resource.is_empty() => bad.required(at.field("resource"), "must be given"),
        Some(name) if container::RESOURCES.contains(&name) => {
            let Some(text) = selector.divisor.as_ref().map(|d| &d.0) else { return };
            let at = at.field("divisor");
            let Some(divisor) = container::quantity(text, &at, bad) else { return };
            let good = divisor.is_zero()
                || match name {
                    "cpu" => [Quantity::from_millis(1), Quantity::from_units(1)].contains(&divisor),
                    _ => is_unit(divisor),
                };
            let units = if name == "cpu" { "1m or 1" } else { "1, 1k, 1M, … 1E, 1Ki, 1Mi, … 1Ei" };
            bad.unless(good, at, format!("{divisor} must be {units}"));
        }
        _ => {
            let message =
                format!("{:.80?} must be limits or requests of {}", selector.resource, container::RESOURCES.join(", "));
            bad.push(at.field("resource"), Cause::NotSupported, message);
        }
    }
}

fn is_unit(divisor: Quantity) -> bool {
    let of = |base: i64| (0..=6u32).map_while(move |power| base.checked_pow(power)).map(Quantity::from_units);
    of(1000).chain(of(1024)).any(|unit| unit == divisor)
}
