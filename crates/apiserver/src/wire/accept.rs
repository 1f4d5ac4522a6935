//! What form of answer a client asks for.

use http::{HeaderMap, header};

use crate::{ApiError, Result};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Form {
    /// The object or list itself, in JSON.
    #[default]
    Plain,
    /// `meta.k8s.io` Table of this version.
    Table(&'static str),
    /// Metadata only.
    Partial,
}

/// One media type of an `Accept` header with its parameters.
pub(crate) struct Media<'a> {
    pub(crate) kind: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl<'a> Media<'a> {
    /// All media types that a request accepts, in its order.
    pub(crate) fn accepted(headers: &'a HeaderMap) -> Vec<Media<'a>> {
        let values = headers.get_all(header::ACCEPT).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).map(Self::parse).collect()
    }

    /// Parses `type/subtype;name=value…`.
    pub(crate) fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        Self { kind, params: parts.filter_map(|p| p.split_once('=')).collect() }
    }

    /// A parameter; empty when absent.
    pub(crate) fn param(&self, name: &str) -> &'a str {
        self.params.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v.trim_matches('"'))
    }

    /// Whether JSON satisfies it.
    pub(crate) fn takes_json(&self) -> bool {
        matches!(self.kind, "application/json" | "application/*" | "*/*" | "")
    }
}

impl Form {
    /// The first form asked for that can be had; 406 when there is none.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self> {
        Self::among(headers, true)
    }

    /// The same where tables cannot be had.
    pub(crate) fn without_tables(headers: &HeaderMap) -> Result<Self> {
        Self::among(headers, false)
    }

    fn among(headers: &HeaderMap, tables: bool) -> Result<Self> {
        let accepted = Media::accepted(headers);
        if accepted.is_empty() {
            return Ok(Self::Plain);
        }
        let form = |media: &Media<'_>| match (media.takes_json(), media.param("as"), media.param("v")) {
            (false, ..) => None,
            (_, "", _) => Some(Self::Plain),
            (_, "Table", _) if !tables => None,
            (_, "Table", "v1beta1") => Some(Self::Table("meta.k8s.io/v1beta1")),
            (_, "Table", _) => Some(Self::Table("meta.k8s.io/v1")),
            (_, "PartialObjectMetadata" | "PartialObjectMetadataList", _) => Some(Self::Partial),
            _ => None,
        };
        accepted
            .iter()
            .find_map(form)
            .ok_or_else(|| ApiError::not_acceptable("only the following media types are accepted: application/json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        Form::of(&headers).ok()
    }

    #[test]
    fn takes_the_first_that_it_knows() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form(kubectl), Some(Form::Table("meta.k8s.io/v1")));
        assert_eq!(form("application/vnd.kubernetes.protobuf,application/json"), Some(Form::Plain));
        assert_eq!(form("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some(Form::Partial));
        assert_eq!(form("*/*"), Some(Form::Plain));
        assert_eq!(form("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(Form::of(&HeaderMap::new()).ok(), Some(Form::Plain));
    }
}
