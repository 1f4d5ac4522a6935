//! The effects of `up`.

use std::{
    fmt,
    time::{Duration, Instant},
};

use api::rastos::Cluster;
use uuid::Uuid;

use super::{Aim, Step, Tried, Which, next};
use crate::{
    Error, Mark, Service, Session,
    cause::{self, Cause},
    error::optional,
    glance, heat, neutron, nova,
    plan::{self, LocalImage, Plan},
    seen::{self, Made},
};

/// How often Heat is asked how far it is.
const POLL: Duration = Duration::from_millis(1500);
/// A machine that does not stop by itself in this time is deleted while it runs.
const STOPPING: Duration = Duration::from_secs(90);
/// A deleted server, and the volume it held, are gone and free by then.
const FREEING: Duration = Duration::from_secs(300);
/// Creates whose outcome stayed open, one after the other.
const OPEN_ENDS: u32 = 3;
const CONSOLE_LINES: u32 = 60;
/// Heat gives up by itself after an hour; an engine that died never does.
const LONGEST: Duration = Duration::from_secs(70 * 60);

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What is being done now.
    Doing(String),
    /// A resource of a stack has changed its state.
    Resource {
        /// The stack.
        stack: String,
        /// The resource's name.
        name: String,
        /// `CREATE_IN_PROGRESS` …
        status: String,
    },
    /// So much of the image has been sent.
    Sent {
        /// Bytes sent.
        sent: u64,
        /// Of so many.
        total: u64,
    },
}

/// Who is told.
pub type Report = std::sync::Arc<dyn Fn(Progress) + Send + Sync>;

/// A cluster whose objects are all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Whose they are.
    pub mark: Mark,
    /// The first machine's server.
    pub server: String,
    /// The floating IP.
    pub address: String,
}

/// A stack that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its name.
    pub stack: String,
    /// What Heat had done.
    pub status: String,
    /// Why.
    pub causes: Vec<Cause>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stack {}: {}", self.stack, self.status)?;
        self.causes.iter().try_for_each(|cause| write!(f, "\n   {cause}"))
    }
}

