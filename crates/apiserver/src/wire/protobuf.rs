//! Request bodies in Kubernetes' protobuf envelope, decoded into the JSON form of the object.
//!
//! Typed clients send these since Kubernetes 1.32 and do not fall back. The messages are described by a table
//! (`fields.txt`: number, JSON name and type of every field) that `table.py` reads out of the struct tags in a
//! real client's binary, so numbers and names are those of the client's own encoder.

mod reader;
mod schema;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};

use crate::{ApiError, Result};
use reader::{Reader, Wire};
use schema::{Field, Message, Shape, Type};

/// Every body begins with these.
const MAGIC: &[u8] = b"k8s\0";

/// Messages deeper than this are refused; Kubernetes' deepest (JSONSchemaProps aside) stay below 20.
const DEPTH: usize = 64;

/// Decodes `application/vnd.kubernetes.protobuf` into the object's JSON form, as the client would have written
/// it in JSON: fields that its types leave out when empty are left out. Fields that the table does not know are
/// dropped, as protobuf prescribes. Never panics.
pub(crate) fn decode(body: &[u8]) -> Result<Value> {
    object(body, DEPTH).map_err(|e| ApiError::bad_request(format!("the protobuf body cannot be decoded: {e}")))
}

/// Why a body cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("it does not begin with \"k8s\\0\"")]
    Magic,
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("field {0} has a wire type that its message does not give it")]
    WireType(u32),
    #[error("it is nested too deep")]
    Depth,
    #[error("a string is not UTF-8")]
    Utf8,
    #[error("a time lies outside the years 0 to 9999")]
    Time,
    #[error("embedded JSON is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("content encoding {0:?} is not supported")]
    Encoding(String),
    #[error("there is no message for kind {kind:?} of {version:?}; send it as application/json")]
    Kind { version: String, kind: String },
}

type Decoded<T> = std::result::Result<T, Error>;

/// `runtime.Unknown`: the type of an object and its bytes.
fn object(body: &[u8], depth: usize) -> Decoded<Value> {
    let mut fields = Reader::new(body.strip_prefix(MAGIC).ok_or(Error::Magic)?);
    let (mut version, mut kind, mut encoding, mut media) = <(String, String, String, String)>::default();
    let mut raw: &[u8] = &[];
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => {
                let mut meta = Reader::new(wire.bytes(number)?);
                while let Some((number, wire)) = meta.next()? {
                    match number {
                        1 => version = text(wire, number)?,
                        2 => kind = text(wire, number)?,
                        _ => {}
                    }
                }
            }
            2 => raw = wire.bytes(number)?,
            3 => encoding = text(wire, number)?,
            4 => media = text(wire, number)?,
            _ => {}
        }
    }
    if !encoding.is_empty() {
        return Err(Error::Encoding(encoding));
    }
    if media.starts_with("application/json") {
        return Ok(serde_json::from_slice(raw)?);
    }
    let message = schema::of_kind(&version, &kind);
    let message = message.ok_or_else(|| Error::Kind { version: version.clone(), kind: kind.clone() })?;
    let mut object = Map::new();
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    fill(&mut object, message, raw, depth)?;
    Ok(Value::Object(object))
}

/// Adds a message's fields to `into`. A message that comes in several parts is merged, as protobuf prescribes.
fn fill(into: &mut Map<String, Value>, message: &Message, bytes: &[u8], depth: usize) -> Decoded<()> {
    let depth = depth.checked_sub(1).ok_or(Error::Depth)?;
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        let Some(field) = message.field(number) else { continue };
        match field.shape {
            Shape::Inline => {
                if let Some(inner) = field.ty.message() {
                    fill(into, inner, wire.bytes(number)?, depth)?;
                }
            }
            Shape::One => {
                let before = into.remove(field.name);
                if let Some(value) = value(field, wire, before, depth)? {
                    into.insert(field.name.into(), value);
                }
            }
            Shape::List => {
                let item = value(field, wire, None, depth)?.unwrap_or(Value::Null);
                if let Value::Array(items) = into.entry(field.name).or_insert_with(|| Value::Array(vec![])) {
                    items.push(item);
                }
            }
            Shape::Map => {
                let (key, item) = entry(field, wire.bytes(number)?, depth)?;
                if let Value::Object(items) = into.entry(field.name).or_insert_with(|| Value::Object(Map::new())) {
                    items.insert(key, item);
                }
            }
        }
    }
    Ok(())
}

