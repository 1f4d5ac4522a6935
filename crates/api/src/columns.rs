//! The cells of the tables that `kubectl get` prints, as upstream prints them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::registry::Column;

/// What a table shows where there is nothing.
pub const NONE: &str = "<none>";

/// The name.
pub const NAME: Column = Column { format: "name", ..column("Name", |o, _| text(o, "/metadata/name")) };
/// How long ago the object was created.
pub const AGE: Column = column("Age", |o, now| age(o.pointer("/metadata/creationTimestamp"), now).into());
/// When the object was created.
pub const CREATED_AT: Column = column("Created At", |o, _| text(o, "/metadata/creationTimestamp"));
/// The columns of a kind that has no others.
pub const PLAIN: &[Column] = &[NAME, AGE];

/// A column that calls itself one of strings, as upstream's do even where the cells are numbers.
pub const fn column(name: &'static str, value: fn(&Value, Timestamp) -> Value) -> Column {
    Column { name, kind: "string", format: "", wide: false, value }
}

/// A column of integers.
pub const fn integer(name: &'static str, value: fn(&Value, Timestamp) -> Value) -> Column {
    Column { kind: "integer", ..column(name, value) }
}

/// A column that only `-o wide` shows.
pub const fn wide(name: &'static str, value: fn(&Value, Timestamp) -> Value) -> Column {
    Column { wide: true, ..column(name, value) }
}

/// The string at a JSON pointer, or an empty one.
pub fn text(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().into()
}

/// The string at a JSON pointer, or [`NONE`].
pub fn text_or_none(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty()).unwrap_or(NONE).into()
}

/// The number at a JSON pointer, or 0.
pub fn number(object: &Value, pointer: &str) -> Value {
    json!(object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0))
}

/// The items of the list at a JSON pointer.
pub fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many entries the map or list at a JSON pointer has.
pub fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// Joined by commas, or [`NONE`].
pub fn list(items: impl IntoIterator<Item = String>) -> Value {
    let items: Vec<String> = items.into_iter().collect();
    if items.is_empty() { NONE.into() } else { items.join(",").into() }
}

/// A label selector as the tables show it.
pub fn selector(object: &Value, pointer: &str) -> Value {
    let Some(selector) = object.pointer(pointer) else { return NONE.into() };
    let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
    let mut terms: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    for term in items(selector, "/matchExpressions") {
        let key = term["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = items(term, "/values").iter().filter_map(Value::as_str).collect();
        terms.push(match term["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    terms.sort();
    list(terms)
}

/// How long ago a moment in RFC 3339 was, or `<unknown>`.
pub fn age(moment: Option<&Value>, now: Timestamp) -> String {
    match moment.and_then(Value::as_str).and_then(|at| at.parse::<Timestamp>().ok()) {
        Some(at) => human(now.as_second() - at.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds in the two largest units that matter: `119s`, `2m5s`, `3h`, `7d4h`, `2y10d`.
pub fn human(seconds: i64) -> String {
    let two = |big: i64, unit: char, small: i64, rest: char| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{rest}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        // A second or two of the future are two clocks, not a mistake.
        i64::MIN..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(hours / 24, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{}d", hours / 24),
        63_072_000..252_288_000 => two(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        _ => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_like_kubectl_s() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (660, "11m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (36_000, "10h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (320_000_000, "10y"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds} seconds");
        }
    }
}
