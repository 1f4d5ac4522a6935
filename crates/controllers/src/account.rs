//! What every namespace is given: the service account `default` and the authority that its pods trust.

use serde_json::json;

use crate::{
    object::{Body, Object},
    step::{CONFIGMAPS, Id, Merge, SERVICEACCOUNTS, Step},
};

/// The ConfigMap with the certificate authority.
pub const AUTHORITY: &str = "kube-root-ca.crt";
/// The service account of pods that name none.
pub const DEFAULT: &str = "default";

/// What to do about a namespace. `account` and `authority` are the two objects, if they exist.
pub fn plan(namespace: &Object, account: Option<&Object>, authority: Option<&Object>, ca: &str) -> Vec<Step> {
    let name = namespace.name();
    let mut steps = Vec::new();
    if namespace.deleting() {
        return steps;
    }
    if account.is_none() {
        let object = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": name, "name": DEFAULT},
        });
        steps.push(Step::Create { kind: SERVICEACCOUNTS, namespace: name.to_owned(), object });
    }
    match authority.map(|a| &a.body) {
        Some(Body::Authority(known)) if known == ca => {}
        Some(_) => {
            let id = Id::new(CONFIGMAPS, name, AUTHORITY);
            steps.push(Step::Patch { id, merge: Merge::Json, patch: json!({"data": {"ca.crt": ca}}) });
        }
        None => {
            let object = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": name, "name": AUTHORITY},
                "data": {"ca.crt": ca},
            });
            steps.push(Step::Create { kind: CONFIGMAPS, namespace: name.to_owned(), object });
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Wire;

    #[test]
    fn given_once_and_renewed() {
        let object = |kind: &str, wire| Object::lift(kind, serde_json::from_value::<Wire>(wire).unwrap());
        let namespace = object("namespaces", json!({"metadata": {"name": "a"}}));
        let account = object("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "a"}}));
        let map = json!({"metadata": {"name": AUTHORITY, "namespace": "a"}, "data": {"ca.crt": "PEM"}});
        let authority = object("configmaps", map);
        assert_eq!(plan(&namespace, None, None, "PEM").len(), 2);
        assert_eq!(plan(&namespace, Some(&account), Some(&authority), "PEM"), []);
        assert!(matches!(&plan(&namespace, Some(&account), Some(&authority), "new")[..], [Step::Patch { .. }]));
        let going = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(plan(&object("namespaces", going), None, None, "PEM"), []);
    }
}
