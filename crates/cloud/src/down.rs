//! Taking a cluster away, completely, from its name alone. What carries the cluster's marks goes; nothing else does.
//! The first stack, in which the cluster's file stands, goes last: until then every run can go on from it.

use std::time::{Duration, Instant};

use crate::{
    Error, Inventory, Mark, Service, Session, cause, glance, heat, inventory, neutron,
    patience::Patience,
    seen::{self, Made},
    up::{Progress, Report, UpError, Which, explain, free, wait},
};

/// What is left of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Left {
    /// The stack that outlives machines.
    pub state: Option<Made>,
    /// The stack of all else.
    pub machines: Option<Made>,
    /// What the project holds.
    pub inventory: Inventory,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete a stack, or wait until it has gone.
    Delete(Which),
    /// It cannot be deleted: say why, and stop.
    Explain(Which),
    /// Delete an object that lies outside the stacks.
    Remove {
        /// What it is, as the inventory names it.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// Take these clusters' claims on images back.
    Release(Mark),
    /// Something may be left that cannot be seen: say so, and stop, while there is a journal to go on from.
    Unseen,
    /// Nothing is left.
    Done,
}

/// How often this run has begun to delete each stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    machines: u32,
    state: u32,
}

/// Dependencies that a delete meets once (a port still in use) are gone the second time.
const TRIES: u32 = 3;
/// An object whose deletion was accepted has gone by then.
const REMOVING: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_secs(2);

/// Kinds that are removed one by one when they lie outside the stacks, in this order: what uses another goes first.
const REMOVABLE: [(&str, Service, &str); 10] = [
    ("load balancer", Service::LoadBalancer, "/lbaas/loadbalancers/ID?cascade=true"),
    ("server", Service::Compute, "/servers/ID"),
    ("floating IP", Service::Network, "/floatingips/ID"),
    ("port", Service::Network, "/ports/ID"),
    ("router", Service::Network, "/routers/ID"),
    ("subnet", Service::Network, "/subnets/ID"),
    ("network", Service::Network, "/networks/ID"),
    ("security group", Service::Network, "/security-groups/ID"),
    ("volume snapshot", Service::BlockStorage, "/snapshots/ID"),
    ("volume", Service::BlockStorage, "/volumes/ID"),
];

impl Left {
    /// The kinds of which something may be left that could not be seen. A service that the cloud lacks, or that we may
    /// not use, holds nothing of ours.
    pub fn unseen(&self, name: &str) -> Option<Error> {
        let ours = |kind: &str| kind == "image" || REMOVABLE.iter().any(|(k, _, _)| *k == kind);
        let unlisted: Vec<_> =
            self.inventory.unlisted.iter().filter(|u| !u.lacking && !u.denied && ours(u.kind)).cloned().collect();
        (!unlisted.is_empty()).then(|| Error::Unseen { name: name.to_owned(), unlisted })
    }

    fn made(&self, which: Which) -> Made {
        which.of(self.state.as_ref(), self.machines.as_ref())
    }
}

/// What is next.
pub fn next(name: &str, left: &Left, keep_state: bool, tries: Tries) -> Step {
    let ours = |made: &&Made| made.stack.mark().is_some_and(|m| m.name == name);
    if let Some(made) = left.machines.as_ref().filter(ours) {
        return delete(Which::Machines, made, tries.machines);
    }
    let state = left.state.as_ref().filter(ours);
    // With the stack there, its uid says which objects are meant; without it, all that bear the name are left-overs.
    let uid = state.and_then(|m| m.stack.mark()).map(|m| m.uid);
    let meant = |item: &&inventory::Item| match &uid {
        Some(uid) => item.uids.contains(uid),
        None => !item.uids.is_empty() && item.clusters.iter().any(|c| c == name),
    };
    let held = |id: &str| state.is_some_and(|m| m.resources.iter().any(|r| r.object == id));
    // State that is kept is kept wherever it lies.
    for (kind, _, _) in REMOVABLE.into_iter().filter(|(kind, _, _)| !keep_state || !kind.starts_with("volume")) {
        let orphan =
            left.inventory.items.iter().filter(meant).find(|i| i.kind == kind && !held(&i.id) && !is_clouds(i));
        if let Some(item) = orphan {
            return Step::Remove { kind, id: item.id.clone() };
        }
    }
    if left.unseen(name).is_some() {
        return Step::Unseen;
    }
    if keep_state && state.is_some() {
        return Step::Done;
    }
    let claimed = left.inventory.items.iter().filter(meant).find(|i| i.kind == "image");
    if let Some(image) = claimed {
        // A shared image names several clusters: the uid must be the one that stands with this name.
        let claim = image.clusters.iter().zip(&image.uids).find(|(cluster, _)| *cluster == name);
        let uid = uid.clone().or_else(|| claim.map(|(_, uid)| uid.clone())).unwrap_or_default();
        return Step::Release(Mark { name: name.to_owned(), uid });
    }
    match state {
        Some(made) => delete(Which::State, made, tries.state),
        None => Step::Done,
    }
}

