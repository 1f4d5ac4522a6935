//! Making a cluster, or making it whole again. One pure function says what is next; the effect is done, the project
//! is looked at again, until nothing is left to do. Whatever ends this at any moment, the next run goes on from what
//! it sees.

mod act;
mod free;
mod watch;

pub(crate) use act::explain;
pub use act::{Failed, Progress, Ready, Report, UpError, run};
pub(crate) use free::free;
pub(crate) use watch::wait;

use api::rastos::Cluster;

use crate::{
    Mark, Service, glance,
    heat::Wanted,
    plan::{Choices, ImageChoice, LocalImage},
    repair,
    seen::{Made, Seen, Server},
    template::{self, Birth, Machine, State},
};

/// What a run is after.
#[derive(Clone, Debug)]
pub struct Aim<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// Its marks.
    pub mark: &'a Mark,
    /// What was chosen for it.
    pub choices: &'a Choices,
    /// The hash of our key.
    pub enrol: &'a str,
}

/// What this run has done: a failure that was there before it is a reason to try, one after it a reason to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// How often it has begun to make or change the first stack.
    pub state: u32,
    /// And the second.
    pub machines: u32,
    /// How often it has made a server go.
    pub retired: u32,
    /// How often it has woken one.
    pub woken: u32,
}

impl Tried {
    fn note(&mut self, step: &Step) {
        match step {
            Step::Create(Which::State, _) | Step::Update(Which::State, ..) => self.state += 1,
            Step::Create(Which::Machines, _) | Step::Update(Which::Machines, ..) => self.machines += 1,
            Step::Retire(_) => self.retired += 1,
            Step::Wake { .. } => self.woken += 1,
            _ => {}
        }
    }
}

/// How often one run does the same to what does not fail and is yet not as wanted.
const TRIES: u32 = 3;

/// The two stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// What outlives machines.
    State,
    /// All else.
    Machines,
}

impl Which {
    /// This one of the two as it was seen; one without a name when it is not there.
    pub(crate) fn of(self, state: Option<&Made>, machines: Option<&Made>) -> Made {
        let made = match self {
            Self::State => state,
            Self::Machines => machines,
        };
        made.cloned().unwrap_or_default()
    }
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Begin to make a stack.
    Create(Which, Wanted),
    /// Mark these resources as gone and begin to make the stack as wanted.
    Update(Which, Wanted, Vec<String>),
    /// Wait until Heat has finished.
    Wait(Which),
    /// A stack failed: find out why, and stop.
    Explain(Which),
    /// Upload the image.
    Upload(LocalImage),
    /// Note on the image that this cluster uses it.
    Claim(String),
    /// Stop and delete a server, and free its volume; the stack's next update makes another.
    Retire(String),
    /// Let the floating IP lead to the machine's port.
    Join {
        /// The floating IP's id.
        address: String,
        /// The port's id.
        port: String,
    },
    /// Bring a server that rests back to work.
    Wake {
        /// Its id.
        server: String,
        /// The action that does it.
        by: &'static str,
    },
    /// A server comes to rest whenever it is woken: say so, and stop.
    Restless(String),
    /// Nothing is left.
    Done {
        /// The first machine's server.
        server: String,
        /// The floating IP.
        address: String,
    },
}

/// What is next.
pub fn next(aim: &Aim, seen: &Seen, tried: Tried) -> Step {
    let state = template::state(aim.cluster, aim.mark, &aim.choices.networks);
    if let Some(step) = stack(Which::State, seen.state.as_ref(), state, seen, tried.state) {
        return step;
    }
    let image = match &aim.choices.image {
        ImageChoice::Upload(local) => return Step::Upload(local.clone()),
        ImageChoice::Present { id, .. } => id.clone(),
        ImageChoice::Missing => String::new(),
    };
    let ours = seen.images.iter().find(|i| i.id == image && glance::is_ours(i, seen));
    if ours.is_some_and(|i| !i.tags.contains(&aim.mark.image_tag())) {
        return Step::Claim(image);
    }
    let wanted = machines(aim, seen, &image);
    if let Some(made) = seen.machines.as_ref().filter(|m| !m.is_busy() && !m.stack.is_going())
        && !is_hopeless(made, tried.machines)
        && let Some(server) = retired(aim, made, seen, tried)
    {
        return Step::Retire(server);
    }
    if let Some(step) = stack(Which::Machines, seen.machines.as_ref(), wanted, seen, tried.machines) {
        return step;
    }
    if let Some((address, port)) = seen.machines.as_ref().and_then(|made| repair::parted(made, seen)) {
        return Step::Join { address, port };
    }
    let server = living(seen);
    let id = server.map(|s| s.id.clone()).unwrap_or_default();
    match server.and_then(Server::waking) {
        Some(_) if tried.woken >= TRIES => Step::Restless(id),
        Some(by) => Step::Wake { server: id, by },
        None => Step::Done {
            server: id,
            address: seen.state.as_ref().and_then(|m| m.stack.output("address")).unwrap_or_default().to_owned(),
        },
    }
}

