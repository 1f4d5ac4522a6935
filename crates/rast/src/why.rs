//! Why an object is not as it should be: one causal chain in plain words, from what was asked to what stops it.
//!
//! [`pod::explain`], [`workload::explain`] and [`cloud::explain`] are pure; the verb gathers what they look at.

pub mod cloud;
pub mod container;
pub mod pod;
pub mod workload;

#[cfg(test)]
mod tests;

use std::fmt;

/// What stops an object. Each is one that a test names, with the words it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// Nothing does.
    Fine,
    /// It did all it had to.
    Done,
    /// It is on its way and nothing is wrong.
    OnItsWay,
    /// It is wanted to have no pods, or is paused.
    Held,
    /// No node has what it asks for.
    NoRoom,
    /// No node is one it may run on.
    NoNode,
    /// The port of the host is taken.
    PortTaken,
    /// The node does not answer.
    NodeDown,
    /// The API, or a service of the cloud, does not answer.
    Silent,
    /// No compute host of the cloud has room.
    NoHost,
    /// The project's quota is used up.
    Quota,
    /// The cloud could not make a part.
    Refused,
    /// A part was deleted behind rastOS's back.
    Lost,
    /// The server is stopped, or in a state that Nova calls an error.
    ServerDown,
    /// A part is there and not joined to the others.
    Apart,
    /// The image's name is not one.
    ImageName,
    /// The registry does not have the image.
    ImageNotFound,
    /// The registry does not give the image to us.
    ImageDenied,
    /// The registry does not answer.
    RegistryDown,
    /// The image is not here and must not be pulled.
    ImageNeverPulled,
    /// A ConfigMap or Secret is missing.
    MissingSource,
    /// A key of a ConfigMap or Secret is missing.
    MissingKey,
    /// A volume could not be mounted.
    Volume,
    /// The image runs as root and must not.
    RunsAsRoot,
    /// The program could not be started.
    NotStarted,
    /// The program ended.
    Crash,
    /// The kernel killed it for its memory.
    Memory,
    /// A liveness or startup probe ended it.
    Killed,
    /// Its readiness probe fails.
    NotReady,
    /// A lifecycle hook failed.
    Hook,
    /// It used more storage than it may.
    Evicted,
    /// It ran longer than it may.
    Deadline,
    /// It is being deleted and something holds it.
    Leaving,
    /// The namespace's rules forbid its pods.
    Forbidden,
    /// Its service account does not exist.
    NoAccount,
    /// It does not exist.
    Absent,
}

/// A causal chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What is at its end.
    pub cause: Cause,
    /// From what was asked to what stops it, each because of the next.
    pub links: Vec<String>,
    /// Words of others: a registry's answer, last log lines, a probe's output.
    pub quote: Vec<String>,
    /// What to do about it; empty when nothing is to be done.
    pub advice: String,
}

impl Chain {
    /// A chain of one link.
    pub fn new(cause: Cause, link: impl Into<String>) -> Self {
        Self { cause, links: vec![link.into()], quote: Vec::new(), advice: String::new() }
    }

    /// With words of others.
    pub fn quoting(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.quote.extend(lines.into_iter().filter(|line| !line.is_empty()));
        self
    }

    /// With what to do.
    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// Goes on: what it ends with is so because of another.
    pub fn because(mut self, further: Self) -> Self {
        self.links.extend(further.links);
        Self { links: self.links, ..further }
    }

    /// As the reason of `link`.
    pub fn because_of(mut self, link: impl Into<String>) -> Self {
        self.links.insert(0, link.into());
        self
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, link) in self.links.iter().enumerate() {
            let because = if depth == 0 { "" } else { "because " };
            writeln!(f, "{:1$}{because}{link}", "", depth * 2)?;
        }
        let depth = self.links.len() * 2;
        for line in &self.quote {
            writeln!(f, "{:depth$}| {line}", "")?;
        }
        if !self.advice.is_empty() {
            writeln!(f, "to do: {}", self.advice)?;
        }
        Ok(())
    }
}
