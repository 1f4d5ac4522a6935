//! Everything that controllers know: one cache a kind, shared by all of them, and who belongs to whom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    garbage::Graph,
    object::Object,
    step::{Id, Kind},
};

type Name = (String, String);

/// The objects of one kind.
#[derive(Default)]
struct Cache {
    objects: BTreeMap<Name, Arc<Object>>,
    /// The newest revision that the watch told: what an answer to a write says of older ones is old news.
    seen: u64,
    /// The list that is being received.
    listing: Option<BTreeMap<Name, Arc<Object>>>,
    known: bool,
}

/// Caches and indexes.
#[derive(Default)]
pub struct World {
    caches: HashMap<Kind, Cache>,
    by_uid: HashMap<String, Id>,
    dependents: HashMap<String, BTreeSet<Id>>,
    /// What no controller manages, by kind and namespace. Only kinds that can be adopted are asked for.
    loose: BTreeMap<(Kind, String), BTreeSet<String>>,
    /// What we deleted, by uid: news from before that must not bring it back to life.
    doomed: HashSet<String>,
}

/// What happened to an object: as it was, as it is.
pub type Change = (Kind, Option<Arc<Object>>, Option<Arc<Object>>);

impl World {
    /// A watch begins its list anew.
    pub fn list_begins(&mut self, kind: &Kind) {
        self.cache(kind).listing = Some(BTreeMap::new());
    }

    /// An object of the list.
    pub fn listed(&mut self, kind: &Kind, object: Object) {
        let name = (object.namespace().to_owned(), object.name().to_owned());
        self.cache(kind).listing.get_or_insert_default().insert(name, Arc::new(object));
    }

    /// The list is complete. What answers to our own writes told after it was made is kept: the watch will tell.
    pub fn list_ends(&mut self, kind: &Kind) -> Vec<Change> {
        let cache = self.cache(kind);
        cache.known = true;
        let list = cache.listing.take().unwrap_or_default();
        let made = list.values().map(|o| o.revision()).max().unwrap_or(0).max(cache.seen);
        cache.seen = made;
        let gone = cache.objects.iter().filter(|(name, old)| !list.contains_key(*name) && old.revision() <= made);
        let gone: Vec<_> = gone.map(|(_, old)| old.clone()).collect();
        let mut changes: Vec<_> = gone.into_iter().map(|old| self.forget(kind, &old)).collect();
        changes.extend(list.into_values().filter_map(|object| self.put(kind, object)));
        changes
    }

    /// The watch tells of an object.
    pub fn applied(&mut self, kind: &Kind, object: Object) -> Option<Change> {
        let cache = self.cache(kind);
        cache.seen = cache.seen.max(object.revision());
        self.put(kind, Arc::new(object))
    }

    /// The watch tells that an object is gone.
    pub fn deleted(&mut self, kind: &Kind, object: &Object) -> Option<Change> {
        let cache = self.cache(kind);
        cache.seen = cache.seen.max(object.revision());
        let known = cache.objects.get(&(object.namespace().to_owned(), object.name().to_owned()))?;
        // A namesake that we made since is another object.
        if known.uid() != object.uid() {
            return None;
        }
        Some(self.forget(kind, object))
    }

    /// The answer to a write of ours tells of an object, perhaps before the watch does.
    pub fn answered(&mut self, kind: &Kind, object: Object) -> Option<Change> {
        if object.revision() <= self.cache(kind).seen {
            return None;
        }
        self.put(kind, Arc::new(object))
    }

    /// This very object was deleted by us: it counts as on its way out from now on.
    pub fn doom(&mut self, id: &Id, uid: &str) -> Option<Change> {
        let object = self.get(id).filter(|o| o.uid() == uid && !o.deleting())?.clone();
        self.doomed.insert(uid.to_owned());
        self.put(&id.kind, object)
    }

    /// Whether every one of these kinds is known.
    pub fn knows(&self, kinds: &[Kind]) -> bool {
        kinds.iter().all(|kind| self.caches.get(kind).is_some_and(|c| c.known))
    }

    pub fn get(&self, id: &Id) -> Option<&Arc<Object>> {
        self.caches.get(&id.kind)?.objects.get(&(id.namespace.clone(), id.name.clone()))
    }

    /// Objects of a kind in a namespace, or everywhere.
    pub fn all<'a>(&'a self, kind: &Kind, namespace: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Object>> {
        let objects = self.caches.get(kind).map(|c| &c.objects);
        let from = (namespace.unwrap_or_default().to_owned(), String::new());
        let range = objects.into_iter().flat_map(move |o| o.range(from.clone()..));
        range.take_while(move |((ns, _), _)| namespace.is_none_or(|n| n == ns)).map(|(_, object)| object)
    }

