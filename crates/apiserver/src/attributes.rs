//! What a request is about, told from its method and URI alone.

use api::FieldSelector;
use http::{Method, Uri};

/// What authorisation, audit and routing know of a request. Parts that a request does not have are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for non-resource
    /// paths the method in lower case.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The version of the group.
    pub version: String,
    /// The plural, e.g. `pods`.
    pub resource: String,
    /// E.g. `log`.
    pub subresource: String,
    /// The namespace; that of a request for a Namespace is its own name.
    pub namespace: String,
    /// The object; for list and watch the name that a `metadata.name` field selector asks for.
    pub name: String,
    /// For list and watch the node that a `spec.nodeName` field selector asks for.
    pub node: String,
    /// The path of the URI.
    pub path: String,
    /// Whether this is about an API resource.
    pub is_resource: bool,
}

impl Attributes {
    /// Reads them off a request line.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        let parts: Vec<String> = path.split('/').filter(|p| !p.is_empty()).map(decode).collect();
        let mut at = Self { verb: method.as_str().to_ascii_lowercase(), path: path.to_owned(), ..Self::default() };
        let rest = match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["api", version, _, ..] => {
                at.version = version.to_owned();
                &parts[2..]
            }
            ["apis", group, version, _, ..] => {
                at.group = group.to_owned();
                at.version = version.to_owned();
                &parts[3..]
            }
            _ => return at,
        };
        at.is_resource = true;
        at.place(rest);
        at.verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if at.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            Method::GET | Method::HEAD if !at.name.is_empty() => "get",
            Method::GET | Method::HEAD if watches(uri) => "watch",
            Method::GET | Method::HEAD => "list",
            _ => return at,
        }
        .into();
        if matches!(at.verb.as_str(), "list" | "watch" | "deletecollection") {
            // As it is read to select: what is judged and what is given must be the same. One that cannot be read names
            // nothing.
            let selector = FieldSelector::parse(&query(uri, "fieldSelector").unwrap_or_default()).unwrap_or_default();
            let exact = |field| selector.exact(field).unwrap_or_default().to_owned();
            (at.name, at.node) = (exact("metadata.name"), exact("spec.nodeName"));
        }
        at
    }

    /// `namespaces/N`, `namespaces/N/status`, `namespaces/N/pods/P/log`, `nodes/N` …
    fn place(&mut self, rest: &[String]) {
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let (namespace, object): (&str, &[&str]) = match rest[..] {
            ["namespaces", ns] => (ns, &rest),
            ["namespaces", ns, "status" | "finalize"] => (ns, &rest),
            ["namespaces", ns, ..] => (ns, &rest[2..]),
            _ => ("", &rest),
        };
        let part = |i: usize| object.get(i).copied().unwrap_or_default().to_owned();
        self.namespace = namespace.to_owned();
        (self.resource, self.name, self.subresource) = (part(0), part(1), part(2));
    }
}

/// The value of the first query parameter called `name`.
pub fn query(uri: &Uri, name: &str) -> Option<String> {
    pairs(uri).find_map(|(k, v)| (k == name).then_some(v))
}

/// All query parameters, decoded.
pub fn pairs(uri: &Uri) -> impl Iterator<Item = (String, String)> + '_ {
    let query = uri.query().unwrap_or_default();
    query.split('&').filter(|p| !p.is_empty()).map(|pair| {
        let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(&k.replace('+', " ")), decode(&v.replace('+', " ")))
    })
}

/// Whether a flag is set as Kubernetes' clients write it: `true`, `1`, or present without a value.
pub fn flag(value: &str) -> bool {
    !matches!(value, "false" | "0" | "False" | "FALSE" | "f" | "F")
}

fn watches(uri: &Uri) -> bool {
    query(uri, "watch").is_some_and(|v| flag(&v))
}

/// Undoes percent-encoding; what is not UTF-8 becomes U+FFFD, which no name may contain.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match bytes[i..] {
            [b'%', a, b, ..] if hex(a).is_some() && hex(b).is_some() => {
                out.push((hex(a).unwrap_or(0) * 16 + hex(b).unwrap_or(0)) as u8);
                i += 3;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(method: &str, uri: &str) -> String {
        let a = Attributes::of(&method.parse().unwrap(), &uri.parse().unwrap());
        if !a.is_resource {
            return format!("{} {}", a.verb, a.path);
        }
        format!(
            "{} {}/{}/{}/{} ns={} name={}{}{}",
            a.verb,
            a.group,
            a.version,
            a.resource,
            a.subresource,
            a.namespace,
            a.name,
            if a.node.is_empty() { "" } else { " node=" },
            a.node
        )
    }

    #[test]
    fn tells_what_a_request_is_about() {
        for (method, uri, want) in [
            ("GET", "/api/v1/pods", "list /v1/pods/ ns= name="),
            ("GET", "/api/v1/pods?watch=true", "watch /v1/pods/ ns= name="),
            ("GET", "/api/v1/pods?watch=false", "list /v1/pods/ ns= name="),
            ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Dx", "watch /v1/pods/ ns= name=x"),
            (
                "GET",
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name=x,spec.nodeName=y",
                "list /v1/pods/ ns=a name=x node=y",
            ),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName!=y", "list /v1/pods/ ns= name="),
            ("GET", r"/api/v1/pods?fieldSelector=spec.nodeName!=a%5C,spec.nodeName=y", "list /v1/pods/ ns= name="),
            ("GET", "/api/v1/pods/p?fieldSelector=spec.nodeName=y", "get /v1/pods/ ns= name=p"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3D%3Dx", "list /v1/pods/ ns= name=x"),
            ("GET", r"/api/v1/pods?fieldSelector=metadata.name!=a%5C,metadata.name=x", "list /v1/pods/ ns= name="),
            ("DELETE", r"/api/v1/pods?fieldSelector=type=a%5C,metadata.name=x", "deletecollection /v1/pods/ ns= name="),
            ("GET", "/api/v1/namespaces", "list /v1/namespaces/ ns= name="),
            ("GET", "/api/v1/namespaces/a", "get /v1/namespaces/ ns=a name=a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1/namespaces/finalize ns=a name=a"),
            ("PATCH", "/api/v1/namespaces/a/status", "patch /v1/namespaces/status ns=a name=a"),
            ("GET", "/api/v1/namespaces/a/pods/p", "get /v1/pods/ ns=a name=p"),
            ("HEAD", "/api/v1/namespaces/a/pods/p", "get /v1/pods/ ns=a name=p"),
            ("GET", "/api/v1/namespaces/a/pods/p/log?follow=1", "get /v1/pods/log ns=a name=p"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec", "create /v1/pods/exec ns=a name=p"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps/v1/deployments/ ns=a name="),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1/deployments/ ns=a name="),
            ("DELETE", "/api/v1/nodes/n", "delete /v1/nodes/ ns= name=n"),
            ("GET", "/api/v1/nodes/n/proxy/a/b", "get /v1/nodes/proxy ns= name=n"),
            ("GET", "/api/v1/namespaces/a%2Fb/pods/..", "get /v1/pods/ ns=a/b name=.."),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis", "get /apis"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/healthz", "get /healthz"),
            ("OPTIONS", "/", "options /"),
        ] {
            assert_eq!(line(method, uri), want, "{method} {uri}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(path in "[/a-z%0-9?&=,+.]{0,60}") {
            if let Ok(uri) = format!("/{path}").parse::<Uri>() {
                Attributes::of(&Method::GET, &uri);
                pairs(&uri).count();
            }
        }
    }
}
