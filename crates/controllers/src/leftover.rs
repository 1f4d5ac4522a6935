//! Leftover pods: those that nobody ends because their node does not exist, and those that ran to their end long ago.

use std::cmp::Reverse;

use crate::{
    object::{Body, Object},
    replicaset::{Phase, Pod},
    step::{Id, PODS, Step},
};

/// How many pods that ran to their end a namespace keeps: enough to look back, too few to fill the store. Kubernetes
/// counts 12,500 in the whole cluster.
const KEPT: usize = 1000;

/// What to do about a pod whose node did not exist for a while.
pub fn orphan(object: &Object, node_exists: bool) -> Vec<Step> {
    match &object.body {
        Body::Pod(Pod { node: Some(_), .. }) if !node_exists => {
            vec![Step::Finish { id: Id::of(PODS, object), uid: object.uid().to_owned() }]
        }
        _ => Vec::new(),
    }
}

/// What to do about all the pods of a namespace.
pub fn ended<'a>(pods: impl Iterator<Item = &'a Object>) -> Vec<Step> {
    let over = |pod: &&Object| matches!(&pod.body, Body::Pod(p) if p.phase == Phase::Finished) && !pod.deleting();
    let mut ended: Vec<_> = pods.filter(over).collect();
    ended.sort_by_key(|pod| Reverse((pod.created(), pod.name())));
    let delete =
        |pod: &&Object| Step::Delete { id: Id::of(PODS, pod), uid: pod.uid().to_owned(), propagation: "Background" };
    ended.iter().skip(KEPT).map(delete).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Wire;

    fn pod(name: &str, second: i64, phase: &str, node: &str) -> Object {
        let at = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
        let wire = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": at},
            "spec": {"nodeName": node}, "status": {"phase": phase}});
        Object::lift("pods", serde_json::from_value::<Wire>(wire).unwrap())
    }

    #[test]
    fn only_a_missing_node_orphans() {
        assert!(matches!(orphan(&pod("p", 0, "Running", "ghost"), false)[..], [Step::Finish { .. }]));
        assert_eq!(orphan(&pod("p", 0, "Running", "there"), true), []);
        assert_eq!(orphan(&pod("p", 0, "Pending", ""), false), []);
    }

    #[test]
    fn the_oldest_that_ended_go() {
        let mut pods: Vec<_> = (0..KEPT as i64 + 2).map(|n| pod(&format!("p{n}"), n, "Failed", "n")).collect();
        pods.push(pod("runs", -9, "Running", "n"));
        let steps = ended(pods.iter());
        let names: Vec<_> =
            steps.iter().map(|s| if let Step::Delete { id, .. } = s { &*id.name } else { "" }).collect();
        assert_eq!(names, ["p1", "p0"]);
    }
}
