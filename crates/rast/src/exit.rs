//! Exit codes, and which error ends with which.

use std::process::ExitCode;

/// How the program ends when it does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Validation refused what was asked for.
    Invalid = 3,
    /// The object does not exist.
    NotFound = 4,
    /// Not allowed.
    Denied = 5,
    /// It took too long.
    TimedOut = 6,
}

/// A failure that knows its exit code and needs no further cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What happened and what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure with this code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl Exit {
    /// The code that `error` ends with.
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(|cause| {
                let cloud = || Some(Self::of_status(cause.downcast_ref::<cloud::Error>()?.status()?));
                match (cause.downcast_ref::<Failure>(), cause.downcast_ref::<kube::Error>()) {
                    (Some(failure), _) => Some(failure.exit),
                    (_, Some(kube::Error::Api(status))) => Some(Self::of_status(status.code)),
                    _ => cloud(),
                }
            })
            .unwrap_or(Self::Failed)
    }

    /// The way of ending that a number stands for.
    pub fn from_code(code: i32) -> Option<Self> {
        let all = [Self::Failed, Self::Usage, Self::Invalid, Self::NotFound, Self::Denied, Self::TimedOut];
        all.into_iter().find(|exit| *exit as i32 == code)
    }

    /// The code that an HTTP status means.
    pub fn of_status(code: u16) -> Self {
        match code {
            400 | 413 | 415 | 422 => Self::Invalid,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            408 | 504 => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error in one line: each cause that says something its effect did not.
pub fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !words.contains(&cause) {
            words += if words.is_empty() { "" } else { ": " };
            words += &cause;
        }
    }
    words
}
