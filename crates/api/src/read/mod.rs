//! Readers of JSON and YAML that bound their depth, see duplicate keys and know where each field stands.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::faults::Path;

mod json;
mod scalar;
mod yaml;

pub use json::json;
pub use yaml::yaml;

/// How deep a document may nest: what serde_json allows, and the limit of both readers.
pub const MAX_DEPTH: usize = 127;

/// How many values a document may have that the server reads: each costs many times the two bytes that it may be
/// written in.
pub const MAX_VALUES: usize = 200_000;

/// How many keys given twice are told of.
const MAX_DUPLICATES: usize = 100;

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// Why a text is not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {}, column {}: {why}", at.line, at.column)]
pub struct ReadError {
    /// Where.
    pub at: Position,
    /// Why.
    pub why: String,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Its value. Of a key given twice, the last counts.
    pub value: Value,
    /// The first hundred keys that were given twice, with the place of the second.
    pub duplicates: Vec<(Path, Position)>,
    /// Where its fields stand. Empty for [`json()`] and [`yaml()`], which are the server's readers.
    pub spans: Spans,
}

/// Where the fields of a document stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<String, Position>);

impl Spans {
    /// Where a field stands, or else the nearest thing around it.
    pub fn find(&self, path: &Path) -> Option<Position> {
        let mut path = dotted(&path.to_string());
        loop {
            if let Some(at) = self.0.get(&path) {
                return Some(*at);
            }
            if path.is_empty() {
                return None;
            }
            path.truncate(path.rfind(['.', '[']).unwrap_or(0));
        }
    }

    fn note(&mut self, path: &str, at: Position) {
        self.0.insert(path.to_owned(), at);
    }
}

/// `labels[a/b]` as `labels.a/b`: faults name map entries either way.
fn dotted(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, tail) = after.split_once(']').unwrap_or((after, ""));
        out.push_str(before);
        if inside.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(&format!("[{inside}]"));
        } else {
            out.push_str(&format!(".{inside}"));
        }
        rest = tail;
    }
    out + rest
}

/// Reads a manifest file: JSON if it opens with a brace or bracket and is valid as such, else YAML documents.
/// Knows all places.
pub fn manifest(text: &str) -> Result<Vec<Document>, ReadError> {
    // JSON's own reader judges JSON, so that what the server would refuse is refused here; YAML's, which reads
    // JSON too, then finds the places.
    if text.trim_start().starts_with('{') && looks_like_json(text) {
        let judged = json(text.as_bytes())?;
        let spans = yaml::placed(text).ok().and_then(|mut all| all.pop()).map(|d| d.spans).unwrap_or_default();
        return Ok(vec![Document { spans, ..judged }]);
    }
    yaml::placed(text)
}

/// How deep a value nests; a scalar does by one.
pub fn depth(value: &Value) -> usize {
    let inside = match value {
        Value::Array(list) => list.iter().map(depth).max(),
        Value::Object(map) => map.values().map(depth).max(),
        _ => None,
    };
    1 + inside.unwrap_or(0)
}

/// About how many bytes a value takes in memory: its texts and keys, and something for each value.
pub fn weight(value: &Value) -> usize {
    64 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

/// A flow mapping of YAML opens with a brace too, but hardly ever with a quoted key.
fn looks_like_json(text: &str) -> bool {
    let inside = text.trim_start().trim_start_matches('{').trim_start();
    inside.starts_with(['"', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_s_path_finds_its_line() {
        let text = "kind: Pod\nmetadata:\n  labels:\n    a.b/c: x\nspec:\n  containers:\n  - name: a\n    image: 5\n";
        let spans = &manifest(text).unwrap()[0].spans;
        let at = |path: Path| spans.find(&path).map(|p| (p.line, p.column));
        let spec = Path::root().field("spec");
        assert_eq!(at(spec.field("containers").index(0).field("image")), Some((8, 5)));
        assert_eq!(at(spec.field("containers").index(0).field("ports").index(3)), Some((7, 5)));
        assert_eq!(at(spec.field("containers").index(7)), Some((6, 3)));
        assert_eq!(at(Path::root().field("metadata").field("labels").key("a.b/c")), Some((4, 5)));
        assert_eq!(at(Path::root().field("nothing")), Some((1, 1)));
    }

    #[test]
    fn a_json_manifest_has_places_and_is_judged_as_json() {
        let document = &manifest("{\n \"spec\": {\n  \"a\": 1}}").unwrap()[0];
        assert_eq!(document.spans.find(&Path::root().field("spec").field("a")), Some(Position { line: 3, column: 3 }));
        let error = manifest("{\"a\": 1,}").unwrap_err();
        assert_eq!(error.at.line, 1);
        assert_eq!(manifest("{a: yes}").unwrap()[0].value, serde_json::json!({"a": true}));
    }
}
