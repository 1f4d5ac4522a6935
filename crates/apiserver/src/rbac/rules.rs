//! What one rule allows, and whether rules allow all that others do.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::Attributes;

/// Whether the rule allows the request.
pub(crate) fn allows(rule: &PolicyRule, at: &Attributes) -> bool {
    if !any(&rule.verbs, |verb| verb == "*" || *verb == at.verb) {
        return false;
    }
    if !at.is_resource {
        return any(list(&rule.non_resource_urls), |url| url_matches(url, &at.path));
    }
    any(list(&rule.api_groups), |group| group == "*" || *group == at.group)
        && any(list(&rule.resources), |resource| resource_matches(resource, &at.resource, &at.subresource))
        && match list(&rule.resource_names) {
            [] => true,
            names => !at.name.is_empty() && names.contains(&at.name),
        }
}

/// `*`, a path, or the beginning of paths (`/healthz/*`).
fn url_matches(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

/// `*` (subresources too), `pods`, `pods/log`, or `*/scale` (of any resource).
fn resource_matches(allowed: &str, resource: &str, subresource: &str) -> bool {
    match allowed.split_once('/') {
        _ if allowed == "*" => true,
        None => subresource.is_empty() && allowed == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

/// The parts of `wanted` that `held` does not allow: none means that whoever holds `held` may give `wanted` away.
pub(crate) fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let atoms = wanted.iter().flat_map(atoms);
    atoms.filter(|atom| !held.iter().any(|rule| covers(rule, atom))).collect()
}

/// A rule taken apart: one verb on one resource of one group (and one name), or on one URL, each.
fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut all = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for url in list(&rule.non_resource_urls) {
            let non_resource_urls = Some(vec![url.clone()]);
            all.push(PolicyRule { verbs: verbs.clone(), non_resource_urls, ..PolicyRule::default() });
        }
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                let atom = PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: Some(vec![group.clone()]),
                    resources: Some(vec![resource.clone()]),
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => all.push(atom),
                    names => all.extend(
                        names.iter().map(|n| PolicyRule { resource_names: Some(vec![n.clone()]), ..atom.clone() }),
                    ),
                }
            }
        }
    }
    all
}

/// Whether `rule` allows all that `atom` does.
fn covers(rule: &PolicyRule, atom: &PolicyRule) -> bool {
    let wide = |held: &[String], wanted: &[String]| any(held, |h| h == "*") || wanted.iter().all(|w| held.contains(w));
    if !wide(&rule.verbs, &atom.verbs) {
        return false;
    }
    if let [url] = list(&atom.non_resource_urls) {
        return any(list(&rule.non_resource_urls), |held| url_matches(held, url));
    }
    let [resource] = list(&atom.resources) else { return false };
    wide(list(&rule.api_groups), list(&atom.api_groups))
        && any(list(&rule.resources), |held| match resource.split_once('/') {
            _ if held == resource => true,
            Some((of, sub)) => resource_matches(held, of, sub),
            None => held == "*",
        })
        && match (list(&rule.resource_names), list(&atom.resource_names)) {
            ([], _) => true,
            (_, []) => false,
            (held, wanted) => wanted.iter().all(|w| held.contains(w)),
        }
}

/// A rule in one line, as refusals name it.
pub(crate) fn shown(rule: &PolicyRule) -> String {
    let mut parts = Vec::new();
    let fields = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("ResourceNames", list(&rule.resource_names)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("Verbs", &rule.verbs),
    ];
    for (name, values) in fields {
        if !values.is_empty() {
            parts.push(format!("{name}:{values:?}"));
        }
    }
    format!("{{{}}}", parts.join(", "))
}

fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}

fn any(values: &[String], holds: impl Fn(&String) -> bool) -> bool {
    values.iter().any(holds)
}
