//! `docs/compatibility.md`: what is served and what is refused, from the registry and the table of fields.

use std::fmt::Write;

use crate::{
    mergekeys::child,
    registry::{Scope, Verb},
    support::{self, Support},
};

const HEAD: &str = "\
# Compatibility

What rastOS serves of Kubernetes' API, and what it refuses. This page is made from the registry of kinds and the table
of fields in `crates/api`; do not edit it, but run `RAST_BLESS=1 cargo nextest run -p api compatibility`.

Nothing is dropped in silence: a field or value that is not served is refused with status 422, reason
`FieldValueNotSupported`, its path, and the words below. An unknown field is refused, warned of or ignored as
`fieldValidation` says.
";

const BESIDES: &[(&str, &str)] = &[
    ("`Container.restartPolicy` but for `Always` of an init container", "use `spec.restartPolicy`"),
    ("`VolumeMount.mountPropagation: Bidirectional`", "use HostToContainer or None"),
    ("`VolumeMount.mountPath` that is relative, the root, in `/proc`, or has `..`", "name an absolute path"),
    ("`EmptyDirVolumeSource.medium: HugePages`", "use Memory, or none"),
    ("classes that a Pod itself names", "there are none: status 403, as upstream answers for one that does not exist"),
    ("resources but for cpu, memory and ephemeral-storage", "no node has others"),
    ("quantities beyond 2^63-1", "upstream cuts some down to it without a word"),
    ("sysctls beyond those that are safe", "they would reach beyond the pod"),
    ("Secrets of type `kubernetes.io/service-account-token`", "use the token subresource, or a projected volume"),
    ("`!!binary` in YAML that is not text", "it has no form in JSON"),
];

/// The page, in Markdown.
pub fn compatibility() -> String {
    let mut page = HEAD.to_owned();
    kinds(&mut page);
    page.push_str("\n## Fields\n");
    for (definition, fields) in support::tables() {
        let name = definition.rsplit('.').next().unwrap_or(definition);
        // Writing to a string cannot fail.
        let _ = write!(page, "\n### {name}\n\n| Field | | Test, or why not |\n|---|---|---|\n");
        for (field, support) in *fields {
            let of = child(&format!("io.k8s.{definition}"), field).and_then(|c| c.definition);
            let of = of.and_then(|d| d.rsplit('.').next()).map(|d| format!(" ({d})")).unwrap_or_default();
            let _ = match support {
                Support::Served(test) => writeln!(page, "| `{field}`{of} | served | `{test}` |"),
                Support::Refused(why) => writeln!(page, "| `{field}` | refused | is not served: {why} |"),
                Support::Only(values, why) => {
                    let values = values.join(" or ");
                    writeln!(page, "| `{field}` | refused but as `{values}` | {why} |")
                }
            };
        }
    }
    page.push_str("\n## Values that are refused besides\n\n| What | Why, or what instead |\n|---|---|\n");
    for (what, why) in BESIDES {
        let _ = writeln!(page, "| {what} | {why} |");
    }
    page
}

fn kinds(page: &mut String) {
    page.push_str("\n## Kinds\n\n| Kind | API | Scope | Verbs | Subresources |\n|---|---|---|---|---|\n");
    for kind in crate::builtin().kinds() {
        let scope = if kind.scope == Scope::Namespaced { "namespace" } else { "cluster" };
        let verbs = match kind.stored {
            true if kind.verbs.len() == Verb::ALL.len() => "all".to_owned(),
            _ => kind.verbs.iter().map(|v| v.name()).collect::<Vec<_>>().join(", "),
        };
        let parts = kind.subresources.iter().map(|part| part.name()).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| {} | {} | {scope} | {verbs} | {parts} |", kind.kind, kind.api_version());
    }
    page.push_str("\n\"All\" is create, delete, deletecollection, get, list, patch, update and watch.\n");
}
