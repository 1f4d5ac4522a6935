//! JSON, with duplicate keys noticed.

use std::{
    cell::{Cell, RefCell},
    fmt,
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Document, MAX_DUPLICATES, MAX_VALUES, Position, ReadError};
use crate::faults::{self, Path};

/// Reads one document of at most [`MAX_VALUES`]. Deeper nesting than [`super::MAX_DEPTH`] is refused before it costs
/// any stack.
pub fn json(text: &[u8]) -> Result<Document, ReadError> {
    let notes = Notes::default();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node(&notes).deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    let value = value.map_err(|error| {
        let at = Position { line: error.line().max(1), column: error.column().max(1) };
        let why = error.to_string();
        let why = why.rfind(" at line ").map_or(&*why, |end| &why[..end]);
        ReadError { at, why: why.to_owned() }
    })?;
    // serde does not say where it stands while all goes well; the path is enough for the server.
    let duplicates = notes.duplicates.into_inner().into_iter().map(|path| (path, Position { line: 1, column: 1 }));
    Ok(Document { value, duplicates: duplicates.collect(), ..Document::default() })
}

#[derive(Default)]
struct Notes {
    /// The way to the value that is being read.
    at: RefCell<Vec<Step>>,
    duplicates: RefCell<Vec<Path>>,
    values: Cell<usize>,
}

enum Step {
    Field(String),
    Index(usize),
}

impl Notes {
    fn duplicate(&self, key: &str) {
        let mut duplicates = self.duplicates.borrow_mut();
        if duplicates.len() < MAX_DUPLICATES {
            let way = self.at.borrow();
            let way = way.iter().map(|step| match step {
                Step::Field(name) => faults::Step::Field(name),
                Step::Index(at) => faults::Step::Index(*at),
            });
            duplicates.push(Path::of(way.chain([faults::Step::Field(key)])));
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'a>(&'a Notes);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.values.set(self.0.values.get() + 1);
        if self.0.values.get() > MAX_VALUES {
            return Err(D::Error::custom(format_args!("has more than {MAX_VALUES} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            self.0.at.borrow_mut().push(Step::Index(out.len()));
            let next = list.next_element_seed(self)?;
            self.0.at.borrow_mut().pop();
            match next {
                Some(value) => out.push(value),
                None => return Ok(out.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if out.contains_key(&key) {
                self.0.duplicate(&key);
            }
            self.0.at.borrow_mut().push(Step::Field(key));
            let value = map.next_value_seed(self)?;
            if let Some(Step::Field(key)) = self.0.at.borrow_mut().pop() {
                out.insert(key, value);
            }
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicate_keys_are_told_and_the_last_counts() {
        let document = json(br#"{"a": {"b": [{"c": 1, "c": 2}]}, "a": 3}"#).unwrap();
        assert_eq!(document.value, json!({"a": 3}));
        let paths: Vec<String> = document.duplicates.iter().map(|(p, _)| p.to_string()).collect();
        assert_eq!(paths, ["a.b[0].c", "a"]);
    }

    #[test]
    fn depth_of_ten_thousand_is_refused() {
        for open in ["[", "{\"a\":"] {
            let error = json(open.repeat(10_000).as_bytes()).unwrap_err();
            assert!(error.why.contains("recursion limit"), "{error}");
        }
        let deepest = "[".repeat(super::super::MAX_DEPTH) + &"]".repeat(super::super::MAX_DEPTH);
        assert!(json(deepest.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_told_of_duplicates_is_bounded() {
        let twice = format!("{{\"{}\": {{{}\"a\": 0}}}}", "k".repeat(100_000), "\"a\": 0, ".repeat(1_000));
        let told = json(twice.as_bytes()).unwrap().duplicates;
        assert_eq!(told.len(), MAX_DUPLICATES);
        assert!(told.iter().all(|(path, _)| path.to_string().len() < 1_100));
    }

    #[test]
    fn more_values_than_an_object_has_are_refused() {
        let of = |n: usize| format!("[{}0]", "0,".repeat(n - 2));
        assert!(json(of(MAX_VALUES).as_bytes()).is_ok());
        assert!(json(of(MAX_VALUES + 1).as_bytes()).unwrap_err().why.contains("values"));
    }

    #[test]
    fn errors_say_where() {
        let error = json(b"{\n  \"a\": nope\n}").unwrap_err();
        assert_eq!((error.at.line, error.at.column > 6), (2, true), "{error}");
        assert!(json(b"{} {}").is_err() && json(b"").is_err() && json(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = json(&text);
        }

        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a0-9.e-]{0,24}") {
            let ours = json(text.as_bytes()).ok().map(|d| d.value);
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }
}
