//! Garbage: what only lived for an owner that is gone, and the order in which owners and dependents go.
//!
//! An object goes when every owner it names is gone. An owner deleted in the foreground (finalizer
//! `foregroundDeletion`) waits for the dependents that block it; one with the finalizer `orphan` lets its
//! dependents go first. Owners are told apart by uid: a namesake made later owns nothing.

use std::collections::BTreeSet;

use crate::{
    object::Object,
    step::{Id, Step, remove_finalizer, set_owners},
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What the collector must know of others.
pub trait Graph {
    /// The object with this uid.
    fn object(&self, uid: &str) -> Option<&Object>;
    /// What names this uid as an owner.
    fn dependents(&self, uid: &str) -> Vec<(Id, &Object)>;
}

/// What to do about an object as an owner and as a dependent.
pub fn plan(id: &Id, object: &Object, graph: &impl Graph) -> Vec<Step> {
    let mut steps = Vec::new();
    if object.deleting() {
        let dependents = graph.dependents(object.uid());
        if object.has_finalizer(ORPHAN) {
            steps.extend(dependents.iter().map(|(id, dependent)| {
                let left: Vec<_> = dependent.owners().iter().filter(|o| o.uid != object.uid()).cloned().collect();
                set_owners(id.kind.clone(), dependent, &left)
            }));
            if dependents.is_empty() {
                steps.push(remove_finalizer(id.clone(), object, ORPHAN));
            }
        } else if object.has_finalizer(FOREGROUND) && !dependents.iter().any(|(_, d)| holds(d, object, graph)) {
            steps.push(remove_finalizer(id.clone(), object, FOREGROUND));
        }
        return steps;
    }
    if object.owners().is_empty() {
        return steps;
    }
    let (mut solid, mut unseen, mut waiting) = (Vec::new(), Vec::new(), false);
    for owner in object.owners() {
        match graph.object(&owner.uid) {
            Some(o) if o.deleting() && o.has_finalizer(FOREGROUND) => waiting = true,
            Some(_) => solid.push(owner.clone()),
            None => unseen.push(owner.clone()),
        }
    }
    let blocking = waiting && graph.dependents(object.uid()).iter().any(|(_, d)| blocks(d, object));
    let (uid, id) = (object.uid().to_owned(), id.clone());
    match solid.len() {
        all if all == object.owners().len() => {}
        0 => {
            let propagation = match () {
                // Dependents that block this object must go first, as this one goes before its owner.
                () if blocking => "Foreground",
                () if !waiting && object.has_finalizer(ORPHAN) => "Orphan",
                () => "Background",
            };
            steps.push(match unseen.is_empty() {
                true => Step::Delete { id, uid, propagation },
                false => Step::Collect { id, uid, owners: unseen, propagation },
            });
        }
        // Others still want it: only the reference to those that went goes. One that is merely not seen yet is
        // older than what names it, so that its watch will soon tell; the patch would fail on a newer revision.
        _ if waiting => steps.push(set_owners(id.kind, object, &solid)),
        _ => {}
    }
    steps
}

/// Whether an owner waits for a dependent: not for one that itself waits for the owner, round a circle.
fn holds(dependent: &Object, owner: &Object, graph: &impl Graph) -> bool {
    let (mut unseen, mut seen) = (vec![dependent], BTreeSet::new());
    while let Some(object) = unseen.pop() {
        if object.deleting() && object.has_finalizer(FOREGROUND) && seen.insert(object.uid()) {
            let blocking = graph.dependents(object.uid()).into_iter().map(|(_, d)| d).filter(|d| blocks(d, object));
            unseen.extend(blocking);
        }
    }
    blocks(dependent, owner) && !seen.contains(owner.uid())
}

fn blocks(dependent: &Object, owner: &Object) -> bool {
    dependent.owners().iter().any(|o| o.uid == owner.uid() && o.block_owner_deletion == Some(true))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        object::Wire,
        step::{CONFIGMAPS, Merge},
    };

    /// Objects by uid, with an API server's rules of deletion.
    #[derive(Clone, Default)]
    struct World(BTreeMap<String, Object>);

    impl Graph for World {
        fn object(&self, uid: &str) -> Option<&Object> {
            self.0.get(uid)
        }
        fn dependents(&self, uid: &str) -> Vec<(Id, &Object)> {
            let names = self.0.values().filter(|o| o.owners().iter().any(|r| r.uid == uid));
            names.map(|o| (Id::of(CONFIGMAPS, o), o)).collect()
        }
    }

    impl World {
        fn add(&mut self, uid: usize, owners: &[usize], block: bool) {
            let owners: Vec<Value> = owners
                .iter()
                .map(|o| {
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o.to_string(), "uid": o.to_string(),
                        "blockOwnerDeletion": block})
                })
                .collect();
            let wire =
                json!({"metadata": {"name": uid.to_string(), "uid": uid.to_string(), "ownerReferences": owners}});
            self.0.insert(uid.to_string(), Object::lift("configmaps", serde_json::from_value::<Wire>(wire).unwrap()));
        }

        fn delete(&mut self, uid: &str, propagation: &str) {
            let Some(object) = self.0.get_mut(uid) else { return };
            let finalizer = match propagation {
                "Foreground" => Some(FOREGROUND),
                "Orphan" => Some(ORPHAN),
                _ => None,
            };
            if let Some(finalizer) = finalizer
                && !object.deleting()
            {
                object.meta.finalizers.get_or_insert_default().push(finalizer.into());
            }
            object.meta.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
            self.settle(uid);
        }

        fn settle(&mut self, uid: &str) {
            let done = |o: &Object| o.deleting() && o.meta.finalizers.as_ref().is_none_or(Vec::is_empty);
            if self.0.get(uid).is_some_and(done) {
                self.0.remove(uid);
            }
        }

        fn apply(&mut self, step: Step) {
            match step {
                Step::Delete { uid, propagation, .. } => self.delete(&uid, propagation),
                Step::Collect { uid, owners, propagation, .. } => {
                    assert!(owners.iter().all(|o| !self.0.contains_key(&o.uid)));
                    self.delete(&uid, propagation);
                }
                Step::Patch { id, merge: Merge::Json, patch } => {
                    let meta = &patch["metadata"];
                    if let Some(object) = self.0.get_mut(&id.name) {
                        if let Some(owners) = meta.get("ownerReferences") {
                            object.meta.owner_references = serde_json::from_value(owners.clone()).unwrap();
                        }
                        if let Some(finalizers) = meta.get("finalizers") {
                            object.meta.finalizers = serde_json::from_value(finalizers.clone()).unwrap();
                        }
                    }
                    self.settle(&id.name);
                }
                other => panic!("{other:?}"),
            }
        }

        /// One step at a time, of any object, until there is none.
        fn run(&mut self, mut seed: usize) {
            for _ in 0..500 {
                let steps: Vec<_> = self.0.values().flat_map(|o| plan(&Id::of(CONFIGMAPS, o), o, self)).collect();
                if steps.is_empty() {
                    return;
                }
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pick = (seed >> 33) % steps.len();
                self.apply(steps.into_iter().nth(pick).unwrap());
            }
            panic!("never settles");
        }

        fn uids(&self) -> Vec<&str> {
            self.0.keys().map(String::as_str).collect()
        }
    }

    fn family() -> World {
        let mut world = World::default();
        world.add(0, &[], true);
        world.add(1, &[0], true);
        world.add(2, &[1], true);
        world.add(3, &[0, 9], true);
        world.add(9, &[], true);
        world
    }

    #[test]
    fn background() {
        let mut world = family();
        world.delete("0", "Background");
        world.run(1);
        assert_eq!(world.uids(), ["3", "9"]);
    }

    #[test]
    fn foreground_takes_dependents_first() {
        let mut world = family();
        world.delete("0", "Foreground");
        assert!(world.0.contains_key("0"));
        let before = plan(&Id::of(CONFIGMAPS, &world.0["0"]), &world.0["0"], &world);
        assert_eq!(before, [], "the owner waits");
        world.run(1);
        assert_eq!(world.uids(), ["3", "9"]);
        assert_eq!(world.0["3"].owners().len(), 1);
    }

    #[test]
    fn a_circle_goes() {
        for propagation in ["Foreground", "Background"] {
            let mut world = World::default();
            world.add(0, &[2], true);
            world.add(1, &[0], true);
            world.add(2, &[1], true);
            world.add(3, &[1], true);
            world.delete("0", propagation);
            world.run(1);
            assert_eq!(world.uids(), Vec::<&str>::new(), "{propagation}");
        }
    }

    #[test]
    fn orphans_stay() {
        let mut world = family();
        world.delete("0", "Orphan");
        world.run(1);
        assert_eq!(world.uids(), ["1", "2", "3", "9"]);
        assert_eq!(world.0["1"].owners(), []);
    }

    proptest! {
        /// Whatever is deleted in whatever order: exactly what no remaining root owns goes.
        #[test]
        fn exactly_the_unowned_go(
            parents in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..12),
            block: bool,
            deleted in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..4),
            seed: usize,
        ) {
            let mut world = World::default();
            let mut owners: Vec<Vec<usize>> = vec![];
            for (i, parents) in parents.iter().enumerate() {
                let mut own: Vec<usize> = if i == 0 { vec![] } else { parents.iter().map(|p| p.index(i)).collect() };
                own.sort();
                own.dedup();
                world.add(i, &own, block);
                owners.push(own);
            }
            let mut gone = vec![false; owners.len()];
            for (at, foreground) in deleted {
                let at = at.index(owners.len());
                gone[at] = true;
                world.delete(&at.to_string(), if foreground { "Foreground" } else { "Background" });
            }
            world.run(seed);
            for i in 0..owners.len() {
                gone[i] |= !owners[i].is_empty() && owners[i].iter().all(|o| gone[*o]);
            }
            let left: Vec<_> = (0..owners.len()).filter(|i| !gone[*i]).map(|i| i.to_string()).collect();
            let mut uids = world.uids();
            uids.sort_by_key(|u| u.parse::<usize>().unwrap());
            prop_assert_eq!(uids, left);
        }
    }
}