/// Why there is no whole cluster.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The plan says that it would fail.
    #[error("nothing was changed: it would not succeed as it stands")]
    Refused(Box<Plan>),
    /// A stack failed.
    #[error("{0}")]
    Failed(Failed),
    /// The cloud failed.
    #[error(transparent)]
    Cloud(#[from] Error),
    /// This machine failed.
    #[error("keep the cluster's key")]
    Local(#[source] Local),
    /// The cloud does not come to an end.
    #[error("{what} does not end: {state} after {} s", limit.as_secs())]
    Stuck {
        /// What.
        what: String,
        /// Its last state.
        state: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A failure of this machine.
pub type Local = Box<dyn std::error::Error + Send + Sync>;

/// Makes a cluster, or makes it whole again. `enrol` gives the hash of the key that may enrol first.
pub async fn run(
    session: &Session,
    cluster: &Cluster,
    local: Option<&LocalImage>,
    enrol: &(dyn Fn(&Mark) -> Result<String, Local> + Sync),
    report: &Report,
) -> Result<Ready, UpError> {
    let fresh = Mark { name: cluster.name().to_owned(), uid: Uuid::new_v4().to_string() };
    let (mut tried, mut open_ends) = (Tried::default(), 0);
    loop {
        let seen = seen::read(session, cluster.name()).await?;
        let plan = plan::plan(cluster, local, &seen);
        if !plan.holds() {
            return Err(UpError::Refused(Box::new(plan)));
        }
        let mark = seen.mark().unwrap_or_else(|| fresh.clone());
        let key = enrol(&mark).map_err(UpError::Local)?;
        let aim = Aim { cluster, mark: &mark, choices: &plan.choices, enrol: &key };
        let step = next(&aim, &seen, tried);
        tracing::debug!(?step, "next");
        let made = |which| match which {
            Which::State => seen.state.as_ref(),
            Which::Machines => seen.machines.as_ref(),
        };
        let done = match step {
            Step::Create(which, wanted) => {
                tell(report, format!("creating stack {}", wanted.name));
                tried.note(which);
                match heat::create(session, &wanted).await {
                    // Somebody else was first: what they make is looked at like our own.
                    Err(error) if error.is_conflict() => Ok(()),
                    Err(error) => Err(error),
                    Ok(()) => wait(session, &wanted.name, report).await,
                }
            }
            Step::Update(which, wanted, gone) => {
                let before = made(which).cloned().unwrap_or_default();
                let stack = before.stack.clone();
                // Another run may have made it again by now; what is marked then would be the new one.
                if !gone.is_empty() && seen::made(session, stack.name.clone()).await?.as_ref() != Some(&before) {
                    continue;
                }
                for resource in &gone {
                    tell(report, format!("{resource} of stack {} is gone: it is made again", stack.name));
                    heat::mark_unhealthy(session, &stack, resource, "its object is gone").await?;
                }
                tell(report, format!("updating stack {}", stack.name));
                tried.note(which);
                match heat::update(session, &stack, &wanted).await {
                    Err(error) if error.is_conflict() || error.is_absent() => Ok(()),
                    Err(error) => Err(error),
                    Ok(()) => wait(session, &stack.name, report).await,
                }
            }
            Step::Wait(which) => {
                let name = made(which).map(|m| m.stack.name.clone()).unwrap_or_default();
                tell(report, format!("somebody is at work on stack {name}: waiting"));
                wait(session, &name, report).await
            }
            Step::Explain(which) => {
                let made = made(which).cloned().unwrap_or_default();
                return Err(UpError::Failed(explain(session, &made).await?));
            }
            Step::Upload(local) => {
                tell(report, format!("uploading image {} ({} MiB)", local.name(), local.bytes >> 20));
                let (report, total) = (report.clone(), local.bytes);
                glance::upload(session, &local, &mark, move |sent| report(Progress::Sent { sent, total })).await
            }
            Step::Claim(image) => glance::claim(session, &image, &mark).await,
            Step::Retire(server) => {
                tell(report, format!("making server {server} anew: its state volume stays"));
                let volume = made(Which::State).and_then(|m| m.object("state")).unwrap_or_default();
                retire(session, &server).await?;
                free(session, volume).await?;
                Ok(())
            }
            Step::Join { address, port } => {
                tell(report, "joining the floating IP to the machine".into());
                neutron::join(session, &address, &port).await
            }
            Step::Start(server) => {
                tell(report, format!("starting server {server}"));
                nova::start(session, &server).await?;
                started(session, &server).await?;
                Ok(())
            }
            Step::Done { server, address } => return Ok(Ready { mark, server, address }),
        };
        match done {
            Ok(()) => open_ends = 0,
            // It may have been done all the same: look, and decide again.
            Err(error) if error.is_uncertain() && open_ends < OPEN_ENDS => {
                tracing::info!(%error, "its outcome is open");
                open_ends += 1;
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Tried {
    fn note(&mut self, which: Which) {
        match which {
            Which::State => self.state += 1,
            Which::Machines => self.machines += 1,
        }
    }
}

fn tell(report: &Report, what: String) {
    report(Progress::Doing(what));
}

/// Waits until Heat has finished with a stack, or it has gone; tells of every resource that changes.
pub(crate) async fn wait(session: &Session, name: &str, report: &Report) -> Result<(), Error> {
    let Some(mut stack) = heat::find(session, name).await? else { return Ok(()) };
    let (mut known, begun) = (std::collections::BTreeMap::new(), Instant::now());
    loop {
        for resource in heat::resources(session, &stack).await? {
            let before = known.insert(resource.name.clone(), resource.status.clone());
            // What was so before is no news.
            let news = before.as_ref().map_or(resource.status.ends_with("_IN_PROGRESS"), |b| *b != resource.status);
            if news {
                let (name, status) = (resource.name, resource.status);
                report(Progress::Resource { stack: stack.name.clone(), name, status });
            }
        }
        if !stack.is_busy() {
            return Ok(());
        }
        if begun.elapsed() > LONGEST {
            let (what, state) = (format!("stack {name}"), stack.status);
            return Err(Error::Endless { what, state, minutes: LONGEST.as_secs() / 60 });
        }
        tokio::time::sleep(POLL).await;
        match heat::again(session, &stack).await? {
            Some(now) => stack = now,
            None => return Ok(()),
        }
    }
}

/// Finds out why a stack failed.
pub(crate) async fn explain(session: &Session, made: &Made) -> Result<Failed, Error> {
    let mut causes = Vec::new();
    for resource in cause::failed(&made.resources) {
        let is_server = resource.kind == "OS::Nova::Server" && !resource.object.is_empty();
        let server = if is_server { nova::server(session, &resource.object).await? } else { None };
        let console = match &server {
            Some(server) => nova::console(session, &server.id, CONSOLE_LINES).await.unwrap_or_default(),
            None => String::new(),
        };
        causes.push(cause::explain(resource, server.as_ref(), &console));
    }
    if causes.is_empty() {
        let reason = &made.stack.reason;
        let why = if made.stack.has_failed() { reason.clone() } else { format!("{reason}; yet it is not as wanted") };
        causes.push(Cause { resource: "stack".into(), why, advice: None, console: Vec::new() });
    }
    Ok(Failed { stack: made.stack.name.clone(), status: made.stack.status.clone(), causes })
}

/// Stops a server in an orderly way, deletes it and waits until it has gone.
async fn retire(session: &Session, id: &str) -> Result<(), UpError> {
    if let Some(server) = nova::server(session, id).await?
        && server.status == "ACTIVE"
    {
        nova::stop(session, id).await?;
        let begun = Instant::now();
        while begun.elapsed() < STOPPING && nova::server(session, id).await?.is_some_and(|s| s.status == "ACTIVE") {
            tokio::time::sleep(POLL).await;
        }
    }
    nova::delete(session, id).await?;
    let begun = Instant::now();
    while let Some(server) = nova::server(session, id).await? {
        if begun.elapsed() > FREEING {
            return Err(UpError::Stuck { what: format!("deleting server {id}"), state: server.status, limit: FREEING });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until a volume is held by nobody. Attachments of servers that are gone are taken away: Cinder keeps them
/// when Nova could not end them in an orderly way.
pub(crate) async fn free(session: &Session, id: &str) -> Result<(), UpError> {
    let begun = Instant::now();
    while let Some(volume) = nova::volume(session, id).await? {
        if volume.servers.is_empty() && (volume.status == "available" || volume.status.starts_with("error")) {
            return Ok(());
        }
        if begun.elapsed() > FREEING {
            return Err(UpError::Stuck { what: format!("freeing volume {id}"), state: volume.status, limit: FREEING });
        }
        if begun.elapsed() > FREEING / 10 {
            detach_from_the_gone(session, id).await?;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn detach_from_the_gone(session: &Session, volume: &str) -> Result<(), Error> {
    let doing = format!("list the attachments of volume {volume}");
    // Attachments are an API of their own since microversion 3.27.
    let path = format!("/attachments/detail?volume_id={volume}");
    let list = optional(session.list(Service::BlockStorage, &path, "attachments", &doing).await)?;
    for attachment in list.unwrap_or_default() {
        let server = attachment["instance"].as_str().unwrap_or_default();
        if nova::server(session, server).await?.is_none() {
            let id = attachment["id"].as_str().unwrap_or_default();
            let path = format!("/attachments/{id}");
            session.delete(Service::BlockStorage, path, &format!("end attachment {id} of volume {volume}")).await?;
        }
    }
    Ok(())
}

async fn started(session: &Session, id: &str) -> Result<(), UpError> {
    let begun = Instant::now();
    while let Some(server) = nova::server(session, id).await?.filter(|s| s.status != "ACTIVE") {
        if begun.elapsed() > FREEING || server.status == "ERROR" {
            return Err(UpError::Stuck { what: format!("starting server {id}"), state: server.status, limit: FREEING });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
