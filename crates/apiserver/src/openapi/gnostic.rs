//! OpenAPI v2 in protobuf: gnostic's `openapi.v2.Document`, which kubectl before 1.27 insists on.
//!
//! Field numbers are those of gnostic's OpenAPIv2.proto, as kubectl's binary carries them. Only what our own
//! documents contain is written.

use serde_json::{Map, Value};

/// A document as `openapi.v2.Document`.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (name, item) in fields(&document["paths"]) {
            paths.message(2, |named| {
                named.str(1, name);
                named.message(2, |out| path_item(out, item));
            });
        }
    });
    out.message(9, |definitions| named_schemas(definitions, &document["definitions"]));
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            out.message(number, |out| operation(out, &item[method]));
        }
    }
    parameters(out, 9, &item["parameters"]);
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameters(out, 8, &operation["parameters"]);
    out.message(9, |responses| {
        for (code, response) in fields(&operation["responses"]) {
            responses.message(1, |named| {
                named.str(1, code);
                // ResponseValue.response
                named.message(2, |value| {
                    value.message(1, |out| {
                        out.text(1, &response["description"]);
                        if response["schema"].is_object() {
                            // SchemaItem.schema
                            out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                        }
                    });
                });
            });
        }
    });
    extensions(out, 13, operation);
}

fn parameters(out: &mut Message, number: u32, parameters: &Value) {
    for parameter in items(parameters) {
        // ParametersItem.parameter
        out.message(number, |item| item.message(1, |out| self::parameter(out, parameter)));
    }
}

fn parameter(out: &mut Message, parameter: &Value) {
    match parameter["in"].as_str() {
        Some("body") => out.message(1, |out| {
            out.text(2, &parameter["name"]);
            out.text(3, &parameter["in"]);
            out.bool(4, &parameter["required"]);
            out.message(5, |out| schema(out, &parameter["schema"]));
        }),
        Some("path") => out.message(2, |out| {
            out.message(4, |out| {
                out.bool(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(4, &parameter["name"]);
                out.text(5, &parameter["type"]);
            });
        }),
        _ => out.message(2, |out| {
            out.message(3, |out| {
                out.bool(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(4, &parameter["name"]);
                out.text(6, &parameter["type"]);
            });
        }),
    }
}

fn named_schemas(out: &mut Message, schemas: &Value) {
    for (name, value) in fields(schemas) {
        out.message(1, |named| {
            named.str(1, name);
            named.message(2, |out| schema(out, value));
        });
    }
}

fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(4, &value["description"]);
    if !value["default"].is_null() {
        out.message(5, |any| any.str(2, &value["default"].to_string()));
    }
    out.texts(19, &value["required"]);
    for choice in items(&value["enum"]) {
        out.message(20, |any| any.str(2, &choice.to_string()));
    }
    match &value["additionalProperties"] {
        Value::Bool(any) => out.message(21, |item| item.bool(2, &Value::Bool(*any))),
        of @ Value::Object(_) => out.message(21, |item| item.message(1, |out| schema(out, of))),
        _ => {}
    }
    if value["type"].is_string() {
        out.message(22, |types| types.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |item| item.message(1, |out| schema(out, &value["items"])));
    }
    for part in items(&value["allOf"]) {
        out.message(24, |out| schema(out, part));
    }
    if value["properties"].is_object() {
        out.message(25, |properties| named_schemas(properties, &value["properties"]));
    }
    extensions(out, 31, value);
}

/// Everything called `x-…`, its value as YAML, of which JSON is a part.
fn extensions(out: &mut Message, number: u32, value: &Value) {
    for (name, extension) in fields(value).filter(|(name, _)| name.starts_with("x-")) {
        out.message(number, |named| {
            named.str(1, name);
            named.message(2, |any| any.str(2, &extension.to_string()));
        });
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A protobuf message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn str(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A string, if it is one.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.str(number, text);
        }
    }

    fn texts(&mut self, number: u32, values: &Value) {
        items(values).for_each(|value| self.text(number, value));
    }

    fn bool(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }
}
