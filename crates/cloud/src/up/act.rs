//! The effects of `up`.

use std::{
    fmt,
    time::{Duration, Instant},
};

use api::rastos::Cluster;
use uuid::Uuid;

use super::{
    Aim, Step, Tried, Which,
    free::{free, retire},
    next,
    watch::wait,
};
use crate::{
    Error, Mark, Session,
    cause::{self, Cause},
    glance, heat, neutron, nova,
    patience::Patience,
    plan::{self, LocalImage, Plan},
    rights::{self, Right},
    seen::{self, Made, Seen},
};

/// How often the cloud is asked how far it is.
const POLL: Duration = Duration::from_millis(1500);
/// A server that is started runs by then.
const STARTING: Duration = Duration::from_secs(300);
const CONSOLE_LINES: u32 = 60;

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
    /// The state volume.
    pub volume: Option<String>,
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
    let (mut tried, mut patience) = (Tried::default(), Patience::default());
    let (mut begun, mut denied) = (false, None);
    loop {
        let mut seen = seen::read(session, cluster.name()).await?;
        seen.denied = match &denied {
            Some(known) => Vec::clone(known),
            None => denied.insert(rights::denied(session, &seen).await?).clone(),
        };
        let plan = plan::plan(cluster, local, &seen);
        if !plan.holds() {
            return Err(refused(plan, &seen, begun));
        }
        let mark = seen.mark().unwrap_or_else(|| fresh.clone());
        let key = enrol(&mark).map_err(UpError::Local)?;
        let aim = Aim { cluster, mark: &mark, choices: &plan.choices, enrol: &key };
        let step = next(&aim, &seen, tried);
        tracing::debug!(?step, "next");
        if let Step::Done { server, address } = step {
            return Ok(Ready { mark, server, address, volume: seen.state_volume() });
        }
        begun = true;
        tried.note(&step);
        let effects = Effects { session, report, mark: &mark, seen: &seen };
        patience.bear(effects.of(step).await).await?;
    }
}

/// Why a plan does not hold. Once something was begun, it is no longer true that nothing was changed.
fn refused(plan: Plan, seen: &Seen, begun: bool) -> UpError {
    if !begun {
        return UpError::Refused(Box::new(plan));
    }
    if let Some((service, why)) = seen.lacking.first() {
        return Error::Lost { service: *service, why: why.clone() }.into();
    }
    let stops =
        plan.problems.iter().filter(|p| p.stops).map(|p| Cause::of("plan", format!("{}; {}", p.what, p.advice)));
    let stack = [&seen.machines, &seen.state].into_iter().flatten().next();
    let name = stack.map(|m| m.stack.name.clone()).unwrap_or_default();
    UpError::Failed(Failed { stack: name, status: "cannot go on".into(), causes: stops.collect() })
}

/// What steps are done with.
struct Effects<'a> {
    session: &'a Session,
    report: &'a Report,
    mark: &'a Mark,
    seen: &'a Seen,
}

