//! What a client should know although its request succeeds.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

/// Warnings of one request, sent as `Warning` headers (RFC 7234, code 299).
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Notes one; repeated ones are told once.
    pub fn push(&self, text: impl Into<String>) {
        let text = text.into();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains(&text) {
            all.push(text);
        }
    }

    /// Puts them into an answer's headers.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        for text in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let quoted: String = text.chars().filter(|c| !c.is_control()).flat_map(escape).collect();
            if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
                headers.append(HeaderName::from_static("warning"), value);
            }
        }
    }
}

fn escape(c: char) -> impl Iterator<Item = char> {
    matches!(c, '"' | '\\').then_some('\\').into_iter().chain([c])
}
