//! What one rule allows, and whether rules allow all that others do.

use std::collections::HashSet;

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
pub(crate) fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> impl Iterator<Item = PolicyRule> {
    uncovered(held, wanted).flat_map(atoms).filter(|atom| !held.iter().any(|rule| covers(rule, atom)))
}

/// How many parts [`missing`] looks at, at most.
pub(crate) fn parts(held: &[PolicyRule], wanted: &[PolicyRule]) -> usize {
    let parts = |rule: &PolicyRule| {
        let named = list(&rule.resource_names).len().max(1);
        let resources = [list(&rule.api_groups).len(), list(&rule.resources).len(), named];
        let resources = resources.into_iter().fold(1, usize::saturating_mul);
        rule.verbs.len().saturating_mul(resources.saturating_add(list(&rule.non_resource_urls).len()))
    };
    uncovered(held, wanted).map(parts).fold(0, usize::saturating_add)
}

/// The rules of `wanted` that no single rule of `held` covers: only these need be taken apart.
fn uncovered<'a>(held: &[PolicyRule], wanted: &'a [PolicyRule]) -> impl Iterator<Item = &'a PolicyRule> {
    wanted.iter().filter(|wanted| !held.iter().any(|rule| covers(rule, wanted)))
}

/// A rule taken apart: one verb on one resource of one group (and one name), or on one URL, each.
fn atoms(rule: &PolicyRule) -> impl Iterator<Item = PolicyRule> {
    let one = |text: &String| Some(vec![text.clone()]);
    let of_verb = move |verb: &String| PolicyRule { verbs: vec![verb.clone()], ..PolicyRule::default() };
    let urls = rule.verbs.iter().flat_map(move |verb| {
        let urls = list(&rule.non_resource_urls).iter();
        urls.map(move |url| PolicyRule { non_resource_urls: one(url), ..of_verb(verb) })
    });
    // No names are one way to name: all.
    let names = move || {
        let names = list(&rule.resource_names);
        names.iter().map(Some).chain(names.is_empty().then_some(None))
    };
    let resources = rule.verbs.iter().flat_map(move |verb| {
        list(&rule.api_groups).iter().flat_map(move |group| {
            list(&rule.resources).iter().flat_map(move |resource| {
                names().map(move |name| PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.and_then(one),
                    ..of_verb(verb)
                })
            })
        })
    });
    urls.chain(resources)
}

/// Whether `rule` alone allows all that `wanted` does.
fn covers(rule: &PolicyRule, wanted: &PolicyRule) -> bool {
    let wide = |held: &[String], wanted: &[String]| {
        let held = holds(held, wanted.len());
        held("*") || wanted.iter().all(|w| held(w))
    };
    let resources = |held: &[String], wanted: &[String]| {
        let held = holds(held, wanted.len());
        let of_any = |w: &str| w.split_once('/').is_some_and(|(_, sub)| !sub.is_empty() && held(&format!("*/{sub}")));
        held("*") || wanted.iter().all(|w| held(w) || of_any(w))
    };
    wide(&rule.verbs, &wanted.verbs)
        && list(&wanted.non_resource_urls).iter().all(|w| any(list(&rule.non_resource_urls), |h| url_matches(h, w)))
        && wide(list(&rule.api_groups), list(&wanted.api_groups))
        && resources(list(&rule.resources), list(&wanted.resources))
        && match (list(&rule.resource_names), list(&wanted.resource_names)) {
            _ if list(&wanted.resources).is_empty() => true,
            ([], _) => true,
            (_, []) => false,
            (held, wanted) => {
                let held = holds(held, wanted.len());
                wanted.iter().all(|w| held(w))
            }
        }
}

/// Tells whether a text is among these; for many questions about many texts by an index.
fn holds(texts: &[String], questions: usize) -> impl Fn(&str) -> bool {
    let many = texts.len().saturating_mul(questions) > 10_000;
    let index = many.then(|| texts.iter().map(String::as_str).collect::<HashSet<_>>());
    move |text| index.as_ref().map_or_else(|| texts.iter().any(|t| t == text), |index| index.contains(text))
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