    /// Objects of a kind that `owner` owns, and those in its namespace that nobody manages.
    pub fn candidates(&self, kind: &Kind, owner: &Object) -> Vec<&Object> {
        let owned = self.dependents.get(owner.uid()).into_iter().flatten().filter(|id| id.kind == *kind);
        let owned = owned.filter_map(|id| self.get(id)).filter(|o| o.controller().is_some());
        let key = (kind.clone(), owner.namespace().to_owned());
        let names = self.loose.get(&key).into_iter().flatten();
        let loose = names.filter_map(|name| self.get(&Id::new(kind.clone(), owner.namespace(), name)));
        owned.chain(loose).map(|o| &**o).collect()
    }

    /// The object that a reference's uid names, as its kind and place.
    pub fn whose(&self, uid: &str) -> Option<&Id> {
        self.by_uid.get(uid)
    }

    fn cache(&mut self, kind: &Kind) -> &mut Cache {
        self.caches.entry(kind.clone()).or_default()
    }

    fn put(&mut self, kind: &Kind, mut object: Arc<Object>) -> Option<Change> {
        if !object.deleting() && self.doomed.contains(object.uid()) {
            Arc::make_mut(&mut object).meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        }
        let name = (object.namespace().to_owned(), object.name().to_owned());
        let cache = self.cache(kind);
        if let Some(old) = cache.objects.get(&name)
            && (old.revision() > object.revision() || *old == object)
        {
            return None;
        }
        let old = cache.objects.insert(name, object.clone());
        if let Some(old) = &old {
            self.unlink(kind, old);
        }
        let id = Id::of(kind.clone(), &object);
        self.by_uid.insert(object.uid().to_owned(), id.clone());
        for owner in object.owners() {
            self.dependents.entry(owner.uid.clone()).or_default().insert(id.clone());
        }
        if object.controller().is_none() {
            self.loose.entry((kind.clone(), id.namespace)).or_default().insert(id.name);
        }
        Some((kind.clone(), old, Some(object)))
    }

    fn forget(&mut self, kind: &Kind, object: &Object) -> Change {
        let name = (object.namespace().to_owned(), object.name().to_owned());
        let old = self.cache(kind).objects.remove(&name);
        self.doomed.remove(object.uid());
        if let Some(old) = &old {
            self.unlink(kind, old);
        }
        (kind.clone(), old, None)
    }

    fn unlink(&mut self, kind: &Kind, old: &Object) {
        let id = Id::of(kind.clone(), old);
        if self.by_uid.get(old.uid()) == Some(&id) {
            self.by_uid.remove(old.uid());
        }
        for owner in old.owners() {
            if let Some(all) = self.dependents.get_mut(&owner.uid) {
                all.remove(&id);
                if all.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        let key = (kind.clone(), id.namespace);
        if let Some(all) = self.loose.get_mut(&key) {
            all.remove(&id.name);
            if all.is_empty() {
                self.loose.remove(&key);
            }
        }
    }
}

impl Graph for World {
    fn object(&self, uid: &str) -> Option<&Object> {
        self.get(self.by_uid.get(uid)?).map(|o| &**o)
    }

    fn dependents(&self, uid: &str) -> Vec<(Id, &Object)> {
        let ids = self.dependents.get(uid).into_iter().flatten();
        ids.filter_map(|id| Some((id.clone(), &**self.get(id)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{object::Wire, step::PODS};

    fn pod(name: &str, uid: &str, revision: u64) -> Object {
        let meta = json!({"name": name, "uid": uid, "namespace": "a", "resourceVersion": revision.to_string()});
        Object::lift("pods", serde_json::from_value::<Wire>(json!({"metadata": meta})).unwrap())
    }

    #[test]
    fn an_answer_comes_before_or_after_the_watch() {
        let mut world = World::default();
        assert!(world.answered(&PODS, pod("early", "1", 5)).is_some());
        assert!(world.applied(&PODS, pod("early", "1", 5)).is_none());
        // The watch has told of the creation and the deletion before the answer is read.
        world.applied(&PODS, pod("late", "2", 6));
        world.deleted(&PODS, &pod("late", "2", 7));
        assert!(world.answered(&PODS, pod("late", "2", 6)).is_none());
        assert_eq!(world.all(&PODS, None).count(), 1);
    }

    #[test]
    fn what_we_deleted_stays_deleted() {
        let mut world = World::default();
        world.applied(&PODS, pod("a", "1", 5));
        world.doom(&Id::new(PODS, "a", "a"), "1");
        world.applied(&PODS, pod("a", "1", 6));
        assert!(world.object("1").unwrap().deleting());
        world.deleted(&PODS, &pod("a", "1", 7));
        world.applied(&PODS, pod("a", "2", 8));
        assert!(!world.object("2").unwrap().deleting());
    }

    #[test]
    fn a_list_made_before_our_write_does_not_undo_it() {
        let mut world = World::default();
        world.applied(&PODS, pod("old", "1", 3));
        world.list_begins(&PODS);
        world.listed(&PODS, pod("other", "2", 4));
        world.answered(&PODS, pod("ours", "3", 9));
        world.list_ends(&PODS);
        let names: Vec<_> = world.all(&PODS, Some("a")).map(|o| o.name().to_owned()).collect();
        assert_eq!(names, ["other", "ours"]);
        assert!(world.object("1").is_none() && world.object("3").is_some());
    }
}
