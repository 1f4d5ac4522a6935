//! What is served: `/api`, `/apis`, groups, versions, aggregated discovery, version and health.

use std::collections::{BTreeMap, BTreeSet};

use api::{Kind, Scope, Subresource};
use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::{ApiError, Server, call::json_response, wire::accept::Media};

/// Everything that tells what is served, and whether. A path may end in a slash: some clients write it so.
pub(crate) fn routes() -> Router<Server> {
    let all = [
        ("/api", get(|State(s): State<Server>, headers: HeaderMap| async move { index(&s, &headers, true) })),
        ("/apis", get(|State(s): State<Server>, headers: HeaderMap| async move { index(&s, &headers, false) })),
        ("/api/{version}", get(core_version)),
        ("/apis/{group}", get(group)),
        ("/apis/{group}/{version}", get(group_version)),
        ("/version", get(version)),
        ("/healthz", get(health)),
        ("/livez", get(async || "ok")),
        ("/readyz", get(health)),
    ];
    let routes = all.into_iter().fold(Router::new(), |routes, (path, answers)| {
        routes.route(path, answers.clone()).route(&format!("{path}/"), answers)
    });
    routes.route("/", get(paths))
}

/// `/`: where one can go on from here.
async fn paths(State(server): State<Server>) -> Response {
    let versions: BTreeSet<String> = server.config().registry.kinds().iter().map(|kind| kind.api_version()).collect();
    let groups = server.config().registry.kinds().iter().map(|kind| kind.group.to_string()).collect::<BTreeSet<_>>();
    let (core, named): (Vec<_>, Vec<_>) = versions.iter().partition(|version| !version.contains('/'));
    let core = core.iter().map(|version| format!("/api/{version}"));
    let groups = groups.iter().filter(|group| !group.is_empty()).chain(named).map(|path| format!("/apis/{path}"));
    let fixed = ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];
    let all: BTreeSet<String> = fixed.map(str::to_owned).into_iter().chain(core).chain(groups).collect();
    reply(&json!({"paths": all}))
}

async fn health(State(server): State<Server>) -> Response {
    if server.cache().is_ready() {
        return "ok".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the store has not been read yet\n").into_response()
}

async fn version(State(server): State<Server>) -> Response {
    let version = &server.config().version;
    let body = json!({
        "major": version.major, "minor": version.minor, "gitVersion": version.git_version,
        "gitCommit": version.git_commit, "gitTreeState": "clean", "buildDate": version.build_date,
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("linux/{}", match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other }),
    });
    reply(&body)
}

fn reply(body: &Value) -> Response {
    json_response(StatusCode::OK, body.to_string().into())
}

/// `/api` or `/apis`, in the newest form that the client takes.
fn index(server: &Server, headers: &HeaderMap, core: bool) -> Response {
    let kinds: Vec<&Kind> =
        server.config().registry.kinds().iter().map(|k| &**k).filter(|k| k.group.is_empty() == core).collect();
    for media in Media::accepted(headers).iter().filter(|m| m.takes_json()) {
        match (media.param("as"), media.param("v")) {
            ("APIGroupDiscoveryList", version @ ("v2" | "v2beta1")) => {
                let body = aggregated(&kinds, version);
                let mut response = reply(&body);
                let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
                if let Ok(value) = media.parse() {
                    response.headers_mut().insert(header::CONTENT_TYPE, value);
                }
                response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
                return response;
            }
            ("", _) => break,
            _ => {}
        }
    }
    if core {
        let addresses = [json!({"clientCIDR": "0.0.0.0/0", "serverAddress": ""})];
        return reply(&json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}));
    }
    let groups: Vec<Value> = groups(&kinds).into_iter().map(|(name, kinds)| api_group(name, &kinds)).collect();
    reply(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

async fn core_version(State(server): State<Server>, Path(version): Path<String>) -> Response {
    resources(&server, "", &version)
}

async fn group_version(State(server): State<Server>, Path((group, version)): Path<(String, String)>) -> Response {
    resources(&server, &group, &version)
}

async fn group(State(server): State<Server>, Path(group): Path<String>) -> Response {
    let kinds: Vec<&Kind> =
        server.config().registry.kinds().iter().map(|k| &**k).filter(|k| k.group == group).collect();
    if group.is_empty() || kinds.is_empty() {
        return ApiError::no_route().into_response();
    }
    let mut body = api_group(&group, &kinds);
    body["kind"] = json!("APIGroup");
    body["apiVersion"] = json!("v1");
    reply(&body)
}

/// `APIResourceList` of one version.
fn resources(server: &Server, group: &str, version: &str) -> Response {
    let kinds = server.config().registry.kinds().iter().filter(|k| k.group == group && k.version == version);
    let resources: Vec<Value> = kinds.flat_map(|kind| listed(kind)).collect();
    if resources.is_empty() {
        return ApiError::no_route().into_response();
    }
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    reply(&json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}))
}

