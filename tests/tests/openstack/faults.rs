//! Faults at every request that changes something, of a cluster's way from nothing, through a move, to nothing.

use std::collections::BTreeMap;

use tests::cloud::{Fault, Project, When};

use crate::text;

/// More runs than this to a cluster's end is a loop.
const MOST: usize = 60;

/// What a cluster adds to a project.
const CLUSTER: [(&str, usize); 11] = [
    ("floating IP", 1),
    ("image", 1),
    ("network", 1),
    ("port", 3),
    ("router", 1),
    ("security group", 1),
    ("server", 1),
    ("stack", 2),
    ("subnet", 1),
    // Heat acts on by them.
    ("trust", 2),
    ("volume", 1),
];

struct Life {
    project: Project,
    before: Vec<String>,
    cluster: String,
    moved: String,
}

impl Life {
    fn new(name: &str) -> Self {
        let project = Project::new(name);
        let image = project.guest("image.qcow2");
        let spec = crate::CLUSTER.replace("name: guest", &format!("file: {image}"));
        let cluster = project.file("cluster.yaml", &spec);
        let moved = project.file("moved.yaml", &format!("{spec}  zone: nova\n"));
        let before = project.inventory();
        Self { project, before, cluster, moved }
    }

    /// From nothing to a cluster.
    fn up(&self) -> Vec<&str> {
        vec!["up", "-f", &self.cluster, "--no-wait"]
    }

    /// The server is made anew elsewhere: every request that repairs something.
    fn moves(&self) -> Vec<&str> {
        vec!["up", "-f", &self.moved, "--no-wait"]
    }

    /// Nothing is there twice.
    fn is_whole(&self) {
        let mut added: BTreeMap<String, usize> = BTreeMap::new();
        let after = self.project.inventory();
        for item in &after {
            let kind = item.split(':').next().unwrap_or_default();
            *added.entry(kind.to_owned()).or_default() += 1;
        }
        for item in &self.before {
            let kind = item.split(':').next().unwrap_or_default();
            *added.entry(kind.to_owned()).or_default() -= 1;
        }
        added.retain(|_, count| *count > 0);
        let whole = CLUSTER.map(|(kind, count)| (kind.to_owned(), count));
        assert_eq!(added, BTreeMap::from(whole), "{after:#?}");
    }

    fn is_gone(&self) {
        assert_eq!(self.project.inventory(), self.before);
    }
}

const DOWN: [&str; 3] = ["down", "demo", "--yes"];

/// Every request that changes something meets the fault once; each verb still ends well, in one run.
fn once(name: &str, fault: Fault) {
    let life = Life::new(name);
    let ends_well = |args: &[&str]| {
        life.project.faults(fault, When::Once);
        let output = life.project.meets(args).expect("nobody kills it");
        let met = life.project.met();
        assert!(output.status.success(), "{args:?} met {met}: {}", text(&output.stderr));
        assert!(met > 0, "{args:?} met nothing");
    };
    ends_well(&life.up());
    life.is_whole();
    ends_well(&life.moves());
    life.is_whole();
    ends_well(&DOWN);
    life.is_gone();
}

/// The client dies at every request that changes something; the next run goes on from there.
fn killed(name: &str, fault: Fault) {
    let life = Life::new(name);
    let ends_well = |args: &[&str]| {
        life.project.faults(fault, When::Once);
        let runs = (0..MOST).find_map(|_| life.project.meets(args));
        let met = life.project.met();
        let ended = runs.expect("it comes to an end");
        assert!(ended.status.success() && met > 0, "{args:?} met {met}: {}", text(&ended.stderr));
    };
    ends_well(&life.up());
    life.is_whole();
    ends_well(&life.moves());
    life.is_whole();
    ends_well(&DOWN);
    life.is_gone();
}

/// After its first change each run meets nothing but the fault: it says the cause, and the next goes on from there.
fn lasting(name: &str, fault: Fault, says: &str) {
    let life = Life::new(name);
    let ends_well = |args: &[&str]| {
        life.project.faults(fault, When::Lasting);
        let mut failed = 0;
        let ended = (0..MOST).find_map(|_| {
            let output = life.project.meets(args).expect("nobody kills it");
            if output.status.success() {
                return Some(());
            }
            failed += 1;
            let said = text(&output.stderr);
            assert!(said.contains(says), "{args:?}: {said}");
            None
        });
        assert!(ended.is_some() && failed > 0, "{args:?} failed {failed} times");
        life.project.met();
    };
    ends_well(&life.up());
    life.is_whole();
    ends_well(&DOWN);
    life.is_gone();
}

mod each_request_once {
    use super::{Fault, once};

    #[test]
    fn is_answered_by_500() {
        once("says500", Fault::Says(500));
    }

    #[test]
    fn is_answered_by_503() {
        once("says503", Fault::Says(503));
    }

    #[test]
    fn is_in_conflict() {
        once("says409", Fault::Says(409));
    }

    #[test]
    fn comes_too_often() {
        once("says429", Fault::Says(429));
    }

    #[test]
    fn has_an_expired_token() {
        once("says401", Fault::Says(401));
    }

    #[test]
    fn times_out_when_it_is_done() {
        once("timesout", Fault::TimesOut);
    }

    #[test]
    fn is_never_answered() {
        once("silent", Fault::Silent);
    }

    #[test]
    fn loses_its_connection_before() {
        once("before", Fault::DropsBefore);
    }

    #[test]
    fn loses_its_connection_after() {
        once("after", Fault::DropsAfter);
    }

    #[test]
    fn finds_nobody_listening() {
        once("gone", Fault::Gone);
    }

    /// Disturbs whoever else works with the cloud.
    #[test]
    fn finds_its_service_started_anew() {
        once("restarts", Fault::Restarts);
    }

    #[test]
    fn is_answered_by_a_later_version() {
        once("grows", Fault::Grows);
    }
}

mod each_request_kills_the_client {
    use super::{Fault, killed};

    #[test]
    fn before_it_is_heard() {
        killed("kill0", Fault::KilledBefore);
    }

    #[test]
    fn after_it_is_done() {
        killed("kill1", Fault::KilledAfter);
    }
}

mod each_request_but_the_first {
    use super::{Fault, lasting};

    #[test]
    fn is_answered_by_500() {
        lasting("last500", Fault::Says(500), "injected (500) [req-injected]");
    }

    #[test]
    fn is_in_conflict() {
        lasting("last409", Fault::Says(409), "injected (409) [req-injected]");
    }

    #[test]
    fn comes_too_often() {
        lasting("last429", Fault::Says(429), "injected (429) [req-injected]");
    }

    #[test]
    fn has_an_expired_token() {
        lasting("last401", Fault::Says(401), "injected (401) [req-injected]");
    }

    #[test]
    fn loses_its_connection_before() {
        lasting("lastbefore", Fault::DropsBefore, "no answer from 127.0.0.1:");
    }

    #[test]
    fn finds_nobody_listening() {
        lasting("lastgone", Fault::Gone, "no answer from 127.0.0.1:");
    }
}
