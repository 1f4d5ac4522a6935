//! How a command ended, as the error stream tells it.

use serde_json::{Value, json};

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ran and left with this code.
    Exited(i32),
    /// It could not be run, or its end is not known; in plain words.
    Failed(String),
}

impl Outcome {
    /// As `metav1.Status`; clients take the exit code from its cause.
    pub(crate) fn status(&self) -> Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.text(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": why,
                "reason": "InternalError",
                "details": {"causes": [{"message": why}]},
                "code": 500,
            }),
        }
    }

    /// As protocols before version 4 have it: nothing is success.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => format!("command terminated with exit code {code}"),
            Self::Failed(why) => why.clone(),
        }
    }
}
