//! Why a cluster's API does not answer: from its server and stacks to what Nova, Heat and the console say.

use ::cloud::{
    Account, Known, Mark, Service, last_lines,
    seen::{Made, Server},
    template::machine_name,
    up::Failed,
};

use super::{Cause, Chain};

/// How many of the console's last lines are shown.
const LINES: usize = 8;
/// What a machine's console says last when something is wrong.
const TROUBLE: [&str; 2] = ["rastos: last error: ", "rastos: configuration: "];

/// What is known of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Its name.
    pub name: String,
    /// What the cloud says.
    pub account: Account,
    /// What its API says.
    pub api: Api,
}

/// What a cluster's API says.
#[derive(Clone, Debug, Default)]
pub enum Api {
    /// Nobody can ask: there is no kubeconfig here.
    #[default]
    Unasked,
    /// Nothing, and why.
    Silent(String),
    /// It answers.
    Answers {
        /// Whether the cluster's spec was changed there and is still to be made.
        awaits_up: bool,
    },
}

/// The chain of a cluster.
pub fn explain(evidence: &Evidence) -> Chain {
    let name = &evidence.name;
    let (seen, head) = (&evidence.account.seen, format!("cluster/{name} is not whole"));
    let unknown = |chain: Chain| chain.because_of(format!("cluster/{name} is not known to be whole"));
    if let Some(chain) = silent(evidence, &[Service::Orchestration]) {
        return unknown(chain);
    }
    if seen.state.is_none() && seen.machines.is_none() {
        return Chain::new(Cause::Absent, format!("cluster/{name}: this project holds no such cluster"))
            .advise("make it: `rast cloud up -f FILE`; or name the cloud that holds it: --os-cloud");
    }
    if let Some(chain) = stacks(evidence).or_else(|| parts(evidence)) {
        return chain.because_of(head);
    }
    if let Some(chain) = silent(evidence, &[Service::Compute, Service::BlockStorage, Service::Network]) {
        return unknown(chain);
    }
    match &evidence.api {
        Api::Silent(why) => machine(evidence, why).because_of(format!("cluster/{name} does not answer")),
        Api::Answers { awaits_up: true } => {
            Chain::new(Cause::Held, "its spec was changed in the API and is not made yet")
                .advise(format!("`rast cloud up {name}`"))
                .because_of(format!("cluster/{name} is not as it is wanted"))
        }
        Api::Answers { awaits_up: false } => {
            Chain::new(Cause::Fine, format!("cluster/{name} is whole in the cloud, and its API answers"))
        }
        Api::Unasked => Chain::new(Cause::Fine, format!("cluster/{name} is whole in the cloud"))
            .advise(format!("`rast cloud kubeconfig {name}` to ask its API too")),
    }
}

/// A service that did not say what there is: what it holds may be well or gone, and neither is claimed.
fn silent(evidence: &Evidence, services: &[Service]) -> Option<Chain> {
    let seen = &evidence.account.seen;
    let (service, why) = services.iter().find_map(|service| Some((service, seen.silence(*service)?)))?;
    Some(
        Chain::new(Cause::Silent, format!("the cloud's {service} does not answer: {why}"))
            .advise("ask again when it answers, or ask the cloud's operators"),
    )
}

/// What Heat is at, or what it could not do.
fn stacks(evidence: &Evidence) -> Option<Chain> {
    let name = &evidence.name;
    for made in [&evidence.account.seen.state, &evidence.account.seen.machines].into_iter().flatten() {
        let stack = &made.stack;
        let link = format!("stack {}: {}", stack.name, stack.status);
        if stack.is_going() && !stack.has_failed() {
            return Some(
                Chain::new(Cause::Leaving, link).advise(format!("`rast cloud down {name}` waits for its end")),
            );
        }
        if stack.is_busy() {
            return Some(Chain::new(Cause::OnItsWay, link).advise(format!("`rast cloud up {name}` joins and waits")));
        }
        if let Some(failed) = evidence.account.failed.iter().find(|failed| failed.stack == stack.name) {
            return Some(failure(name, failed, stack.is_going()).because_of(link));
        }
    }
    None
}

/// The first cause of a failed stack, in plain words before the service's own.
fn failure(name: &str, failed: &Failed, going: bool) -> Chain {
    let (verb, done) = if going { ("down", "removed") } else { ("up", "made") };
    let again = format!("`rast cloud {verb} {name}` tries again");
    let Some(first) = failed.causes.first() else {
        return Chain::new(Cause::Refused, "Heat does not say why").advise(again);
    };
    let (cause, words) = Known::by(&first.why).map_or((Cause::Refused, "the cloud refused it"), plain);
    let advice = Known::by(&first.why).map_or_else(|| again.clone(), |k| format!("{}; then {again}", k.advice()));
    Chain::new(cause, words)
        .quoting([first.why.clone()])
        .quoting(first.console.iter().map(|line| format!("console: {line}")))
        .advise(advice)
        .because_of(format!("{} could not be {done}", first.resource))
}

