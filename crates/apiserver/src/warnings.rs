//! What a client should know although its request succeeds.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};

/// How many warnings an answer carries, how many bytes of each, and how many bytes together: clients bound the head of
/// an answer (hyper's at 16 KiB).
const MAX: usize = 100;
const MAX_TEXT: usize = 1000;
const MAX_BYTES: usize = 8 << 10;

/// Warnings of one request, sent as `Warning` headers (RFC 7234, code 299).
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// Notes one, if there is room for it; repeated ones are told once.
    pub fn push(&self, text: impl Into<String>) {
        let mut text = text.into();
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = all.iter().fold(MAX_BYTES, |room, text| room.saturating_sub(text.len()));
        if all.len() < MAX && text.len() <= room && !all.contains(&text) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_them() {
        let told = |texts: &mut dyn Iterator<Item = String>| {
            let (warnings, mut headers) = (Warnings::default(), HeaderMap::new());
            texts.for_each(|text| warnings.push(text));
            warnings.write(&mut headers);
            (headers.len(), headers.values().map(HeaderValue::len).sum::<usize>())
        };
        assert_eq!(told(&mut (0..200).map(|i| format!("w{}", i / 2))).0, MAX);
        assert!(told(&mut (0..200_000).map(|i| format!("{i} {}", "é".repeat(200)))).1 < 16 << 10);
        let (one, bytes) = told(&mut std::iter::once("x".repeat(1 << 20)));
        assert!(one == 1 && bytes < 1_100);
    }
}