/// A kind and its subresources as `APIResource`s.
fn listed(kind: &Kind) -> Vec<Value> {
    let namespaced = kind.scope == Scope::Namespaced;
    let mut own = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": namespaced, "kind": kind.kind,
        "verbs": verbs(kind),
    });
    if !kind.short.is_empty() {
        own["shortNames"] = json!(kind.short);
    }
    if !kind.categories.is_empty() {
        own["categories"] = json!(kind.categories);
    }
    let part = |part: &Subresource| {
        let (group, version, part_kind) = response_kind(kind, *part);
        let mut resource = json!({
            "name": format!("{}/{}", kind.plural, part.name()), "singularName": "", "namespaced": namespaced,
            "kind": part_kind, "verbs": part_verbs(*part),
        });
        if group != kind.group || version != kind.version {
            resource["group"] = json!(group);
            resource["version"] = json!(version);
        }
        resource
    };
    std::iter::once(own).chain(kind.subresources.iter().map(part)).collect()
}

/// `APIGroupDiscoveryList`: everything at once.
fn aggregated(kinds: &[&Kind], version: &str) -> Value {
    let resource = |kind: &&Kind| {
        let namespaced = if kind.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" };
        let part = |part: &Subresource| {
            let (group, version, kind) = response_kind(kind, *part);
            json!({
                "subresource": part.name(), "responseKind": {"group": group, "version": version, "kind": kind},
                "verbs": part_verbs(*part),
            })
        };
        let mut resource = json!({
            "resource": kind.plural, "singularResource": kind.singular, "scope": namespaced, "verbs": verbs(kind),
            "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        });
        if !kind.short.is_empty() {
            resource["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        if !kind.subresources.is_empty() {
            resource["subresources"] = kind.subresources.iter().map(part).collect();
        }
        resource
    };
    let group = |(name, kinds): (&str, Vec<&Kind>)| {
        let versions: Vec<Value> = versions(&kinds)
            .into_iter()
            .map(|(version, kinds)| {
                json!({"version": version, "freshness": "Current", "resources": kinds.iter().map(resource).collect::<Vec<_>>()})
            })
            .collect();
        json!({"metadata": {"name": name, "creationTimestamp": null}, "versions": versions})
    };
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": groups(kinds).into_iter().map(group).collect::<Vec<_>>(),
    })
}

fn groups<'a>(kinds: &[&'a Kind]) -> BTreeMap<&'a str, Vec<&'a Kind>> {
    let mut groups = BTreeMap::<&str, Vec<&Kind>>::new();
    kinds.iter().for_each(|k| groups.entry(&k.group).or_default().push(k));
    groups
}

fn versions<'a>(kinds: &[&'a Kind]) -> Vec<(&'a str, Vec<&'a Kind>)> {
    let mut versions: Vec<(&str, Vec<&Kind>)> = Vec::new();
    for kind in kinds {
        match versions.iter_mut().find(|(version, _)| *version == kind.version) {
            Some((_, kinds)) => kinds.push(kind),
            None => versions.push((&kind.version, vec![kind])),
        }
    }
    versions
}

fn api_group(name: &str, kinds: &[&Kind]) -> Value {
    let versions: Vec<Value> = versions(kinds)
        .into_iter()
        .map(|(version, _)| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions.first()})
}

fn verbs(kind: &Kind) -> Vec<&'static str> {
    let mut verbs: Vec<_> = kind.verbs.iter().map(|verb| verb.name()).collect();
    verbs.sort_unstable();
    verbs
}

fn part_verbs(part: Subresource) -> &'static [&'static str] {
    match part {
        Subresource::Status | Subresource::Scale | Subresource::EphemeralContainers => &["get", "patch", "update"],
        Subresource::Log => &["get"],
        Subresource::Exec | Subresource::Attach | Subresource::PortForward => &["create", "get"],
        Subresource::Proxy => &["create", "delete", "get", "patch", "update"],
        Subresource::Binding | Subresource::Eviction | Subresource::Token => &["create"],
        Subresource::Finalize => &["update"],
    }
}

/// Group, version and kind of what a subresource takes and gives.
fn response_kind(kind: &Kind, part: Subresource) -> (String, String, String) {
    let (group, version, name) = match part {
        Subresource::Scale => ("autoscaling", "v1", "Scale"),
        Subresource::Binding => ("", "v1", "Binding"),
        Subresource::Eviction => ("policy", "v1", "Eviction"),
        Subresource::Token => ("authentication.k8s.io", "v1", "TokenRequest"),
        Subresource::Exec => ("", "v1", "PodExecOptions"),
        Subresource::Attach => ("", "v1", "PodAttachOptions"),
        Subresource::PortForward => ("", "v1", "PodPortForwardOptions"),
        Subresource::Proxy => ("", "v1", "PodProxyOptions"),
        Subresource::Status | Subresource::Log | Subresource::EphemeralContainers | Subresource::Finalize => {
            (&*kind.group, &*kind.version, &*kind.kind)
        }
    };
    (group.to_owned(), version.to_owned(), name.to_owned())
}
