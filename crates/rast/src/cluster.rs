//! The API as the command line uses it: any kind of the registry, as JSON.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use api::{Kind, Registry, Scope};
use futures::AsyncBufRead;
use http::{Method, Request, header};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::{
    cli::Context,
    exit::{Exit, Failure},
};

const JSON: &str = "application/json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// What a selector chooses and which part of it is shown.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// With one more parameter.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// With a parameter that may be absent.
    pub fn maybe(self, name: &'static str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }
}

/// A connection to the API.
pub struct Cluster {
    client: kube::Client,
    registry: Registry,
    namespace: String,
}

impl Cluster {
    /// Connects with `--kubeconfig`, else the instance's own kubeconfig, else `KUBECONFIG`.
    pub async fn connect(context: &Context) -> Result<Self> {
        let config = kubeconfig(context)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let namespace = context.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: kube::Client::try_from(config)?, registry: api::builtin(), namespace })
    }

    /// The API of this very process.
    pub fn within(client: kube::Client) -> Self {
        Self { client, registry: api::builtin(), namespace: "default".to_owned() }
    }

    /// kube's client, for what streams.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// The namespace of this call.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The kind that a user means by `word`: plural, singular, short name or kind, any case.
    pub fn kind(&self, word: &str) -> Result<Arc<Kind>> {
        let found = self.registry.named(word).filter(|k| k.stored);
        found.cloned().ok_or_else(|| {
            let known: Vec<_> = self.registry.kinds().iter().filter(|k| k.stored).map(|k| k.plural.as_ref()).collect();
            Failure::new(Exit::Usage, format!("no kind is called {word:?}; there are {}", known.join(", "))).into()
        })
    }

    /// The kind of an object, from its `apiVersion` and `kind`.
    pub fn kind_of(&self, object: &Value) -> Result<Arc<Kind>> {
        let (version, kind) = (object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""));
        let found = self.registry.kinds().iter().find(|k| k.api_version() == version && k.kind == kind);
        found.cloned().ok_or_else(|| {
            Failure::new(Exit::Invalid, format!("{kind:?} of {version:?} is not a kind that rastOS serves")).into()
        })
    }

    /// The address of an object, or of all (`name` absent), in `namespace` (absent: all).
    pub fn path(kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = match kind.group.as_ref() {
            "" => format!("/api/{}", kind.version),
            group => format!("/apis/{group}/{}", kind.version),
        };
        if let (Scope::Namespaced, Some(namespace)) = (kind.scope, namespace) {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", kind.plural);
        if let Some(name) = name {
            path += &format!("/{name}");
        }
        path
    }

    /// Reads JSON.
    pub async fn get(&self, path: &str, query: Query) -> Result<Value> {
        self.call(Method::GET, path, query, JSON, None).await
    }

    /// Reads what `kubectl get` prints.
    pub async fn table(&self, path: &str, query: Query) -> Result<Value> {
        self.call(Method::GET, path, query, TABLE, None).await
    }

    /// Applies a whole object, as field manager `rast`.
    pub async fn apply(&self, path: &str, object: &Value, query: Query) -> Result<Value> {
        let query = query.with("fieldManager", "rast").with("force", "true").with("fieldValidation", "Strict");
        self.call(Method::PATCH, path, query, JSON, Some((APPLY, object))).await
    }

    /// Merges a part into an object.
    pub async fn merge(&self, path: &str, part: &Value) -> Result<Value> {
        let query = Query::default().with("fieldManager", "rast");
        self.call(Method::PATCH, path, query, JSON, Some((MERGE, part))).await
    }

    /// Creates an object.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let query = Query::default().with("fieldManager", "rast").with("fieldValidation", "Strict");
        self.call(Method::POST, path, query, JSON, Some((JSON, object))).await
    }

    /// Replaces an object; refused when it has changed since it was read.
    pub async fn replace(&self, path: &str, object: &Value) -> Result<Value> {
        let query = Query::default().with("fieldManager", "rast");
        self.call(Method::PUT, path, query, JSON, Some((JSON, object))).await
    }

    /// Deletes an object, or all that the query selects.
    pub async fn delete(&self, path: &str, query: Query) -> Result<Value> {
        self.call(Method::DELETE, path, query, JSON, None).await
    }

    /// Reads what comes line by line, for as long as it comes.
    pub async fn stream(&self, request: Request<Vec<u8>>) -> Result<impl AsyncBufRead + use<>> {
        let doing = format!("{} {}", request.method(), request.uri().path());
        self.client.request_stream(request).await.map_err(|e| plain(e, &doing))
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: Query,
        accept: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value> {
        let doing = format!("{method} {path}");
        let mut request = Request::builder().method(method).uri(uri(path, &query)).header(header::ACCEPT, accept);
        let body = match body {
            Some((kind, object)) => {
                request = request.header(header::CONTENT_TYPE, kind);
                serde_json::to_vec(object)?
            }
            None => Vec::new(),
        };
        self.client.request(request.body(body)?).await.map_err(|e| plain(e, &doing))
    }
}

/// `--kubeconfig`, else the instance's own, else what `KUBECONFIG` names.
pub fn kubeconfig(context: &Context) -> Result<Kubeconfig> {
    let own = context.host.kubeconfig();
    Ok(match &context.kubeconfig {
        Some(path) => Kubeconfig::read_from(path)?,
        None if own.exists() => Kubeconfig::read_from(own)?,
        None => Kubeconfig::from_env()?.ok_or_else(|| {
            Failure::new(Exit::Failed, format!("no {}: is `rast up` running on this host?", own.display()))
        })?,
    })
}

/// A path with its query, escaped.
pub fn uri(path: &str, query: &Query) -> String {
    let mut text = String::from(path);
    for (i, (name, value)) in query.0.iter().enumerate() {
        text.push(if i == 0 { '?' } else { '&' });
        text += name;
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(byte as char),
                _ => text += &format!("%{byte:02X}"),
            }
        }
    }
    text
}

/// The server's own words for what it refused, with the exit code they mean; other errors with what was being done.
fn plain(error: kube::Error, doing: &str) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) => {
            let failure = Failure::new(Exit::of_status(status.code), status.message.clone());
            anyhow::Error::new(Refused { status: (**status).clone(), failure })
        }
        _ => Err::<(), _>(error).with_context(|| doing.to_owned()).unwrap_err(),
    }
}

/// The server's refusal, with its `metav1.Status` for those who point at the fields.
#[derive(Debug, thiserror::Error)]
#[error("{}", status.message)]
pub struct Refused {
    /// What the server answered.
    pub status: kube::core::Status,
    /// The same as an exit code.
    #[source]
    failure: Failure,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        let query = Query::default().with("labelSelector", "app in (a,b)").maybe("limit", None);
        assert_eq!(uri("/api/v1/pods", &query), "/api/v1/pods?labelSelector=app%20in%20%28a%2Cb%29");
    }
}
