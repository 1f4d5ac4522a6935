//! The table of messages, read when it is first needed and message by message.

use std::{
    collections::HashMap,
    sync::{LazyLock, OnceLock},
};

use serde_json::{Value, json};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Type {
    Bool,
    Int,
    Double,
    Text,
    Bytes,
    /// A message that is a list of strings, and only that in JSON.
    Texts,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// An object of any kind.
    Raw,
    /// A message of the table, by its name.
    Message(&'static str),
}

impl Type {
    fn parse(text: &'static str) -> Self {
        match text {
            "bool" => Self::Bool,
            "int" => Self::Int,
            "double" => Self::Double,
            "string" => Self::Text,
            "bytes" => Self::Bytes,
            "{string}" => Self::Texts,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "quantity" => Self::Quantity,
            "intorstring" => Self::IntOrString,
            "raw" => Self::Raw,
            message => Self::Message(message),
        }
    }

    /// The message that this type is; `None` also for a message without fields.
    pub(super) fn message(self) -> Option<&'static Message> {
        if let Self::Message(name) = self { message(name) } else { None }
    }

    /// What a map's entry holds when its value was left out.
    pub(super) fn zero(self) -> Value {
        match self {
            Self::Bool => json!(false),
            Self::Int | Self::Double | Self::IntOrString => json!(0),
            Self::Text | Self::Bytes => json!(""),
            Self::Texts => json!([]),
            Self::Quantity => json!("0"),
            Self::Time | Self::MicroTime | Self::Raw => Value::Null,
            Self::Message(_) => json!({}),
        }
    }
}

/// How often a field may come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    One,
    List,
    Map,
    /// Once, and in JSON its fields stand among those of the message around it.
    Inline,
}

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) ty: Type,
    /// Whether a zero on the wire says something: it was set, or JSON always shows it.
    pub(super) keep: bool,
}

impl Field {
    /// `NUMBER NAME TYPE`, the type after `[]` for a list and `map ` for a map, `keep` at the end; the name `-`
    /// stands for an inlined message.
    fn parse(line: &'static str) -> Option<Self> {
        let (number, rest) = line.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        let (rest, keep) = rest.strip_suffix(" keep").map_or((rest, false), |rest| (rest, true));
        let (shape, ty) = if let Some(ty) = rest.strip_prefix("[]") {
            (Shape::List, ty)
        } else if let Some(ty) = rest.strip_prefix("map ") {
            (Shape::Map, ty)
        } else if name == "-" {
            (Shape::Inline, rest)
        } else {
            (Shape::One, rest)
        };
        let ty = Type::parse(ty);
        // Items are always shown.
        let keep = keep || matches!(shape, Shape::List | Shape::Map);
        Some(Self { number: number.parse().ok()?, name, shape, ty, keep })
    }
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |f| f.number).ok().map(|i| &self.fields[i])
    }
}

/// Each message's lines, and what they say once someone asked.
static TABLE: LazyLock<HashMap<&'static str, (&'static str, OnceLock<Message>)>> = LazyLock::new(|| {
    let text = include_str!("fields.txt");
    let mut table = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('\n') {
        let end = after.match_indices('\n').map(|(i, _)| i + 1).find(|i| !after[*i..].starts_with(' '));
        let (lines, next) = after.split_at(end.unwrap_or(after.len()));
        table.insert(name, (lines, OnceLock::new()));
        rest = next;
    }
    table
});

/// The message called `name`.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    let (lines, parsed) = TABLE.get(name)?;
    Some(parsed.get_or_init(|| {
        let mut fields: Vec<_> = lines.lines().filter_map(|l| Field::parse(l.trim_start())).collect();
        fields.sort_by_key(|f| f.number);
        Message { fields }
    }))
}

/// The message of a kind. Kinds of `meta.k8s.io` (DeleteOptions …) come under the version of any group.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or_default();
    message(&format!("{package}.{version}.{kind}")).or_else(|| message(&format!("meta.v1.{kind}")))
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}
