//! YAML, from the parser's events: no recursion, and a budget for what aliases unfold to.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use serde_json::{Map, Value};

use super::{Document, MAX_DEPTH, MAX_DUPLICATES, MAX_VALUES, Position, ReadError, depth, scalar, weight};
use crate::faults::{Path, Step};

/// The weight of all that anchors keep and aliases repeat ("billion laughs").
const MAX_REPEATED: usize = 4 << 20;

/// Reads all documents of a text, of at most [`MAX_VALUES`] together; those that are empty are left out.
pub fn yaml(text: &str) -> Result<Vec<Document>, ReadError> {
    read(text, Builder { most: MAX_VALUES, ..Builder::default() })
}

/// The same for a file of one's own: of any size, and with the places of all fields.
pub(super) fn placed(text: &str) -> Result<Vec<Document>, ReadError> {
    read(text, Builder { most: usize::MAX, places: true, ..Builder::default() })
}

fn read(text: &str, mut builder: Builder) -> Result<Vec<Document>, ReadError> {
    let mut documents = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| ReadError { at: position(e.marker()), why: e.info() })?;
        if let Event::DocumentEnd = event {
            let document = std::mem::take(&mut builder.document);
            builder.anchors.clear();
            if !document.value.is_null() {
                documents.push(document);
            }
            continue;
        }
        let at = position(&span.start);
        builder.take(event, at).map_err(|why| ReadError { at, why })?;
    }
    Ok(documents)
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    document: Document,
    open: Vec<Open>,
    anchors: HashMap<usize, Value>,
    /// How many values may come.
    most: usize,
    values: usize,
    repeated: usize,
    /// Whether it matters where fields stand.
    places: bool,
}

/// A list or map that is being read.
struct Open {
    anchor: usize,
    into: Into,
}

enum Into {
    List(Vec<Value>),
    Map {
        map: Map<String, Value>,
        /// The key whose value comes next, and where it stands.
        key: Option<(String, Position)>,
        /// Keys that `<<` brought in: to write one out after it is no duplicate.
        inherited: HashSet<String>,
    },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = resolve(&text, style, tag.as_deref())?;
                if let Some(key) = self.wants_key() {
                    *key = Some((key_of(&value, &text)?, at));
                    return Ok(());
                }
                self.note(at)?;
                self.put(anchor, value)
            }
            Event::SequenceStart(_, anchor, _) => self.open(anchor, Into::List(Vec::new()), at),
            Event::MappingStart(_, anchor, _) => {
                self.open(anchor, Into::Map { map: Map::new(), key: None, inherited: HashSet::new() }, at)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.into {
                    Into::List(list) => list.into(),
                    Into::Map { map, .. } => map.into(),
                };
                self.put(open.anchor, value)
            }
            Event::Alias(anchor) => {
                if self.wants_key().is_some() {
                    return Err("an alias cannot be a key".to_owned());
                }
                let value = self.anchors.get(&anchor).ok_or("the alias refers to what it stands in")?;
                if self.open.len() + depth(value) - 1 > MAX_DEPTH {
                    return Err(format!("nests deeper than {MAX_DEPTH} once aliases are followed"));
                }
                repeat(&mut self.repeated, value)?;
                let value = value.clone();
                self.note(at)?;
                self.put(0, value)
            }
            _ => Ok(()),
        }
    }

    /// The place for a key, if one comes next.
    fn wants_key(&mut self) -> Option<&mut Option<(String, Position)>> {
        match &mut self.open.last_mut()?.into {
            Into::Map { key, .. } if key.is_none() => Some(key),
            _ => None,
        }
    }

    /// The way to the value that comes next.
    fn way(&self) -> impl Iterator<Item = Step<'_>> {
        self.open.iter().map(|open| match &open.into {
            Into::List(list) => Step::Index(list.len()),
            Into::Map { key, .. } => Step::Field(key.as_ref().map_or("", |(key, _)| key)),
        })
    }

    /// Counts the value that begins here. A field stands where its key does; an item of a list where it begins.
    fn note(&mut self, at: Position) -> Result<(), String> {
        self.values += 1;
        if self.values > self.most {
            return Err(format!("has more than {} values", self.most));
        }
        if self.places {
            let at = match self.open.last().map(|o| &o.into) {
                Some(Into::Map { key: Some((_, at)), .. }) => *at,
                _ => at,
            };
            let path = Path::of(self.way());
            self.document.spans.note(&path.to_string(), at);
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, into: Into, at: Position) -> Result<(), String> {
        if self.wants_key().is_some() {
            return Err("a list or map cannot be a key".to_owned());
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nests deeper than {MAX_DEPTH}"));
        }
        self.note(at)?;
        self.open.push(Open { anchor, into });
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, anchor: usize, value: Value) -> Result<(), String> {
        if anchor != 0 {
            repeat(&mut self.repeated, &value)?;
            self.anchors.insert(anchor, value.clone());
        }
        let twice = match self.open.last().map(|open| &open.into) {
            Some(Into::Map { map, key: Some((key, at)), inherited }) if map.contains_key(key) && key != "<<" => {
                (!inherited.contains(key) && self.document.duplicates.len() < MAX_DUPLICATES).then_some(*at)
            }
            _ => None,
        };
        if let Some(at) = twice {
            let path = Path::of(self.way());
            self.document.duplicates.push((path, at));
        }
        let Some(open) = self.open.last_mut() else {
            self.document.value = value;
            return Ok(());
        };
        match &mut open.into {
            Into::List(list) => list.push(value),
            Into::Map { map, key, inherited } => {
                let (key, _) = key.take().ok_or("a value without a key")?;
                if key == "<<" {
                    // As go-yaml does: over what stands before it, under what comes after; of a list, the first counts.
                    for (key, value) in to_merge(value)?.into_iter().rev().flatten() {
                        inherited.insert(key.clone());
                        map.insert(key, value);
                    }
                } else {
                    inherited.remove(&key);
                    map.insert(key, value);
                }
            }
        }
        Ok(())
    }
}

