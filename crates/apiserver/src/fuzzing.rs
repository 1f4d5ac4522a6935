//! Parsers of what clients send, for `fuzz/`.

use api::Kind;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use serde_json::Value;

use crate::{
    Attributes, attributes,
    merge::{
        apply,
        fields::Fields,
        json,
        managed::{Managed, Writer},
        strategic,
    },
    pki::Request,
    selector::Selector,
    verbs::Token,
    wire::{accept::Form, body},
};

fn headers(name: HeaderName, value: &[u8]) -> HeaderMap {
    HeaderValue::from_bytes(value).into_iter().map(|value| (name.clone(), value)).collect()
}

/// Bodies of the encoding that a media type names.
pub fn body(media: &str, bytes: &[u8]) -> Option<Value> {
    body::decode(&headers(header::CONTENT_TYPE, media.as_bytes()), bytes).ok().map(|(value, _)| value)
}

/// What the patch, of each type, makes of an object.
pub fn patched(kind: &Kind, object: &Value, patch: &Value) -> Vec<Value> {
    let writer = Writer { kind, manager: "fuzz", subresource: "", now: "2026-01-01T00:00:00Z" };
    let config = body::shape(patch.clone()).ok();
    let applied = |force| apply::apply(object, config.as_ref()?, &writer, force).ok();
    let ours = applied(true);
    if let (Some(once), Some(config)) = (&ours, &config) {
        let twice = apply::apply(once, config, &writer, true).expect("forced");
        assert_eq!(once, &twice, "applied twice");
    }
    let others = [json::patch(object, patch), json::merge(object, patch), strategic::patch(kind, object, patch)];
    others.into_iter().filter_map(Result::ok).chain(ours).chain(applied(false)).collect()
}

/// Who manages which field, read and written back: the fields of one, or an object with all its managers.
pub fn managed(object: &Value) {
    let fields = Fields::parse(object);
    if !fields.is_empty() {
        assert_eq!(Fields::parse(&fields.to_value()), fields);
    }
    fields.paths();
    if let Ok(mut object) = body::shape(object.clone()) {
        Managed::of(&object).write(&mut object);
    }
}

/// Label and field selectors as a query has them.
pub fn selectors(labels: &str, fields: &str) {
    let _refused = Selector::parse(labels, fields, &["metadata.name", "spec.nodeName"]);
}

/// A request line and what it accepts.
pub fn request(uri: &str, accept: &str) {
    let _refused = Form::of(&headers(header::ACCEPT, accept.as_bytes()));
    let Ok(uri) = uri.parse::<Uri>() else { return };
    for method in [Method::GET, Method::DELETE, Method::POST] {
        Attributes::of(&method, &uri);
    }
    for (name, value) in attributes::pairs(&uri) {
        if name == "continue" {
            let _refused = Token::decode(&value);
        }
    }
}

/// A request for a certificate.
pub fn certificate_request(pem: &[u8]) {
    let _refused = Request::read(pem);
}
