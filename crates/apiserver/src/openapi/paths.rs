//! The paths of a kind and what can be done there.

use api::{
    Kind, Scope, Subresource, Verb,
    schema::{Version, list_definition},
};
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const LOG: &[&str] = &[
    "container",
    "follow",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "sinceTime",
    "stream",
    "tailLines",
    "timestamps",
];
const EXEC: &[&str] = &["command", "container", "stderr", "stdin", "stdout", "tty"];
const ATTACH: &[&str] = &["container", "stderr", "stdin", "stdout", "tty"];
const INTEGERS: &[&str] = &["gracePeriodSeconds", "limit", "limitBytes", "sinceSeconds", "tailLines", "timeoutSeconds"];
const STRINGS: &[&str] = &[
    "command",
    "container",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "labelSelector",
    "ports",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sinceTime",
    "stream",
];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const BODIES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// `api/v1` or `apis/GROUP/VERSION`.
pub(super) fn root(kind: &Kind) -> String {
    let prefix = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", kind.api_version())
}

/// One thing that can be done.
struct Operation {
    method: &'static str,
    action: &'static str,
    /// Group, version and kind of the objects.
    about: [String; 3],
    query: &'static [&'static str],
    body: Option<String>,
    /// The definition of the answer; empty for a stream.
    answer: String,
}

/// All paths of a kind.
pub(super) fn of(kind: &Kind, version: Version) -> Map<String, Value> {
    let mut paths = Map::new();
    let mut add = |path: String, operations: Vec<Operation>| {
        if !operations.is_empty() {
            let item = item(&path, kind, operations, version);
            paths.insert(path, item);
        }
    };
    let root = format!("/{}", root(kind));
    let collection = match kind.scope {
        Scope::Cluster => format!("{root}/{}", kind.plural),
        Scope::Namespaced => format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
    };
    let every = [Verb::List, Verb::Create, Verb::DeleteCollection];
    add(collection.clone(), kind.verbs.iter().filter(|v| every.contains(v)).filter_map(|v| main(kind, *v)).collect());
    if kind.scope == Scope::Namespaced && kind.verbs.contains(&Verb::List) {
        add(format!("{root}/{}", kind.plural), main(kind, Verb::List).into_iter().collect());
    }
    let each = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    let object = format!("{collection}/{{name}}");
    add(object.clone(), kind.verbs.iter().filter(|v| each.contains(v)).filter_map(|v| main(kind, *v)).collect());
    for part in kind.subresources {
        add(format!("{object}/{}", part.name()), sub(kind, *part));
    }
    paths
}

fn own(kind: &Kind) -> [String; 3] {
    [kind.group.to_string(), kind.version.to_string(), kind.kind.to_string()]
}

fn operation(about: [String; 3], definition: &str, verb: Verb) -> Operation {
    let one = definition.to_owned();
    let status = format!("{META}.Status");
    let options = Some(format!("{META}.DeleteOptions"));
    let (method, action, query, body, answer) = match verb {
        Verb::Get => ("get", "get", &[][..], None, one),
        Verb::List | Verb::Watch => ("get", "list", LIST, None, one),
        Verb::Create => ("post", "post", WRITE, Some(one.clone()), one),
        Verb::Update => ("put", "put", WRITE, Some(one.clone()), one),
        Verb::Patch => ("patch", "patch", PATCH, Some(format!("{META}.Patch")), one),
        Verb::Delete => ("delete", "delete", DELETE, options, status),
        Verb::DeleteCollection => ("delete", "deletecollection", DELETE, options, status),
    };
    Operation { method, action, about, query, body, answer }
}

fn main(kind: &Kind, verb: Verb) -> Option<Operation> {
    let definition = match verb {
        Verb::Watch => return None,
        Verb::List => list_definition(kind),
        _ => kind.definition.to_string(),
    };
    let mut operation = operation(own(kind), &definition, verb);
    if verb == Verb::Delete && kind.returns_deleted {
        operation.answer = definition;
    }
    Some(operation)
}