/// Pays for one more copy of a value.
fn repeat(repeated: &mut usize, value: &Value) -> Result<(), String> {
    *repeated += weight(value);
    if *repeated > MAX_REPEATED {
        return Err(format!("repeats more than {MAX_REPEATED} bytes by anchors and aliases"));
    }
    Ok(())
}

fn to_merge(value: Value) -> Result<Vec<Map<String, Value>>, String> {
    let wrong = || "<< wants a map, or a list of maps".to_owned();
    let map = |value| if let Value::Object(map) = value { Ok(map) } else { Err(wrong()) };
    match value {
        Value::Array(list) => list.into_iter().map(map).collect(),
        value => map(value).map(|map| vec![map]),
    }
}

fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    match tag {
        Some(tag) if tag.suffix_in_namespace("tag:yaml.org,2002:").as_deref() == Some("binary") => {
            use base64::Engine;
            let bare: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bare).map_err(|e| e.to_string())?;
            String::from_utf8(bytes)
                .map(Value::from)
                .map_err(|_| "!!binary of anything but text has no form".to_owned())
        }
        Some(tag) => match tag.core_suffix() {
            Some(core) if style == ScalarStyle::Plain || core != "str" => scalar::tagged(core, text),
            Some(_) => Ok(text.into()),
            // `! 5` and tags of one's own: the text.
            None => Ok(text.into()),
        },
        None if style == ScalarStyle::Plain => scalar::plain(text),
        None => Ok(text.into()),
    }
}

