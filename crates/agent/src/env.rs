//! The environment of a container.

use std::collections::{BTreeMap, btree_map::Entry};

use k8s_openapi::api::core::v1::{Container, EnvVar};

use crate::{
    fields::{self, Facts},
    objects::{Entries, Objects, Source},
    observe::Failure,
    pod,
};

/// Objects that a container's environment refers to, by kind and name; `None` where there is none.
pub type Referred = BTreeMap<(&'static str, String), Option<Entries>>;

/// Fetches what the environment of a container refers to.
pub async fn fetch(objects: &Objects, namespace: &str, container: &Container) -> Result<Referred, Failure> {
    let mut found = Referred::new();
    for (source, name) in references(container) {
        let key = (source.noun(), name);
        if let Entry::Vacant(vacant) = found.entry(key) {
            let got = objects.get(source, namespace, &vacant.key().1).await.map_err(|e| refused(e.to_string()))?;
            vacant.insert(got);
        }
    }
    Ok(found)
}

fn references(container: &Container) -> Vec<(Source, String)> {
    let mut all = Vec::new();
    for from in container.env_from.iter().flatten() {
        all.extend(from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone())));
        all.extend(from.secret_ref.as_ref().map(|r| (Source::Secret, r.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        all.extend(from.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, r.name.clone())));
        all.extend(from.secret_key_ref.as_ref().map(|r| (Source::Secret, r.name.clone())));
    }
    all
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|e| e.0 == name) {
        Some(entry) => entry.1 = value,
        None => env.push((name.into(), value)),
    }
}

/// All of both, `own` winning.
pub fn merge(base: Vec<(String, String)>, own: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut env = Vec::with_capacity(base.len() + own.len());
    for (name, value) in base.into_iter().chain(own) {
        set(&mut env, &name, value);
    }
    env
}

/// The environment: `services`, then `envFrom`, then `env`, later ones winning, `$(NAME)` expanded by what stands before.
pub fn build(
    facts: &Facts<'_>,
    container: &Container,
    referred: &Referred,
    services: Vec<(String, String)>,
) -> Result<Vec<(String, String)>, Failure> {
    let mut env = services;
    let namespace = pod::namespace(facts.pod);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let refs = [
            from.config_map_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, r.optional)),
            from.secret_ref.as_ref().map(|r| (Source::Secret, &r.name, r.optional)),
        ];
        for (source, name, optional) in refs.into_iter().flatten() {
            match referred.get(&(source.noun(), name.clone())).and_then(Option::as_ref) {
                None if optional == Some(true) => {}
                None => return Err(refused(format!("{} \"{name}\" not found", source.noun()))),
                Some(entries) => {
                    for (key, value) in entries.iter() {
                        let name = format!("{prefix}{key}");
                        // What cannot be a variable is left out, as upstream does.
                        if !name.is_empty() && !name.contains(['=', '\0']) {
                            set(&mut env, &name, text(value));
                        }
                    }
                }
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match value(facts, container, referred, var, namespace)? {
            Some(Value::Plain(text)) => expand(&text, |name| env.iter().find(|e| e.0 == name).map(|e| e.1.clone())),
            Some(Value::Literal(text)) => text,
            None => continue,
        };
        set(&mut env, &var.name, value);
    }
    match env.iter().find(|(_, v)| v.contains('\0')) {
        Some((name, _)) => Err(refused(format!("environment variable {name} contains a NUL byte"))),
        None => Ok(env),
    }
}

enum Value {
    /// Written in the spec: references in it are expanded.
    Plain(String),
    /// From elsewhere: taken as it is.
    Literal(String),
}

