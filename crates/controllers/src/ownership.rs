//! Who manages what: adoption and release by selector and owner references.

use api::selector::Selector;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::{
    object::Object,
    step::{Kind, Step, set_owners},
};

/// Sorts objects into those that `owner` manages (after the steps) and the steps that make it so.
///
/// An object that matches and that nobody manages is adopted; one that is managed but matches no more is released.
/// An owner on its way out adopts nothing.
pub fn claim<'a>(
    owner: &Object,
    reference: &OwnerReference,
    selector: &Selector,
    kind: &Kind,
    objects: &[&'a Object],
) -> (Vec<&'a Object>, Vec<Step>) {
    let (mut ours, mut steps) = (Vec::new(), Vec::new());
    for object in objects {
        let matches = selector.matches(object.labels());
        match object.controller() {
            Some(controller) if controller.uid != owner.uid() => {}
            Some(_) if matches => ours.push(*object),
            Some(_) if !object.deleting() && !owner.deleting() => {
                let others: Vec<_> = object.owners().iter().filter(|o| o.uid != owner.uid()).cloned().collect();
                steps.push(set_owners(kind.clone(), object, &others));
            }
            None if matches && !object.deleting() && !owner.deleting() => {
                let mut owners: Vec<_> = object.owners().iter().filter(|o| o.uid != owner.uid()).cloned().collect();
                owners.push(reference.clone());
                steps.push(set_owners(kind.clone(), object, &owners));
                ours.push(*object);
            }
            _ => {}
        }
    }
    (ours, steps)
}

/// The reference by which `owner` manages another object.
pub fn reference(api_version: &str, kind: &str, owner: &Object) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}
