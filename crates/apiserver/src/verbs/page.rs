//! Continue tokens: where a list goes on, and at which revision.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use store::Rev;

use crate::{ApiError, Result};

/// The longest token that is looked at.
const MAX: usize = 4096;

/// The content of a continue token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// The revision that all pages show; none for the one there is when the list goes on.
    #[serde(rename = "rv")]
    rev: Option<u64>,
    /// The last key of the page before, as it stands on the shelf.
    #[serde(rename = "k")]
    pub(crate) after: String,
}

impl Token {
    pub(crate) fn new(rev: Option<Rev>, after: &str) -> Self {
        Self { rev: rev.map(|rev| rev.0), after: after.to_owned() }
    }

    pub(crate) fn rev(&self) -> Option<Rev> {
        self.rev.map(Rev)
    }

    pub(crate) fn encode(&self) -> String {
        // A struct of a number and a string always encodes.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(crate) fn decode(text: &str) -> Result<Self> {
        let bytes = (text.len() <= MAX).then(|| URL_SAFE_NO_PAD.decode(text).ok()).flatten();
        bytes
            .and_then(|b| serde_json::from_slice(&b).ok())
            .ok_or_else(|| ApiError::bad_request("continue key is not valid; list again from the beginning"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn tokens_come_back(rev: Option<u64>, after in ".{0,40}") {
            let token = Token::new(rev.map(Rev), &after);
            assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        }

        #[test]
        fn never_panics(text in ".{0,80}", bytes: Vec<u8>) {
            let _ = Token::decode(&text);
            let _ = Token::decode(&URL_SAFE_NO_PAD.encode(bytes));
        }
    }
}
