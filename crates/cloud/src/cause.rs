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
    /// What to do about it, when we know.
    pub advice: Option<&'static str>,
    /// The last lines of the machine's console.
    pub console: Vec<String>,
}

impl Cause {
    /// A cause without more.
    pub fn of(resource: impl Into<String>, why: String) -> Self {
        Self { resource: resource.into(), why, advice: None, console: Vec::new() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.why)?;
        if let Some(advice) = self.advice {
            write!(f, "; {advice}")?;
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
    let advice = ADVICE.iter().find(|(mark, _)| why.contains(mark)).map(|(_, advice)| *advice);
    Cause { resource: resource.name.clone(), why, advice, console: last_lines(console, LINES) }
}

/// The last lines of a console that say something.
pub fn last_lines(console: &str, most: usize) -> Vec<String> {
    let lines: Vec<&str> = console.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(most)..].iter().map(|l| (*l).to_owned()).collect()
}

const ADVICE: [(&str, &str); 6] = [
    (
        "No valid host",
        "no compute host has room for this flavor in this zone: try another flavor or zone, or ask the cloud's operators",
    ),
    ("Quota exceeded", "delete what is not needed (rast cloud inventory), or ask for a larger quota, and run up again"),
    (
        "exceeds allowed",
        "delete what is not needed (rast cloud inventory), or ask for a larger quota, and run up again",
    ),
    ("TooManyInstances", "delete servers that are not needed, or ask for a larger quota, and run up again"),
    ("No more IP addresses", "the network's range is used up: ask the cloud's operators"),
    ("Block Device Mapping is Invalid", "the state volume is not free: see rast cloud status"),
];

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
        assert!(cause.advice.unwrap().contains("larger quota"));
    }

    #[test]
    fn a_server_s_fault_and_console_come_first() {
        let server = Server { fault: "No valid host was found.".into(), ..Server::default() };
        let console: String = (0..20).map(|i| format!("line {i}\n\n")).collect();
        let cause = explain(&resource("CREATE_FAILED", "Went to status ERROR"), Some(&server), &console);
        assert_eq!((cause.console.len(), cause.console[7].as_str()), (8, "line 19"));
        assert!(cause.to_string().contains("No valid host was found.; no compute host has room"), "{cause}");
    }

    #[test]
    fn what_was_given_up_because_of_others_is_no_cause() {
        let all =
            [resource("CREATE_FAILED", "CREATE aborted (user triggered cancel)"), resource("CREATE_COMPLETE", "")];
        assert_eq!(failed(&all).count(), 0);
    }
}