fn sub(kind: &Kind, part: Subresource) -> Vec<Operation> {
    let other = |group: &str, name: &str| [group.to_owned(), "v1".to_owned(), name.to_owned()];
    let connect = |query, methods: &[&'static str]| {
        let one = |method: &&'static str| {
            let about = other("", &format!("Pod{}Options", if query == LOG { "Log" } else { "Exec" }));
            Operation { method, action: "connect", about, query, body: None, answer: String::new() }
        };
        methods.iter().map(one).collect()
    };
    let some = |about: [String; 3], definition: &str, verbs: &[Verb]| {
        verbs.iter().map(|verb| operation(about.clone(), definition, *verb)).collect()
    };
    let all = [Verb::Get, Verb::Update, Verb::Patch];
    match part {
        Subresource::Status | Subresource::EphemeralContainers => some(own(kind), &kind.definition, &all),
        Subresource::Finalize => some(own(kind), &kind.definition, &[Verb::Update]),
        Subresource::Scale => some(other("autoscaling", "Scale"), "io.k8s.api.autoscaling.v1.Scale", &all),
        Subresource::Binding => some(other("", "Binding"), "io.k8s.api.core.v1.Binding", &[Verb::Create]),
        Subresource::Eviction => some(other("policy", "Eviction"), "io.k8s.api.policy.v1.Eviction", &[Verb::Create]),
        Subresource::Token => some(
            other("authentication.k8s.io", "TokenRequest"),
            "io.k8s.api.authentication.v1.TokenRequest",
            &[Verb::Create],
        ),
        Subresource::Log => connect(LOG, &["get"]),
        Subresource::Exec => connect(EXEC, &["get", "post"]),
        Subresource::Attach => connect(ATTACH, &["get", "post"]),
        Subresource::PortForward => connect(&["ports"], &["get", "post"]),
        Subresource::Proxy => connect(&["path"], &["delete", "get", "patch", "post", "put"]),
    }
}

/// A path item: parameters in the path, and an operation for each method.
fn item(path: &str, kind: &Kind, operations: Vec<Operation>, version: Version) -> Value {
    let mut item = Map::new();
    for operation in operations {
        let id = operation_id(path, &operation);
        item.insert(operation.method.into(), render(operation, id, kind, version));
    }
    let in_path = ["namespace", "name"].into_iter().filter(|name| path.contains(&format!("{{{name}}}")));
    let parameters: Vec<Value> = in_path.map(|name| parameter(name, "path", version)).collect();
    if !parameters.is_empty() {
        item.insert("parameters".into(), parameters.into());
    }
    Value::Object(item)
}

/// Unique in a document: the action and the path, without what cannot stand in an identifier.
fn operation_id(path: &str, operation: &Operation) -> String {
    let mut id = if operation.action == "connect" { operation.method } else { operation.action }.to_owned();
    for part in path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        id.push_str(&part[..1].to_ascii_uppercase());
        id.push_str(&part[1..]);
    }
    id
}

fn render(operation: Operation, id: String, kind: &Kind, version: Version) -> Value {
    let mut parameters: Vec<Value> = operation.query.iter().map(|name| parameter(name, "query", version)).collect();
    let takes = if operation.method == "patch" { PATCHES } else { BODIES };
    let schema = |definition: &str| match version {
        Version::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
        Version::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
    };
    let content = |definition: &str, media: &[&str]| -> Value {
        media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema(definition)}))).collect::<Map<_, _>>().into()
    };
    let mut answer = json!({"description": "OK"});
    let mut rendered = json!({"operationId": id, "tags": [root(kind).replace('/', "_")]});
    match version {
        Version::V2 => {
            if let Some(body) = &operation.body {
                parameters.insert(0, json!({"name": "body", "in": "body", "required": operation.method != "delete", "schema": schema(body)}));
                rendered["consumes"] = json!(takes);
            }
            rendered["produces"] = json!(["application/json"]);
            if !operation.answer.is_empty() {
                answer["schema"] = schema(&operation.answer);
            }
        }
        Version::V3 => {
            if let Some(body) = &operation.body {
                rendered["requestBody"] =
                    json!({"content": content(body, takes), "required": operation.method != "delete"});
            }
            if !operation.answer.is_empty() {
                answer["content"] = content(&operation.answer, &["application/json"]);
            }
        }
    }
    rendered["parameters"] = parameters.into();
    rendered["responses"] = json!({"200": answer});
    rendered["x-kubernetes-action"] = operation.action.into();
    let [group, version, kind] = operation.about;
    rendered["x-kubernetes-group-version-kind"] = json!({"group": group, "version": version, "kind": kind});
    rendered
}

fn parameter(name: &str, place: &str, version: Version) -> Value {
    let kind = match name {
        _ if INTEGERS.contains(&name) => "integer",
        _ if place == "path" || STRINGS.contains(&name) => "string",
        _ => "boolean",
    };
    let mut parameter = json!({"name": name, "in": place});
    match version {
        Version::V2 => parameter["type"] = kind.into(),
        Version::V3 => parameter["schema"] = json!({"type": kind}),
    }
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}