fn value(
    facts: &Facts<'_>,
    container: &Container,
    referred: &Referred,
    var: &EnvVar,
    namespace: &str,
) -> Result<Option<Value>, Failure> {
    let Some(from) = &var.value_from else {
        return Ok(Some(Value::Plain(var.value.clone().unwrap_or_default())));
    };
    if let Some(r) = &from.field_ref {
        let found = fields::field(facts, &r.field_path);
        let none = || refused(format!("env {}: field {:?} is not supported", var.name, r.field_path));
        return Ok(Some(Value::Literal(found.ok_or_else(none)?)));
    }
    if let Some(r) = &from.resource_field_ref {
        let found = fields::resource(facts, Some(container), r);
        let none = || refused(format!("env {}: resource {:?} is not supported", var.name, r.resource));
        return Ok(Some(Value::Literal(found.ok_or_else(none)?)));
    }
    let refs = [
        from.config_map_key_ref.as_ref().map(|r| (Source::ConfigMap, &r.name, &r.key, r.optional)),
        from.secret_key_ref.as_ref().map(|r| (Source::Secret, &r.name, &r.key, r.optional)),
    ];
    let Some((source, name, key, optional)) = refs.into_iter().flatten().next() else {
        return Err(refused(format!("env {}: this source is not supported", var.name)));
    };
    let entries = referred.get(&(source.noun(), name.clone())).and_then(Option::as_ref);
    match entries.map(|e| e.get(key)) {
        Some(Some(bytes)) => Ok(Some(Value::Literal(text(bytes)))),
        _ if optional == Some(true) => Ok(None),
        Some(None) => {
            let noun = if source == Source::ConfigMap { "ConfigMap" } else { "Secret" };
            Err(refused(format!("couldn't find key {key} in {noun} {namespace}/{name}")))
        }
        None => Err(refused(format!("{} \"{name}\" not found", source.noun()))),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn refused(message: String) -> Failure {
    Failure { reason: "CreateContainerConfigError", message }
}

/// Expands `$(NAME)`; `$$` is `$`; a name that is not known stays as it is written.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = tail.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..at + name.len() + 3]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::config::Capacity;

    #[test]
    fn expansion() {
        let lookup = |n: &str| (n == "A").then(|| "1".to_string());
        for (text, out) in [
            ("$(A)-$(A)", "1-1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$b", "a$b"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, lookup), out, "{text}");
        }
    }

    fn built(container: serde_json::Value, referred: &Referred) -> Result<Vec<(String, String)>, Failure> {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [container]}}))
        .unwrap();
        let facts = Facts { pod: &pod, ips: &[], host_ips: &[], node: "x", capacity: Capacity::default() };
        build(&facts, &pod::spec(&pod).containers[0], referred, vec![("PATH".into(), "/bin".into())])
    }

    #[test]
    fn order_and_sources() {
        let entries: Entries = Arc::new([("a".to_string(), b"1".to_vec()), ("b".into(), b"2".to_vec())].into());
        let referred: Referred = [(("configmap", "m".into()), Some(entries)), (("secret", "s".into()), None)].into();
        let env = built(
            json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "m"}},
                {"secretRef": {"name": "s", "optional": true}}],
              "env": [{"name": "X", "value": "$(P_a)$(LATER)"}, {"name": "LATER", "value": "l"},
                {"name": "P_b", "value": "own"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "a"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "zz", "optional": true}}}]}),
            &referred,
        )
        .unwrap();
        let env: Vec<String> = env.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(env, ["PATH=/bin", "P_a=1", "P_b=own", "X=1$(LATER)", "LATER=l", "N=p", "K=1"]);
    }

    #[test]
    fn what_a_definition_says_wins() {
        let pair = |k: &str, v: &str| (k.to_string(), v.to_string());
        let image = vec![pair("PATH", "/bin"), pair("A", "1")];
        assert_eq!(merge(image, vec![pair("A", "2")]), [pair("PATH", "/bin"), pair("A", "2")]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let entries: Entries = Arc::new(BTreeMap::new());
        let referred: Referred = [(("configmap", "m".into()), Some(entries))].into();
        let key =
            json!({"name": "c", "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]});
        assert_eq!(built(key, &referred).unwrap_err().message, "couldn't find key k in ConfigMap n/m");
        let secret = json!({"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]});
        let failure = built(secret, &referred).unwrap_err();
        assert_eq!(
            (failure.reason, failure.message.as_str()),
            ("CreateContainerConfigError", "secret \"s\" not found")
        );
    }

    proptest::proptest! {
        #[test]
        fn expansion_never_panics(text in "[$()A-Zé]{0,20}") {
            let _ = expand(&text, |n| (n.len() == 1).then(|| "x".into()));
        }
    }
}