fn delete(which: Which, made: &Made, tries: u32) -> Step {
    match made.stack.status == "DELETE_FAILED" && tries >= TRIES {
        true => Step::Explain(which),
        false => Step::Delete(which),
    }
}

/// Ports that the cloud makes and takes away itself.
fn is_clouds(item: &inventory::Item) -> bool {
    item.kind == "port" && item.name.starts_with("network:")
}

/// Looks at what is left.
pub async fn look(session: &Session, name: &str) -> Result<Left, Error> {
    let stacks =
        futures::future::try_join(seen::made(session, Mark::state_stack(name)), seen::made(session, Mark::stack(name)));
    let ((state, machines), inventory) = futures::future::try_join(stacks, inventory::read(session)).await?;
    Ok(Left { state, machines, inventory })
}

/// Takes a cluster away.
pub async fn run(session: &Session, name: &str, keep_state: bool, report: &Report) -> Result<(), UpError> {
    let (mut tries, mut patience) = (Tries::default(), Patience::default());
    let mut removed: Option<(Step, Instant)> = None;
    let mut uid: Option<String> = None;
    loop {
        let mut left = look(session, name).await?;
        let marks = [&left.state, &left.machines].into_iter().flatten().filter_map(|made| made.stack.mark());
        uid = uid.or(marks.filter(|m| m.name == name).map(|m| m.uid).next());
        if let Some(uid) = &uid {
            // Names come back: when the stacks have gone, it is still this cluster that is meant.
            left.inventory.items.retain(|item| item.uids.contains(uid));
        }
        let step = next(name, &left, keep_state, tries);
        match &step {
            Step::Done => return Ok(()),
            Step::Delete(which) => tries.note(*which, &left),
            Step::Remove { kind, id } => match removed.as_ref().filter(|(before, _)| *before == step) {
                None => {}
                Some((_, begun)) if begun.elapsed() > REMOVING => {
                    let (what, state) = (format!("deleting {kind} {id}"), "still listed".to_owned());
                    return Err(UpError::Stuck { what, state, limit: REMOVING });
                }
                // It was accepted and takes its time.
                Some(_) => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
            },
            _ => {}
        }
        let result = effect(session, name, &step, &left, report).await;
        if result.is_ok() {
            removed = matches!(step, Step::Remove { .. }).then(|| (step, Instant::now()));
        }
        patience.bear(result).await?;
    }
}

impl Tries {
    fn note(&mut self, which: Which, left: &Left) {
        let waits = left.made(which).stack.status == "DELETE_IN_PROGRESS";
        match which {
            Which::State => self.state += u32::from(!waits),
            Which::Machines => self.machines += u32::from(!waits),
        }
    }
}

async fn effect(session: &Session, name: &str, step: &Step, left: &Left, report: &Report) -> Result<(), UpError> {
    match step {
        Step::Delete(which) => {
            let made = left.made(*which);
            if *which == Which::State
                && let Some((volume, mark)) = made.object("state").zip(made.stack.mark())
            {
                free(session, volume, &mark.uid).await?;
            }
            if made.stack.status != "DELETE_IN_PROGRESS" {
                let in_vain = |_: &&heat::Resource| made.stack.is_going() && made.stack.has_failed();
                let again = match cause::failed(&made.resources).next().filter(in_vain) {
                    Some(resource) => format!(" again: {}", cause::explain(resource, None, "")),
                    None => String::new(),
                };
                report(Progress::Doing(format!("deleting stack {}{again}", made.stack.name)));
                heat::delete(session, &made.stack).await?;
            }
            wait(session, &made.stack.name, report).await?;
        }
        Step::Explain(which) => return Err(UpError::Failed(explain(session, &left.made(*which)).await)),
        Step::Remove { kind, id } => {
            report(Progress::Doing(format!("deleting {kind} {id}")));
            remove(session, kind, id).await?;
        }
        Step::Release(mark) => {
            report(Progress::Doing("releasing the image".into()));
            glance::release(session, mark).await?;
        }
        Step::Unseen => left.unseen(name).map_or(Ok(()), Err)?,
        Step::Done => {}
    }
    Ok(())
}

async fn remove(session: &Session, kind: &str, id: &str) -> Result<(), Error> {
    if kind == "router" {
        neutron::withdraw(session, id).await?;
    }
    let Some((_, service, path)) = REMOVABLE.iter().find(|(k, _, _)| *k == kind) else { return Ok(()) };
    session.delete(*service, path.replace("ID", id), &format!("delete {kind} {id}")).await
}

#[cfg(test)]
#[path = "down/tests.rs"]
mod tests;