fn key_of(value: &Value, text: &str) -> Result<String, String> {
    match value {
        Value::String(key) => Ok(key.clone()),
        Value::Bool(key) => Ok(key.to_string()),
        Value::Number(key) => Ok(key.to_string()),
        _ => Err(format!("{text:?} cannot be a key")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn one(text: &str) -> Value {
        yaml(text).unwrap().remove(0).value
    }

    #[test]
    fn documents_are_read_one_by_one() {
        let all = placed("# note\n---\na: 1\n---\n---\n# nothing\n---\nb: [yes, \"yes\"]\n...\n").unwrap();
        assert_eq!(
            all.iter().map(|d| d.value.clone()).collect::<Vec<_>>(),
            [json!({"a": 1}), json!({"b": [true, "yes"]})]
        );
        assert_eq!(all[1].spans.find(&Path::root().field("b").index(1)), Some(Position { line: 8, column: 10 }));
        assert_eq!(yaml("").unwrap(), []);
    }

    #[test]
    fn keys_aliases_and_merges_come_out_as_kubectl_has_them() {
        assert_eq!(
            one("{1: a, yes: b, 1.5: c, 0x10: f, off: g, 1e3: h}"),
            json!({"1": "a", "true": "b", "1.5": "c", "16": "f", "false": "g", "1000": "h"})
        );
        assert_eq!(
            one("b: &x {q: 1}\nc: {<<: *x, r: 2}\nd: *x\ne: {<<: *x, q: 5}\nf: {q: 5, <<: [*x, {q: 7, r: 8}]}"),
            json!({"b": {"q": 1}, "c": {"q": 1, "r": 2}, "d": {"q": 1}, "e": {"q": 5}, "f": {"q": 1, "r": 8}})
        );
        assert_eq!(one("b: !foo bar\nc: !!binary aGVsbG8=\ne: !!float 3"), json!({"b": "bar", "c": "hello", "e": 3}));
        assert!(yaml("{null: a}").is_err() && yaml("? [a]\n: b").is_err());
    }

    #[test]
    fn duplicate_keys_are_told_with_their_place() {
        let document = yaml("a:\n  b: 1\n  b: 2\n").unwrap().remove(0);
        assert_eq!(document.value, json!({"a": {"b": 2}}));
        assert_eq!(document.duplicates, [(Path::root().field("a").field("b"), Position { line: 3, column: 3 })]);
    }

    #[test]
    fn errors_say_where() {
        let error = yaml("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.at.line >= 2 && !error.why.is_empty(), "{error}");
        assert_eq!(yaml("a:\n  b: .inf\n").unwrap_err().at, Position { line: 2, column: 6 });
    }

    #[test]
    fn depth_of_ten_thousand_is_refused() {
        for text in ["[".repeat(10_000), "{a: ".repeat(10_000), "- ".repeat(10_000)] {
            assert!(yaml(&text).is_err());
        }
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(yaml(&nested(MAX_DEPTH)).is_ok() && yaml(&nested(MAX_DEPTH + 1)).is_err());
        // Nor may an alias carry one half of a depth into the other.
        let half = MAX_DEPTH / 2 + 1;
        assert!(yaml(&format!("a: &a {}\nb: {}*a{}", nested(half), "[".repeat(half), "]".repeat(half))).is_err());
    }

    #[test]
    fn a_few_long_texts_repeated_are_refused_as_well() {
        let (long, list) =
            ("x".repeat(100_000), |item: &str, n: usize| format!("[{}{item}]", format!("{item}, ").repeat(n)));
        for text in [
            format!("a: &a {long}\nb: {}", list("*a", 50)),
            format!("a: &a {{? {long} : 0}}\nb: {}", list("*a", 50)),
            format!("{}{long}{}", "&x [".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        ] {
            assert!(yaml(&text).unwrap_err().why.contains("aliases"));
        }
        assert!(yaml(&format!("a: &a {long}\nb: {}", list("*a", 20))).is_ok());
    }

    #[test]
    fn the_server_bounds_what_it_reads_and_keeps_no_places() {
        let all = yaml(&format!("{}: {{a: 1, a: 2}}", "k".repeat(1_000))).unwrap();
        assert_eq!((&all[0].spans, all[0].duplicates.len()), (&super::super::Spans::default(), 1));
        let zeros = "0,".repeat(MAX_VALUES);
        assert!(yaml(&format!("[{zeros}]")).unwrap_err().why.contains("values"));
        assert!(placed(&format!("[{zeros}]")).is_ok());
        let twice = format!("{{{}}}", "a: 0, ".repeat(1_000));
        assert_eq!(yaml(&twice).unwrap()[0].duplicates.len(), MAX_DUPLICATES);
    }

    #[test]
    fn a_billion_laughs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(9);
            text += &format!("a{level}: &a{level} [{before}*a{}]\n", level - 1);
        }
        assert!(yaml(&text).unwrap_err().why.contains("aliases"));
        assert!(yaml("a: &a [*a]").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*|[-a:\\[\\]{},&*!|>#%?\"' \\n0-9.~]{0,60}") {
            let _ = yaml(&text);
        }

        #[test]
        fn json_reads_the_same(list in prop::collection::vec(("[a-zA-Z0-9 :#\\-]{0,8}", any::<i32>()), 0..5)) {
            let value: Value = list.iter().map(|(k, v)| json!({"k": k, "v": v, "l": [k, null, true]})).collect();
            prop_assert_eq!(one(&value.to_string()), value);
        }
    }
}