/// What a stack needs; `None` when it is as wanted.
fn stack(which: Which, made: Option<&Made>, wanted: Wanted, seen: &Seen, tried: u32) -> Option<Step> {
    let Some(made) = made else { return Some(Step::Create(which, wanted)) };
    if made.is_busy() {
        return Some(Step::Wait(which));
    }
    if is_hopeless(made, tried) {
        return Some(Step::Explain(which));
    }
    let gone = repair::gone(made, seen);
    match gone.is_empty() && made.stack.has_tags(&wanted.tags) && !made.has_failed() {
        true => None,
        // Heat says that all is done, and it is not: somebody removes things faster than they are made.
        false if tried >= TRIES => Some(Step::Explain(which)),
        false => Some(Step::Update(which, wanted, gone)),
    }
}

/// Whether trying once more would end as it has ended.
fn is_hopeless(made: &Made, tried: u32) -> bool {
    made.stack.has_failed() && (made.stack.is_going() || tried > 0 && !made.stack.lost_its_engine())
}

fn machines(aim: &Aim, seen: &Seen, image: &str) -> Wanted {
    let state = seen.state.as_ref().map(|m| &m.stack);
    let output = |key: &str| state.and_then(|s| s.output(key)).unwrap_or_default().to_owned();
    let birth = match living(seen) {
        Some(_) => None,
        None => Some(Birth { image: image.to_owned(), enrol: aim.enrol.to_owned() }),
    };
    let machine = Machine {
        name: template::machine_name(aim.cluster.name(), 0),
        flavor: aim.choices.flavor.as_ref().map(|f| f.id.clone()).unwrap_or_default(),
        birth,
    };
    let state = State { volume: output("volume"), address: output("address_id") };
    template::machines(aim.cluster, aim.mark, &aim.choices.networks, &state, &[machine])
}

/// The first machine's server, if it lives.
fn living(seen: &Seen) -> Option<&Server> {
    let id = seen.machines.as_ref()?.object("server_0")?;
    seen.servers.iter().find(|s| s.id == id && s.lives())
}

/// The server that must go before another takes its port and its volume: Heat would make the new one first.
fn retired(aim: &Aim, made: &Made, seen: &Seen, tried: Tried) -> Option<String> {
    if let Some(stray) = stray(aim, made, seen)
        && tried.retired < TRIES
    {
        return Some(stray);
    }
    let id = made.object("server_0")?;
    // Heat replaces whatever is in CHECK_FAILED, however well it is.
    let doomed = |name| made.resources.iter().any(|r| r.name == name && r.status == "CHECK_FAILED");
    let goes = match seen.servers.iter().find(|s| s.id == id) {
        // Deleted, it may hold port and volume all the same: some clouds keep what is deleted for a while, unlisted.
        None => seen.answers(Service::Compute) && tried.retired == 0,
        Some(_) if tried.retired >= TRIES => false,
        Some(server) => {
            let moves = template::moved(aim.cluster, made) || repair::is_cut_off(made, seen);
            !server.lives() || moves || doomed("server_0") || doomed("port_0")
        }
    };
    goes.then(|| id.to_owned())
}

/// A server of the machine's name that the stack does not know: Heat's engine died between asking for it and noting it.
/// It holds the port and perhaps the volume.
fn stray(aim: &Aim, made: &Made, seen: &Seen) -> Option<String> {
    let (name, known) = (template::machine_name(aim.cluster.name(), 0), made.object("server_0"));
    let mut servers = seen.servers.iter();
    servers.find(|s| s.uid == aim.mark.uid && s.name == name && Some(s.id.as_str()) != known).map(|s| s.id.clone())
}

#[cfg(test)]
#[path = "up/tests.rs"]
mod tests;