/// An entry of a map: key and value, each left out when it is its type's zero.
fn entry(field: &Field, bytes: &[u8], depth: usize) -> Decoded<(String, Value)> {
    let (mut key, mut item) = (String::new(), None);
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => key = text(wire, number)?,
            2 => item = value(field, wire, None, depth)?,
            _ => {}
        }
    }
    Ok((key, item.unwrap_or_else(|| field.ty.zero())))
}

/// One value; `None` where the client's JSON would leave the field out.
fn value(field: &Field, wire: Wire<'_>, before: Option<Value>, depth: usize) -> Decoded<Option<Value>> {
    let number = field.number;
    Ok(match field.ty {
        Type::Bool => Some(wire.varint(number)? != 0).filter(|b| *b || field.keep).map(Value::from),
        Type::Int => Some(wire.varint(number)? as i64).filter(|n| *n != 0 || field.keep).map(Value::from),
        Type::Double => Some(Value::from(f64::from_bits(wire.fixed64(number)?))),
        Type::Text => Some(text(wire, number)?).filter(|s| !s.is_empty() || field.keep).map(Value::from),
        Type::Bytes => {
            Some(BASE64_STANDARD.encode(wire.bytes(number)?)).filter(|s| !s.is_empty() || field.keep).map(Value::from)
        }
        Type::Time => time(wire.bytes(number)?, false)?,
        Type::MicroTime => time(wire.bytes(number)?, true)?,
        Type::Quantity => {
            let amount = first_text(wire.bytes(number)?)?;
            Some(Value::from(if amount.is_empty() { "0".to_owned() } else { amount }))
        }
        Type::IntOrString => Some(int_or_string(wire.bytes(number)?)?),
        Type::Raw => raw(wire.bytes(number)?, depth)?,
        Type::Texts => {
            let mut items = Vec::new();
            let mut fields = Reader::new(wire.bytes(number)?);
            while let Some((number, wire)) = fields.next()? {
                if number == 1 {
                    items.push(Value::from(text(wire, number)?));
                }
            }
            Some(Value::Array(items))
        }
        Type::Message(_) => {
            let mut object = match before {
                Some(Value::Object(object)) => object,
                _ => Map::new(),
            };
            if let Some(message) = field.ty.message() {
                fill(&mut object, message, wire.bytes(number)?, depth)?;
            }
            Some(Value::Object(object))
        }
    })
}

fn text(wire: Wire<'_>, number: u32) -> Decoded<String> {
    Ok(std::str::from_utf8(wire.bytes(number)?).map_err(|_| Error::Utf8)?.to_owned())
}

/// The string in field 1.
fn first_text(bytes: &[u8]) -> Decoded<String> {
    let mut found = String::new();
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        if number == 1 {
            found = text(wire, number)?;
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds since 1970; both zero is the time that is not set.
fn time(bytes: &[u8], micro: bool) -> Decoded<Option<Value>> {
    let (mut seconds, mut nanos) = (0i64, 0i64);
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => seconds = wire.varint(number)? as i64,
            2 => nanos = wire.varint(number)? as i64,
            _ => {}
        }
    }
    if seconds == 0 && nanos == 0 {
        return Ok(None);
    }
    let nanos = if micro { i32::try_from(nanos).map_err(|_| Error::Time)? } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Error::Time)?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Some(Value::from(time.strftime(form).to_string())))
}

/// `type` (0: number, 1: string), `intVal`, `strVal`.
fn int_or_string(bytes: &[u8]) -> Decoded<Value> {
    let (mut is_text, mut int, mut string) = (false, 0i64, String::new());
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => is_text = wire.varint(number)? == 1,
            2 => int = wire.varint(number)? as i64,
            3 => string = text(wire, number)?,
            _ => {}
        }
    }
    Ok(if is_text { string.into() } else { int.into() })
}

/// An object in whatever form its client had it: JSON, or an envelope again.
fn raw(bytes: &[u8], depth: usize) -> Decoded<Option<Value>> {
    let mut fields = Reader::new(bytes);
    while let Some((number, wire)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let inner = wire.bytes(number)?;
        if inner.starts_with(MAGIC) {
            return object(inner, depth.checked_sub(1).ok_or(Error::Depth)?).map(Some);
        }
        if !inner.is_empty() {
            return Ok(Some(serde_json::from_slice(inner)?));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
