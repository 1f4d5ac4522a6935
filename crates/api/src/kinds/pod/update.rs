//! What may change in a pod.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration};

use super::default;
use crate::{
    faults::{Cause, Faults, Path},
    typed::encode,
};

/// What may: the images, tolerations that are added, a deadline that is set or brought nearer. Anything else is a
/// new pod.
pub(super) fn validate(new: &Pod, old: &Pod, bad: &mut Faults) {
    // Admission fills in after defaults do, so that a default may come to an old pod only now (`serviceAccount`).
    let (mut new, mut old) = (new.clone(), old.clone());
    default::pod(&mut new);
    default::pod(&mut old);
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return };
    let at = Path::root().field("spec");
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (new, Some(old)) if new.is_none_or(|new| new > old) => {
            let message = format!("must be at most {old}: it may be set or brought nearer");
            bad.push(at.field("activeDeadlineSeconds"), Cause::Invalid, message);
        }
        _ => {}
    }
    let same = |a: &Toleration, b: &Toleration| {
        Toleration { toleration_seconds: None, ..a.clone() } == Toleration { toleration_seconds: None, ..b.clone() }
    };
    let kept = old.tolerations.iter().flatten().all(|t| new.tolerations.iter().flatten().any(|n| same(n, t)));
    if !kept {
        bad.forbidden(
            at.field("tolerations"),
            "may be added to; those that were there stay, but for how long they hold",
        );
    }
    let mut allowed = PodSpec {
        active_deadline_seconds: new.active_deadline_seconds,
        tolerations: new.tolerations.clone(),
        ..old.clone()
    };
    images(&mut allowed.containers, &new.containers);
    images(allowed.init_containers.as_mut().map_or(&mut [], |c| c), new.init_containers.as_deref().unwrap_or_default());
    if allowed != *new {
        let (allowed, new) = (encode(&allowed), encode(new));
        let fields = allowed.as_object().into_iter().chain(new.as_object()).flat_map(|o| o.keys());
        let mut changed: Vec<&String> = fields.filter(|field| allowed[*field] != new[*field]).collect();
        changed.sort();
        changed.dedup();
        for field in changed {
            if field == "ephemeralContainers" {
                bad.forbidden(at.field(field), "change them by the subresource ephemeralcontainers (kubectl debug)");
                continue;
            }
            let message = "a pod's spec stays as it was made, but for containers' images, activeDeadlineSeconds and added \
                           tolerations; delete the pod and create it anew, or change the template it comes from";
            bad.forbidden(at.field(field), message);
        }
    }
}

fn images(allowed: &mut [Container], new: &[Container]) {
    for (allowed, new) in allowed.iter_mut().zip(new) {
        allowed.image.clone_from(&new.image);
    }
}
