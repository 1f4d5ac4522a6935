//! How an object in a project tells whose it is: tags or metadata where its API has them, words in its description
//! where it has not.

use std::collections::BTreeMap;

use serde_json::Value;

/// The key of a cluster's name.
pub const CLUSTER: &str = "rastos-cluster";
/// The key of a cluster's uid, which tells it from earlier ones of that name.
pub const UID: &str = "rastos-uid";

/// A cluster as its objects name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Mark {
    /// The marks as tags.
    pub fn tags(&self) -> Vec<String> {
        vec![format!("{CLUSTER}={}", self.name), format!("{UID}={}", self.uid)]
    }

    /// The marks as metadata.
    pub fn metadata(&self) -> BTreeMap<&'static str, &str> {
        BTreeMap::from([(CLUSTER, self.name.as_str()), (UID, self.uid.as_str())])
    }

    /// The marks as words of a description.
    pub fn description(&self) -> String {
        self.tags().join(" ")
    }

    /// The name of the stack that outlives the machines.
    pub fn state_stack(name: &str) -> String {
        format!("rastos-{name}-state")
    }

    /// The name of the stack of all else.
    pub fn stack(name: &str) -> String {
        format!("rastos-{name}")
    }

    /// The tag of an image that a cluster uses.
    pub fn image_tag(&self) -> String {
        format!("{CLUSTER}={}/{}", self.name, self.uid)
    }

    /// The clusters that an object, as its service lists it, names as its own. An image may have several.
    pub fn on(object: &Value) -> Vec<Self> {
        let tags: Vec<&str> = match &object["tags"] {
            Value::Array(tags) => tags.iter().filter_map(Value::as_str).collect(),
            // Heat's list gives them in one text.
            Value::String(tags) => tags.split(',').map(str::trim).collect(),
            _ => Vec::new(),
        };
        let shared: Vec<Self> = tags.iter().filter_map(|t| Self::of_image_tag(t)).collect();
        if !shared.is_empty() {
            return shared;
        }
        let words = tags.iter().copied().chain(object["description"].as_str().unwrap_or("").split_whitespace());
        let pairs = words.filter_map(|w| w.split_once('='));
        let metadata = object["metadata"].as_object().into_iter().flatten();
        let all: BTreeMap<&str, &str> =
            pairs.chain(metadata.filter_map(|(k, v)| Some((k.as_str(), v.as_str()?)))).collect();
        let mark = all.get(CLUSTER).zip(all.get(UID)).map(|(n, u)| Self { name: (*n).into(), uid: (*u).into() });
        mark.into_iter().collect()
    }

    fn of_image_tag(tag: &str) -> Option<Self> {
        let (name, uid) = tag.strip_prefix(CLUSTER)?.strip_prefix('=')?.split_once('/')?;
        Some(Self { name: name.into(), uid: uid.into() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_are_found_wherever_an_api_keeps_them() {
        let mark = Mark { name: "demo".into(), uid: "u-1".into() };
        for object in [
            json!({"tags": mark.tags()}),
            json!({"tags": mark.tags().join(",")}),
            json!({"tags": [mark.image_tag(), "rastos"]}),
            json!({"metadata": mark.metadata(), "tags": []}),
            json!({"description": mark.description()}),
        ] {
            assert_eq!(Mark::on(&object).as_slice(), std::slice::from_ref(&mark), "{object}");
        }
        let other = Mark { name: "b".into(), uid: "u-2".into() };
        assert_eq!(Mark::on(&json!({"tags": [mark.image_tag(), other.image_tag()]})), [mark, other]);
    }

    #[test]
    fn other_people_s_objects_are_nobody_s() {
        for object in [json!({}), json!({"tags": ["rastos-cluster=demo"]}), json!({"description": "rastos demo"})] {
            assert_eq!(Mark::on(&object), []);
        }
    }
}
