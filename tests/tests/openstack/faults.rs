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

pub struct Life {
    pub project: Project,
    before: Vec<String>,
    cluster: String,
    moved: String,
}

impl Life {
    pub fn new(name: &str) -> Self {
        let project = Project::new(name);
        let image = project.guest("image.qcow2");
        let spec = crate::CLUSTER.replace("name: guest", &format!("file: {image}"));
        let cluster = project.file("cluster.yaml", &spec);
        let moved = project.file("moved.yaml", &format!("{spec}  zone: nova\n"));
        let before = project.inventory();
        Self { project, before, cluster, moved }
    }

    /// From nothing to a cluster.
    pub fn up(&self) -> Vec<&str> {
        vec!["up", "-f", &self.cluster, "--no-wait"]
    }

    /// The server is made anew elsewhere: every request that repairs something.
    fn moves(&self) -> Vec<&str> {
        vec!["up", "-f", &self.moved, "--no-wait"]
    }

    /// All is there, and nothing twice.
    pub fn is_whole(&self) {
        let added = self.added();
        assert_eq!(
            added,
            CLUSTER.map(|(kind, count)| (kind.to_owned(), count)).into(),
            "{:#?}",
            self.project.inventory()
        );
    }

    /// All is there. What Heat's engine asked for and did not live to note is there besides, until the cluster goes.
    fn is_there(&self) {
        let added = self.added();
        let lacks = CLUSTER.iter().find(|(kind, count)| added.get(*kind).is_none_or(|there| there < count));
        assert_eq!(lacks, None, "{added:?}");
    }

    /// How much of each kind has come to the project.
    fn added(&self) -> BTreeMap<String, usize> {
        let mut added: BTreeMap<String, usize> = BTreeMap::new();
        let kind = |item: &str| item.split(':').next().unwrap_or_default().to_owned();
        for item in self.project.inventory() {
            *added.entry(kind(&item)).or_default() += 1;
        }
        for item in &self.before {
            *added.entry(kind(item)).or_default() -= 1;
        }
        added.retain(|_, count| *count > 0);
        added
    }

    pub fn is_gone(&self) {
        assert_eq!(self.project.inventory(), self.before);
    }
}

pub const DOWN: [&str; 3] = ["down", "demo", "--yes"];

/// A cluster goes its way; each verb's requests meet the fault, and `ends_well` runs it.
fn passes(name: &str, fault: Fault, when: When, ends_well: fn(&Project, Fault, &[&str])) {
    let life = Life::new(name);
    let run = |args: &[&str]| {
        life.project.faults(fault, when);
        ends_well(&life.project, fault, args);
    };
    let is_whole = if fault == Fault::LosesItsEngine { Life::is_there } else { Life::is_whole };
    run(&life.up());
    is_whole(&life);
    if when == When::Once {
        run(&life.moves());
        is_whole(&life);
    }
    run(&DOWN);
    life.is_gone();
}

/// Every request that changes something meets the fault once; the verb still ends well, in one run.
fn in_one_run(project: &Project, _: Fault, args: &[&str]) {
    let output = project.meets(args).expect("nobody kills it");
    let met = project.met();
    assert!(output.status.success() && met > 0, "{args:?} met {met}: {}", text(&output.stderr));
}

/// The client dies at every request that changes something; the next run goes on from there.
fn killed(project: &Project, _: Fault, args: &[&str]) {
    let ended = (0..MOST).find_map(|_| project.meets(args)).expect("it comes to an end");
    let met = project.met();
    assert!(ended.status.success() && met > 0, "{args:?} met {met}: {}", text(&ended.stderr));
}

/// After its first change each run meets nothing but the fault: it says the cause, and the next goes on from there.
fn step_by_step(project: &Project, fault: Fault, args: &[&str]) {
    let says = match fault {
        Fault::Says(status) => format!("injected ({status}) [req-injected]"),
        _ => "no answer from 127.0.0.1:".to_owned(),
    };
    let runs = (0..MOST).map(|_| project.meets(args).expect("nobody kills it"));
    let failed = runs.take_while(|output| !output.status.success()).map(|output| text(&output.stderr));
    let failed = failed.inspect(|said| assert!(said.contains(&says), "{args:?}: {said}")).count();
    assert!(failed > 0 && failed < MOST, "{args:?} failed {failed} times");
}

/// A test for each fault; the literal names its project.
macro_rules! each {
    ($series:ident, $when:expr, $ends:ident: $($(#[$note:meta])* $test:ident, $name:literal, $fault:expr;)+) => {
        mod $series {
            use super::*;

            $($(#[$note])* #[test]
            fn $test() {
                passes($name, $fault, $when, $ends);
            })+
        }
    };
}

each! { each_request_once, When::Once, in_one_run:
    is_answered_by_500, "says500", Fault::Says(500);
    is_answered_by_503, "says503", Fault::Says(503);
    is_in_conflict, "says409", Fault::Says(409);
    comes_too_often, "says429", Fault::Says(429);
    has_an_expired_token, "says401", Fault::Says(401);
    times_out_when_it_is_done, "timesout", Fault::TimesOut;
    is_never_answered, "silent", Fault::Silent;
    loses_its_connection_before, "before", Fault::DropsBefore;
    loses_its_connection_after, "after", Fault::DropsAfter;
    finds_nobody_listening, "gone", Fault::Gone;
    /// Disturbs whoever else works with the cloud.
    finds_its_service_started_anew, "restarts", Fault::Restarts;
    /// So does this.
    loses_its_engine, "engine", Fault::LosesItsEngine;
    is_answered_by_a_later_version, "grows", Fault::Grows;
}

each! { each_request_kills_the_client, When::Once, killed:
    before_it_is_heard, "kill0", Fault::KilledBefore;
    after_it_is_done, "kill1", Fault::KilledAfter;
}

each! { each_request_but_the_first, When::Lasting, step_by_step:
    is_answered_by_500, "last500", Fault::Says(500);
    is_in_conflict, "last409", Fault::Says(409);
    comes_too_often, "last429", Fault::Says(429);
    has_an_expired_token, "last401", Fault::Says(401);
    loses_its_connection_before, "lastbefore", Fault::DropsBefore;
    finds_nobody_listening, "lastgone", Fault::Gone;
}