impl Effects<'_> {
    async fn of(&self, step: Step) -> Result<(), UpError> {
        let (session, report) = (self.session, self.report);
        match step {
            Step::Create(_, wanted) => {
                self.tell(format!("creating stack {}", wanted.name));
                let made = heat::create(session, &wanted).await;
                made.map_err(|error| self.without_trust(error))?;
                wait(session, &wanted.name, report).await?;
            }
            Step::Update(which, wanted, gone) => {
                let before = self.made(which);
                // Another run may have made it again by now; what is marked then would be the new one.
                let name = &before.stack.name;
                if !gone.is_empty() && seen::made(session, name.clone()).await?.as_ref() != Some(&before) {
                    return Err(Error::Moving { what: format!("stack {name}") }.into());
                }
                for resource in &gone {
                    self.tell(format!("{resource} of stack {name} is gone: it is made again"));
                    heat::mark_unhealthy(session, &before.stack, resource, "its object is gone").await?;
                }
                self.tell(format!("updating stack {name}"));
                heat::update(session, &before.stack, &wanted).await?;
                wait(session, name, report).await?;
            }
            Step::Wait(which) => {
                let name = self.made(which).stack.name;
                self.tell(format!("somebody is at work on stack {name}: waiting"));
                wait(session, &name, report).await?;
            }
            Step::Explain(which) => return Err(UpError::Failed(explain(session, &self.made(which)).await)),
            Step::Upload(local) => {
                self.tell(format!("uploading image {} ({} MiB)", local.name(), local.bytes >> 20));
                let (report, total) = (report.clone(), local.bytes);
                glance::upload(session, &local, self.mark, move |sent| report(Progress::Sent { sent, total })).await?;
            }
            Step::Claim(image) => glance::claim(session, &image, self.mark).await?,
            Step::Retire(server) => {
                self.tell(format!("making server {server} anew: its state volume stays"));
                retire(session, &server).await?;
                let state = self.made(Which::State);
                free(session, state.object("state").unwrap_or_default(), &self.mark.uid).await?;
            }
            Step::Join { address, port } => {
                self.tell("joining the floating IP to the machine".into());
                neutron::join(session, &address, &port).await?;
            }
            Step::Wake { server, by } => {
                self.tell(format!("waking server {server} ({by})"));
                wake(session, &server, by).await?;
            }
            Step::Restless(server) => {
                return Err(UpError::Failed(restless(session, &server, self.made(Which::Machines).stack.name).await?));
            }
            Step::Done { .. } => {}
        }
        Ok(())
    }

    /// Heat does not say that it wanted a trust and was given none.
    fn without_trust(&self, mut error: Error) -> Error {
        if let Error::Refused(refusal) = &mut error
            && self.seen.denied.contains(&Right::Trust)
        {
            let advice = rights::advice(self.seen.credential);
            refusal.message += &format!("; perhaps because this application credential can make no trusts: {advice}");
        }
        error
    }

    fn made(&self, which: Which) -> Made {
        which.of(self.seen.state.as_ref(), self.seen.machines.as_ref())
    }

    fn tell(&self, what: String) {
        (self.report)(Progress::Doing(what));
    }
}

/// Finds out why a stack failed. What Nova does not tell, Heat's own words have to do for.
pub(crate) async fn explain(session: &Session, made: &Made) -> Failed {
    let mut causes = Vec::new();
    for resource in cause::failed(&made.resources) {
        let is_server = resource.kind == "OS::Nova::Server" && !resource.object.is_empty();
        let server = if is_server { nova::server(session, &resource.object).await.ok().flatten() } else { None };
        let console = match &server {
            Some(server) => nova::console(session, &server.id, CONSOLE_LINES).await.unwrap_or_default(),
            None => String::new(),
        };
        causes.push(cause::explain(resource, server.as_ref(), &console));
    }
    if causes.is_empty() {
        let reason = &made.stack.reason;
        let why = if made.stack.has_failed() { reason.clone() } else { format!("{reason}; yet it is not as wanted") };
        causes.push(Cause::of("stack", why));
    }
    Failed { stack: made.stack.name.clone(), status: made.stack.status.clone(), causes }
}

async fn wake(session: &Session, id: &str, by: &str) -> Result<(), UpError> {
    let (begun, mut taken) = (Instant::now(), false);
    while let Some(server) = nova::server(session, id).await?.filter(|s| s.status != "ACTIVE") {
        if begun.elapsed() > STARTING || server.status == "ERROR" {
            return Err(UpError::Stuck {
                what: format!("starting server {id}"),
                state: server.status,
                limit: STARTING,
            });
        }
        taken = taken || nova::wake(session, id, by).await?;
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// What is to be said of a server that comes to rest whenever it is woken.
async fn restless(session: &Session, id: &str, stack: String) -> Result<Failed, Error> {
    let console = nova::console(session, id, CONSOLE_LINES).await.unwrap_or_default();
    let why = "it was woken and stopped again, several times".to_owned();
    let cause = Cause { console: cause::last_lines(&console, cause::LINES), ..Cause::of(format!("server {id}"), why) };
    let status = nova::server(session, id).await?.map(|s| s.status).unwrap_or_default();
    Ok(Failed { stack, status, causes: vec![cause] })
}
