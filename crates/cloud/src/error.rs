//! What can go wrong between this program and a cloud.

use std::fmt;

use serde_json::Value;

use crate::{config::ConfigError, inventory::Unlisted, service::Service};

/// A failed conversation with a cloud.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cloud, or not enough to reach it.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS cannot be set up as configured.
    #[error("set up TLS: {why}")]
    Tls {
        /// Why.
        why: String,
    },
    /// The catalogue has no such service.
    #[error("the cloud offers no {service}{}", region.as_ref().map(|r| format!(" in region {r}")).unwrap_or_default())]
    NoService {
        /// The service.
        service: Service,
        /// The region that was asked for.
        region: Option<String>,
    },
    /// The token is for no project, so that there is nothing to work in.
    #[error("the credentials name no project; set project_id or project_name (OS_PROJECT_ID, OS_PROJECT_NAME)")]
    NoProject,
    /// Of several regions none was chosen, or one that there is not.
    #[error("{}; choose one of {known} (region_name, OS_REGION_NAME, --os-region)", unplaced(wanted.as_deref()))]
    Region {
        /// The region that was asked for.
        wanted: Option<String>,
        /// Those that there are.
        known: String,
    },
    /// The cloud said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// No answer came.
    #[error("{doing}: no answer from {host}")]
    Connection {
        /// What was being done.
        doing: String,
        /// Whom it was said to.
        host: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// What is sent is not taken, or not acknowledged.
    #[error("{doing}: nothing has moved for {seconds} s")]
    Still {
        /// What was being done.
        doing: String,
        /// For how long.
        seconds: u64,
    },
    /// The cloud does not come to an end.
    #[error("{what} has been {state} for {minutes} minutes; ask the cloud's operators")]
    Endless {
        /// What.
        what: String,
        /// Its state.
        state: String,
        /// For how long.
        minutes: u64,
    },
    /// A service that answered before does not any more.
    #[error("{why}; what was begun stays, and the next run goes on from it when {service} is back")]
    Lost {
        /// The service.
        service: Service,
        /// What it said last.
        why: String,
    },
    /// Somebody else is at work on the same thing.
    #[error("{what} is being changed by somebody else; run this again when they have finished")]
    Moving {
        /// What.
        what: String,
    },
    /// What cannot be seen may be there still.
    #[error("{name} is not known to be gone: {}; run this again when they can be listed", listed(unlisted))]
    Unseen {
        /// The cluster.
        name: String,
        /// What could not be listed.
        unlisted: Vec<Unlisted>,
    },
    /// The answer makes no sense.
    #[error("{doing}: the answer makes no sense: {why}{}", RequestId(request_id))]
    Answer {
        /// What was being done.
        doing: String,
        /// Why.
        why: String,
        /// OpenStack's id of the request.
        request_id: Option<String>,
    },
}

/// An answer of 400 and above.
#[derive(Debug)]
pub struct Refusal {
    /// What was being done.
    pub doing: String,
    /// The HTTP status.
    pub status: u16,
    /// The service's own words.
    pub message: String,
    /// OpenStack's id of the request, for the operators of the cloud.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}){}", self.doing, self.message, self.status, RequestId(&self.request_id))
    }
}

fn unplaced(wanted: Option<&str>) -> String {
    wanted.map_or("the cloud has several regions".to_owned(), |region| format!("the cloud has no region {region:?}"))
}

fn listed(unlisted: &[Unlisted]) -> String {
    unlisted.iter().map(|u| format!("its {}s could not be listed ({})", u.kind, u.why)).collect::<Vec<_>>().join(", ")
}

struct RequestId<'a>(&'a Option<String>);

impl fmt::Display for RequestId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) => write!(f, " [{id}]"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// Whether the object does not exist.
    pub fn is_absent(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the object exists already, or is busy.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// Whether the cloud may have done what was asked although no good answer came.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Still { .. } | Self::Answer { .. } => true,
            _ => self.status().is_some_and(|s| s >= 500 || s == 408),
        }
    }

    /// Whether looking again may help: it may have been done all the same, or the project was not as it was seen.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Moving { .. }) || self.is_uncertain() || self.is_conflict() || self.is_absent()
    }
}

/// An absent object as `None`.
pub fn optional<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The words of an error body: each service wraps them in its own way, and proxies answer in HTML.
pub fn message(body: &[u8]) -> String {
    if let Ok(value) = serde_json::from_slice::<Value>(body)
        && let Some(found) = worded(&value)
    {
        return found.trim().to_owned();
    }
    let mut text = String::new();
    let mut inside = false;
    for char in String::from_utf8_lossy(body).chars().take(4000) {
        match char {
            '<' => inside = true,
            '>' => {
                inside = false;
                text.push(' ');
            }
            char if !inside => text.push(char),
            _ => {}
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.is_empty() {
        true => "no reason was given".to_owned(),
        false => words.join(" ").chars().take(300).collect(),
    }
}

fn worded(value: &Value) -> Option<String> {
    let own = ["message", "faultstring", "detail"].iter().find_map(|k| value[*k].as_str()).filter(|t| !t.is_empty());
    let inner = || value.as_object()?.values().find_map(worded);
    own.map(str::to_owned).or_else(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_s_words_are_found() {
        for (body, words) in [
            (r#"{"badRequest": {"code": 400, "message": "Flavor's disk is too small"}}"#, "Flavor's disk is too small"),
            (
                r#"{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for ['port']", "detail": ""}}"#,
                "Quota exceeded for ['port']",
            ),
            (
                r#"{"error": {"code": 401, "message": "The request you have made", "title": "Unauthorized"}}"#,
                "The request you have made",
            ),
            (
                r#"{"code": 409, "title": "Conflict", "explanation": "There was a conflict", "error":
               {"type": "StackExists", "traceback": null, "message": "The Stack (a) already exists."}}"#,
                "The Stack (a) already exists.",
            ),
            (
                "<html><head><title>403 Forbidden</title></head><body><h1>403</h1> Not\n allowed</body></html>",
                "403 Forbidden 403 Not allowed",
            ),
            ("", "no reason was given"),
        ] {
            assert_eq!(message(body.as_bytes()), words);
        }
    }

    #[test]
    fn a_refusal_names_the_request() {
        let refusal = Refusal {
            doing: "create stack a".into(),
            status: 409,
            message: "exists".into(),
            request_id: Some("req-1".into()),
        };
        assert_eq!(Error::Refused(Box::new(refusal)).to_string(), "create stack a: exists (409) [req-1]");
    }
}
