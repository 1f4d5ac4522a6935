//! Field paths and what is wrong at them.

use std::fmt;

/// The place of a value in an object: `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(String);

/// How many bytes a path may have that is made of what others wrote: the rest is cut off.
const MAX_PATH: usize = 1000;

/// One step on the way to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A field, or an entry of a map.
    Field(&'a str),
    /// An item of a list.
    Index(usize),
}

impl Path {
    /// The place at the end of a way; of one that is very long, the beginning.
    pub fn of<'a>(way: impl IntoIterator<Item = Step<'a>>) -> Self {
        let mut path = String::new();
        for step in way {
            match step {
                Step::Field(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&name[..name.floor_char_boundary(MAX_PATH)]);
                }
                Step::Index(at) => path.push_str(&format!("[{at}]")),
            }
            if path.len() > MAX_PATH {
                path.truncate(path.floor_char_boundary(MAX_PATH));
                path.push('…');
                break;
            }
        }
        Self(path)
    }

    /// The object itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// A field of this value.
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// An item of this list.
    pub fn index(&self, at: usize) -> Self {
        Self(format!("{}[{at}]", self.0))
    }

    /// An entry of this map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a value is refused: `metav1.CauseType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`: also a field that rastOS does not implement.
    NotSupported,
    /// `FieldValueForbidden`.
    Forbidden,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueNotFound`.
    NotFound,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub path: Path,
    /// What sort of fault.
    pub cause: Cause,
    /// In plain words, with what to do about it.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// How many faults are told of.
pub const MAX_FAULTS: usize = 100;

/// What is wrong with an object, the first [`MAX_FAULTS`] of it; empty when nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// Notes a fault.
    pub fn push(&mut self, path: Path, cause: Cause, message: impl Into<String>) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(Fault { path, cause, message: message.into() });
        }
    }

    /// Notes an invalid value unless `holds`.
    pub fn unless(&mut self, holds: bool, path: Path, message: impl Into<String>) {
        if !holds {
            self.push(path, Cause::Invalid, message);
        }
    }

    /// Notes that something is missing.
    pub fn required(&mut self, path: Path, message: impl Into<String>) {
        self.push(path, Cause::Required, message);
    }

    /// Notes a value that does not stand alone: it is there twice.
    pub fn duplicate(&mut self, path: Path, value: impl fmt::Display) {
        self.push(path, Cause::Duplicate, format!("{value} is there twice"));
    }

    /// Notes something that may not be given here, or may not change.
    pub fn forbidden(&mut self, path: Path, message: impl Into<String>) {
        self.push(path, Cause::Forbidden, message);
    }

    /// Notes a text that is missing or breaks a rule of [`crate::names`].
    pub fn named(&mut self, path: Path, text: &str, rule: crate::names::Rule) {
        if text.is_empty() {
            self.required(path, "must be given");
        } else {
            self.ruled(path, text, rule);
        }
    }

    /// Notes a text that breaks a rule of [`crate::names`], or is one of 64 KB: shown by its beginning.
    pub fn ruled(&mut self, path: Path, text: &str, rule: crate::names::Rule) {
        if let Some(why) = rule(text) {
            let shown: String = text.chars().take(80).collect();
            let rest = if shown.len() < text.len() { "…" } else { "" };
            self.push(path, Cause::Invalid, format!("\"{shown}{rest}\" {why}"));
        }
    }

    /// Notes a word that is not among those that there are.
    pub fn one_of(&mut self, path: Path, word: Option<&str>, words: &[&str]) {
        if let Some(word) = word.filter(|w| !words.contains(w)) {
            let shown: String = word.chars().take(80).collect();
            self.push(path, Cause::NotSupported, format!("{shown:?} must be one of {}", words.join(", ")));
        }
    }

    /// Notes a number that is out of its range.
    pub fn ranged(&mut self, path: Path, number: i64, range: std::ops::RangeInclusive<i64>) {
        let message = match *range.end() {
            i64::MAX => format!("{number} must be at least {}", range.start()),
            end => format!("{number} must be between {} and {end}", range.start()),
        };
        self.unless(range.contains(&number), path, message);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
