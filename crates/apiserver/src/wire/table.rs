//! Tables for people, and objects reduced to their metadata.

use api::Kind;
use serde_json::{Value, json};

use crate::{ApiError, Result};

/// What a row carries beside its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Metadata,
    Object,
    None,
}

impl Include {
    /// `includeObject` of a query.
    pub(crate) fn of(query: &str) -> Result<Self> {
        match query {
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            other => Err(ApiError::bad_request(format!("includeObject: {other:?} is not None, Metadata or Object"))),
        }
    }
}

/// A Table of these objects. `metadata` is that of the list.
pub(crate) fn table(
    kind: &Kind,
    version: &str,
    metadata: Value,
    objects: impl Iterator<Item = Value>,
    include: Include,
    with_columns: bool,
    now: jiff::Timestamp,
) -> Value {
    let row = |object: Value| {
        let cells: Vec<Value> = kind.columns.iter().map(|c| (c.value)(&object, now)).collect();
        match include {
            Include::Object => json!({"cells": cells, "object": object}),
            Include::Metadata => json!({"cells": cells, "object": partial(&object)}),
            Include::None => json!({"cells": cells, "object": null}),
        }
    };
    let columns = kind.columns.iter().map(|c| {
        json!({
            "name": c.name, "type": c.kind, "format": if c.name == "Name" { "name" } else { "" },
            "description": "", "priority": u8::from(c.wide),
        })
    });
    json!({
        "kind": "Table", "apiVersion": version, "metadata": metadata,
        "columnDefinitions": if with_columns { columns.collect::<Vec<_>>() } else { Vec::new() },
        "rows": objects.map(row).collect::<Vec<_>>(),
    })
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}