/// A failure that is known, in plain words.
fn plain(known: Known) -> (Cause, &'static str) {
    let cause = match known {
        Known::NoHost => Cause::NoHost,
        Known::Quota => Cause::Quota,
        Known::NoAddress => Cause::NoRoom,
        Known::VolumeTaken | Known::NetworkTaken => Cause::Refused,
    };
    (cause, known.words())
}

/// A part that is gone, stopped or apart from the others, though Heat does not know it. Whose service does not answer
/// is not looked at.
fn parts(evidence: &Evidence) -> Option<Chain> {
    let (name, seen) = (&evidence.name, &evidence.account.seen);
    let up = || format!("`rast cloud up {name}`");
    let object = |made: &Option<Made>, part: &str| made.as_ref()?.object(part).map(str::to_owned);
    if seen.state.is_none() {
        return Some(
            Chain::new(
                Cause::Lost,
                format!("stack {}, which holds the state volume, was deleted", Mark::state_stack(name)),
            )
            .advise(format!("the data is lost: `rast cloud down {name}`, then up again makes an empty cluster")),
        );
    }
    let volume = object(&seen.state, "state").filter(|_| seen.answers(Service::BlockStorage));
    let volume = volume.as_ref().map(|id| (id, seen.volumes.iter().find(|v| &v.id == id)));
    if let Some((id, None)) = volume {
        return Some(
            Chain::new(Cause::Lost, format!("the state volume {id} was deleted"))
                .advise(format!("the data is lost: `rast cloud down {name}`, then up again makes an empty cluster")),
        );
    }
    if seen.machines.is_none() {
        return Some(Chain::new(Cause::Held, "it has its state volume and floating IP, and no machine").advise(up()));
    }
    let machine = machine_name(name, 0);
    let id = object(&seen.machines, "server_0");
    match id.as_ref().map(|id| seen.servers.iter().find(|s| &s.id == id)) {
        _ if !seen.answers(Service::Compute) => {}
        Some(Some(server)) => {
            if let Some(chain) = server_down(evidence, server) {
                return Some(chain.advise(up()));
            }
        }
        _ => {
            return Some(
                Chain::new(Cause::Lost, format!("its server {machine} was deleted behind rastOS's back"))
                    .advise(format!("{} makes it again; its state volume is still there", up())),
            );
        }
    }
    if let Some((id, Some(volume))) = volume
        && volume.status != "in-use"
    {
        return Some(
            Chain::new(
                Cause::Apart,
                format!("its state volume {id} is {} and not attached to {machine}", volume.status),
            )
            .advise(up()),
        );
    }
    let address = object(&seen.state, "address").filter(|_| seen.answers(Service::Network));
    match address.as_ref().map(|id| seen.addresses.iter().find(|a| &a.id == id)) {
        Some(None) => {
            Some(Chain::new(Cause::Lost, "its floating IP was deleted").advise(format!("{} makes another", up())))
        }
        Some(Some(found)) if found.port.is_none() => Some(
            Chain::new(Cause::Apart, format!("its floating IP {} does not lead to {machine}", found.ip)).advise(up()),
        ),
        _ => None,
    }
}

/// A server that is there and does not run.
fn server_down(evidence: &Evidence, server: &Server) -> Option<Chain> {
    let name = &server.name;
    Some(match server.status.as_str() {
        "ACTIVE" => return None,
        "SHUTOFF" => Chain::new(Cause::ServerDown, format!("its server {name} is stopped")),
        "ERROR" => {
            let unknown = (Cause::ServerDown, "Nova could not keep it running");
            let (cause, words) = Known::by(&server.fault).map_or(unknown, plain);
            let console =
                last_lines(&evidence.account.console, LINES).into_iter().map(|line| format!("console: {line}"));
            Chain::new(cause, words)
                .quoting([server.fault.clone()])
                .quoting(console)
                .because_of(format!("its server {name} is in state ERROR"))
        }
        other => Chain::new(Cause::ServerDown, format!("its server {name} is in state {other}")),
    })
}

/// All is well in the cloud, and yet nobody answers: what the machine itself says last.
fn machine(evidence: &Evidence, why: &str) -> Chain {
    let machine = machine_name(&evidence.name, 0);
    let console = &evidence.account.console;
    let said = console.lines().rev().find_map(|line| {
        let line = line.trim();
        TROUBLE.iter().find_map(|mark| line.split_once(mark)).map(|(_, words)| words.to_owned())
    });
    let link = format!("its server {machine} runs, and the API there is silent: {why}");
    let advice = format!(
        "the console says more each minute: `openstack console log show {machine}`; \
         a hard reboot of the server loses nothing: the state is on its volume"
    );
    let chain = match said {
        Some(words) => Chain::new(Cause::Silent, format!("the machine says on its console: {words}")).because_of(link),
        None => Chain::new(Cause::Silent, link),
    };
    chain.quoting(last_lines(console, LINES).into_iter().map(|line| format!("console: {line}"))).advise(advice)
}

#[cfg(test)]
mod tests;
