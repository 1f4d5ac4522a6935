//! One request for a resource, with all that its verbs need.

use std::{
    str::FromStr,
    sync::{Arc, OnceLock},
};

use api::{Kind, Path, Scope};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::{
    ApiError, Attributes, Identity, Result, Server, Warnings,
    attributes::flag,
    cache::{Item, Shelf},
    selector::Selector,
    wire::{
        JSON,
        accept::Form,
        body::{self, Decoded},
        table::{self, Include},
    },
};

/// A request that passed the filters and names a kind that is served.
pub(crate) struct Call {
    pub(crate) server: Server,
    pub(crate) kind: Arc<Kind>,
    pub(crate) at: Attributes,
    pub(crate) identity: Identity,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) warnings: Arc<Warnings>,
    pub(crate) now: jiff::Timestamp,
    pub(crate) method: http::Method,
    /// Fields that the body gives twice, to be told together with those that its kind does not know.
    pub(crate) twice: OnceLock<Vec<String>>,
    /// The request's own, the upgrade among them.
    pub(crate) extensions: http::Extensions,
}

/// What `fieldValidation` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Call {
    /// Whether whoever asks has the right to this verb too, on the same thing.
    pub(crate) fn may(&self, verb: &str) -> Result<()> {
        let at = Attributes { verb: verb.into(), ..self.at.clone() };
        let decision = self.server.config().authorizer.decide(&self.identity, &at);
        if decision.allowed { Ok(()) } else { Err(ApiError::forbidden(&self.identity, &at, &decision.reason)) }
    }

    /// A query parameter; empty when absent.
    pub(crate) fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    /// Whether a query parameter is set.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.query.iter().any(|(k, v)| k == name && flag(v))
    }

    /// Whether a query parameter is there and says something.
    pub(crate) fn given(&self, name: &str) -> bool {
        !self.query(name).is_empty()
    }

    /// A query parameter that must be a number when present.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        self.parsed(name)
    }

    /// A query parameter that must be a number when present, if one below zero.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.parsed(name)
    }

    fn parsed<N: FromStr>(&self, name: &str) -> Result<Option<N>> {
        match self.query(name) {
            "" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("{name}: {text:?} is not a number")))
            }
        }
    }

    /// `dryRun=All`.
    pub(crate) fn dry_run(&self) -> Result<bool> {
        match self.query("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(ApiError::bad_request(format!("dryRun: {other:?} is not supported; use All"))),
        }
    }

    /// `fieldValidation`, Warn by default.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation> {
        match self.query("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Strict" => Ok(FieldValidation::Strict),
            "Ignore" => Ok(FieldValidation::Ignore),
            other => {
                let message = format!("fieldValidation: {other:?} is not supported; use Strict, Warn or Ignore");
                Err(ApiError::bad_request(message))
            }
        }
    }

    /// Who is written down as the manager of fields: `fieldManager`, else the client's name.
    pub(crate) fn manager(&self) -> String {
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let name = match self.query("fieldManager") {
            "" => agent.split('/').next().unwrap_or_default(),
            given => given,
        };
        let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
        if name.is_empty() { "unknown".into() } else { name }
    }

    /// The selectors of the query.
    pub(crate) fn selector(&self) -> Result<Selector> {
        let own = (self.kind.strategy.fields)(&Value::Null);
        let known: Vec<&str> =
            ["metadata.name", "metadata.namespace"].into_iter().chain(own.iter().map(|f| f.0)).collect();
        Selector::parse(self.query("labelSelector"), self.query("fieldSelector"), &known)
    }

    /// The namespace of the objects; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        if self.kind.scope == Scope::Namespaced { &self.at.namespace } else { "" }
    }

    /// Where the objects are kept for reading.
    pub(crate) fn shelf(&self) -> Result<&Arc<Shelf>> {
        self.server.cache().shelf(&self.kind)
    }

    /// The object's key on the shelf.
    pub(crate) fn item_key(&self, name: &str) -> String {
        match self.namespace() {
            "" => name.to_owned(),
            namespace => format!("{namespace}/{name}"),
        }
    }

    /// The object of this name as the last acknowledged write left it.
    pub(crate) async fn current(&self, name: &str) -> Result<Arc<Item>> {
        self.server.cache().fresh().await?;
        self.shelf()?.get(&self.item_key(name)).ok_or_else(|| ApiError::not_found(&self.kind, name))
    }

    /// The same request about one object of a collection.
    pub(crate) fn of(&self, namespace: &str, name: &str) -> Self {
        Self {
            server: self.server.clone(),
            kind: self.kind.clone(),
            at: Attributes { namespace: namespace.to_owned(), name: name.to_owned(), ..self.at.clone() },
            identity: self.identity.clone(),
            query: self.query.clone(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            warnings: self.warnings.clone(),
            now: self.now,
            method: self.method.clone(),
            twice: OnceLock::new(),
            extensions: http::Extensions::new(),
        }
    }

    /// The body as an object that is complete in itself.
    pub(crate) fn object(&self) -> Result<Value> {
        let object = self.draft()?;
        self.stray(&[])?;
        Ok(object)
    }

    /// The body as an object of the call's kind: whoever decodes it further tells its stray fields.
    pub(crate) fn draft(&self) -> Result<Value> {
        body::decode(&self.headers, &self.body).map(|decoded| self.sound(decoded))
    }

    /// A body, with the fields that it gives twice kept for [`Self::stray`].
    pub(crate) fn sound(&self, (value, duplicates): Decoded) -> Value {
        self.twice.get_or_init(|| duplicates.iter().map(ToString::to_string).collect());
        value
    }

    /// Refuses, tells or passes over fields that should not be there, as `fieldValidation` says: these unknown
    /// ones, then those given twice.
    pub(crate) fn stray(&self, unknown: &[Path]) -> Result<()> {
        let kind = &self.kind;
        let unknown = unknown.iter().map(|path| format!("unknown field {:?}", path.to_string()));
        let twice = self.twice.get().into_iter().flatten().map(|path| format!("duplicate field {path:?}"));
        let fields: Vec<String> = unknown.chain(twice).collect();
        match self.field_validation()? {
            FieldValidation::Strict if !fields.is_empty() => Err(ApiError::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                fields.join(", ")
            ))),
            FieldValidation::Ignore => Ok(()),
            _ => {
                fields.into_iter().for_each(|text| self.warnings.push(text));
                Ok(())
            }
        }
    }

    /// The time as Kubernetes writes it.
    pub(crate) fn now_text(&self) -> String {
        rfc3339(self.now)
    }

    /// Answers with an object in the form asked for.
    pub(crate) fn reply(&self, code: StatusCode, object: &Value) -> Result<Response> {
        let bytes = match Form::of(&self.headers)? {
            Form::Plain => object.to_string(),
            Form::Partial => table::partial(object).to_string(),
            Form::Table(version) => {
                let metadata = serde_json::json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let include = Include::of(self.query("includeObject"))?;
                let rows = std::iter::once(object.clone());
                table::table(&self.kind, version, metadata, rows, include, true, self.now).to_string()
            }
        };
        Ok(json_response(code, bytes.into()))
    }
}

/// An answer of encoded JSON.
pub(crate) fn json_response(code: StatusCode, bytes: Bytes) -> Response {
    (code, [(header::CONTENT_TYPE, JSON)], bytes).into_response()
}

/// RFC 3339 to the second, in UTC.
pub(crate) fn rfc3339(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
