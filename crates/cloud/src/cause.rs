//! Why a stack failed: the cause, not Heat's summary. Pure.

use std::fmt;

use crate::{heat::Resource, seen::Server};

/// How many of the console's last lines are shown.
pub(crate) const LINES: usize = 8;

/// Why one resource failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The resource's name.
    pub resource: String,
    /// What the service said.
    pub why: String,
    /// The last lines of the machine's console.
    pub console: Vec<String>,
}

impl Cause {
    /// A cause without more.
    pub fn of(resource: impl Into<String>, why: String) -> Self {
        Self { resource: resource.into(), why, console: Vec::new() }
    }
}

/// A failure that a service's words betray.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// No compute host has room.
    NoHost,
    /// A quota is used up.
    Quota,
    /// A network has no address left.
    NoAddress,
    /// The state volume is in use elsewhere.
    VolumeTaken,
    /// Something else is in the cluster's network.
    NetworkTaken,
}

/// What services say, and what that is.
const PHRASES: [(&str, Known); 9] = [
    ("No valid host", Known::NoHost),
    ("Quota exceeded", Known::Quota),
    ("exceeds allowed", Known::Quota),
    ("exceeded for quota", Known::Quota),
    ("TooManyInstances", Known::Quota),
    ("No more IP addresses", Known::NoAddress),
    ("Block Device Mapping is Invalid", Known::VolumeTaken),
    ("have an IP allocation from this subnet", Known::NetworkTaken),
    ("one or more ports still in use on the network", Known::NetworkTaken),
];

impl Known {
    /// What a service's words come down to, when we know.
    pub fn by(words: &str) -> Option<Self> {
        PHRASES.iter().find(|(phrase, _)| words.contains(phrase)).map(|(_, known)| *known)
    }

    /// In plain words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoHost => "no compute host has room for its flavor in its zone",
            Self::Quota => "the project's quota is used up",
            Self::NoAddress => "the network has no address left",
            Self::VolumeTaken => "the state volume is not free",
            Self::NetworkTaken => "something that is not the cluster's is in its network",
        }
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoHost => "try another flavor or zone, or ask the cloud's operators",
            Self::Quota => "delete what is not needed (`rast cloud inventory` shows it), or ask for a larger quota",
            Self::NoAddress => "ask the cloud's operators for a larger range",
            Self::VolumeTaken => "see what holds it: `rast cloud status`",
            Self::NetworkTaken => "take it out (`rast cloud inventory` shows ports and load balancers)",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.why)?;
        if let Some(known) = Known::by(&self.why) {
            write!(f, "; {}: {}", known.words(), known.advice())?;
        }
        for line in &self.console {
            write!(f, "\n      console | {line}")?;
        }
        Ok(())
    }
}

/// The resources that failed by themselves; those that were given up because of others say nothing.
pub fn failed(resources: &[Resource]) -> impl Iterator<Item = &Resource> {
    let own = |r: &&Resource| {
        r.status.ends_with("_FAILED") && !r.reason.contains("aborted") && !r.reason.contains("Stack CREATE cancelled")
    };
    resources.iter().filter(own)
}

/// Explains a resource's failure; for a server, with what Nova says of it and its console.
pub fn explain(resource: &Resource, server: Option<&Server>, console: &str) -> Cause {
    let fault = server.map(|s| s.fault.as_str()).filter(|f| !f.is_empty());
    let why = fault.map_or_else(|| plain(&resource.reason, &resource.name), str::to_owned);
    Cause { resource: resource.name.clone(), why, console: last_lines(console, LINES) }
}

/// The last lines of a console that say something.
pub fn last_lines(console: &str, most: usize) -> Vec<String> {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(most)..].iter().map(|l| (*l).to_owned()).collect()
}

/// Heat's wrapping taken off: `OverQuotaClient: resources.port_0: Quota exceeded …\nNeutron server returns …`.
fn plain(reason: &str, name: &str) -> String {
    let reason = reason.replace('\n', " ");
    let mark = format!("resources.{name}: ");
    let bare = reason.split_once(&mark).map_or(reason.as_str(), |(_, rest)| rest);
    bare.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(status: &str, reason: &str) -> Resource {
        Resource { name: "port_0".into(), status: status.into(), reason: reason.into(), ..Resource::default() }
    }

    #[test]
    fn the_service_s_own_words_are_shown_with_what_to_do() {
        let reason = "OverQuotaClient: resources.port_0: Quota exceeded for resources: ['port'].\nNeutron server returns request_ids: ['req-1']";
        let cause = explain(&resource("CREATE_FAILED", reason), None, "");
        assert!(cause.to_string().starts_with("port_0: Quota exceeded for resources: ['port']. Neutron"), "{cause}");
        let advice = "the project's quota is used up: delete what is not needed (`rast cloud inventory` shows it), \
                      or ask for a larger quota";
        assert!(cause.to_string().ends_with(advice), "{cause}");
    }

    #[test]
    fn each_service_says_in_its_own_way_that_a_quota_is_used_up() {
        for said in [
            "Quota exceeded for cores: Requested 1, but already used 0 of 0 cores (HTTP 403)",
            "Quota exceeded for resources: ['port'].",
            "VolumeLimitExceeded: Maximum number of volumes allowed (0) exceeded for quota 'volumes'. (HTTP 413)",
            "Requested volume or snapshot exceeds allowed gigabytes quota. Requested 1G, quota is 0G",
        ] {
            assert_eq!(Known::by(said), Some(Known::Quota), "{said}");
        }
    }

    #[test]
    fn a_server_s_fault_and_console_come_first() {
        let server = Server { fault: "No valid host was found.".into(), ..Server::default() };
        let console: String = (0..20).map(|i| format!("line {i}\n\n")).collect();
        let cause = explain(&resource("CREATE_FAILED", "Went to status ERROR"), Some(&server), &console);
        assert_eq!((cause.console.len(), cause.console[7].as_str()), (8, "line 19"));
        assert!(cause.to_string().contains("No valid host was found.; no compute host has room for"), "{cause}");
    }

    #[test]
    fn what_was_given_up_because_of_others_is_no_cause() {
        let all =
            [resource("CREATE_FAILED", "CREATE aborted (user triggered cancel)"), resource("CREATE_COMPLETE", "")];
        assert_eq!(failed(&all).count(), 0);
    }
}
