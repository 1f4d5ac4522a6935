//! Why a pod does not run, or is not ready.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod, PodCondition};

use super::{Cause, Chain, container};

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The pod.
    pub pod: Pod,
    /// What happened to it, oldest first.
    pub events: Vec<Event>,
    /// The last lines that a container printed: its name and the lines.
    pub logs: Vec<(String, Vec<String>)>,
    /// Whether its node answers; `None` when it has none.
    pub node_ready: Option<bool>,
}

/// The chain of a pod.
pub fn explain(evidence: &Evidence) -> Chain {
    let name = evidence.name();
    let status = evidence.pod.status.clone().unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if let Some(leaving) = leaving(evidence) {
        return leaving;
    }
    if evidence.node_ready == Some(false) {
        let node = evidence.pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        return Chain::new(Cause::NodeDown, format!("its node {node} does not answer"))
            .advise(format!("look at the node: `rast describe node/{node}`"))
            .because_of(format!("pod/{name} is {phase}, as far as is known"));
    }
    match (phase, status.reason.as_deref()) {
        (_, Some("Evicted")) => {
            return Chain::new(Cause::Evicted, status.message.unwrap_or_default())
                .advise("raise the limit of ephemeral-storage, or write less")
                .because_of(format!("pod/{name} was evicted"));
        }
        (_, Some(reason)) if reason.starts_with("OutOf") => {
            return Chain::new(Cause::NoRoom, "its node has no room for what it asks for")
                .quoting([status.message.unwrap_or_default()])
                .advise("lower resources.requests, end something else, or let the scheduler choose: no spec.nodeName")
                .because_of(format!("pod/{name} was rejected"));
        }
        (_, Some("DeadlineExceeded")) => {
            return Chain::new(Cause::Deadline, "it ran longer than spec.activeDeadlineSeconds")
                .because_of(format!("pod/{name} was ended"));
        }
        ("Succeeded", _) => return Chain::new(Cause::Done, format!("pod/{name} did its work and ended")),
        _ => {}
    }
    let chain = unscheduled(evidence)
        .or_else(|| sandbox(evidence))
        .or_else(|| containers(evidence))
        .unwrap_or_else(|| fine(evidence));
    match chain.cause {
        Cause::Fine => chain,
        _ => chain
            .because_of(format!("pod/{name} is {phase}{}", if phase == "Running" { ", but not ready" } else { "" })),
    }
}

fn fine(evidence: &Evidence) -> Chain {
    let ready = evidence.condition("Ready").is_some_and(|c| c.status == "True");
    match ready {
        true => Chain::new(Cause::Fine, format!("pod/{} runs and is ready", evidence.name())),
        false => Chain::new(Cause::OnItsWay, "nothing is wrong so far"),
    }
}

fn leaving(evidence: &Evidence) -> Option<Chain> {
    let meta = &evidence.pod.metadata;
    meta.deletion_timestamp.as_ref()?;
    let finalizers = meta.finalizers.clone().unwrap_or_default();
    let why = if finalizers.is_empty() {
        let grace = meta.deletion_grace_period_seconds.unwrap_or(0);
        Chain::new(Cause::Leaving, format!("its containers have {grace} s to end"))
    } else {
        Chain::new(Cause::Leaving, format!("these finalizers hold it: {}", finalizers.join(", ")))
            .advise("what set a finalizer must take it away")
    };
    Some(why.because_of(format!("pod/{} is being deleted", evidence.name())))
}

fn unscheduled(evidence: &Evidence) -> Option<Chain> {
    let condition = evidence.condition("PodScheduled")?;
    if condition.status == "True" {
        return None;
    }
    let message = condition.message.clone().unwrap_or_default();
    let chain = if message.contains("free ports") {
        Chain::new(Cause::PortTaken, "another pod holds the port of the host that it asks for")
            .advise("choose another hostPort, or none and reach the pod by its address")
    } else if message.contains("Insufficient") || message.contains("Too many pods") {
        Chain::new(Cause::NoRoom, "no node has room for what it asks for")
            .advise("lower resources.requests, end something else, or add a node")
    } else {
        Chain::new(Cause::NoNode, "no node is one that it may run on")
            .advise("compare nodeSelector, affinity and tolerations with `rast describe nodes`")
    };
    Some(chain.quoting([message]).because_of("it has no node yet"))
}

fn sandbox(evidence: &Evidence) -> Option<Chain> {
    if evidence.condition("PodReadyToStartContainers").is_some_and(|c| c.status == "True") {
        return None;
    }
    let message = evidence.last("FailedCreatePodSandBox")?;
    Some(if message.contains("host port") {
        Chain::new(Cause::PortTaken, "the port of the host that it asks for is taken")
            .quoting([message])
            .advise("choose another hostPort, or end what holds it")
    } else {
        Chain::new(Cause::Volume, "its sandbox could not be made").quoting([message])
    })
}

fn containers(evidence: &Evidence) -> Option<Chain> {
    let status = evidence.pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let mut chains: Vec<Chain> = all.filter_map(|c| container::explain(c, evidence)).collect();
    // What is merely on its way never hides what is wrong.
    chains.sort_by_key(|chain| chain.cause == Cause::OnItsWay);
    (!chains.is_empty()).then(|| chains.remove(0))
}

impl Evidence {
    /// The pod's name.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or("")
    }

    fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
    }

    fn last(&self, reason: &str) -> Option<String> {
        let found = self.events.iter().rev().find(|e| e.reason.as_deref() == Some(reason));
        found.and_then(|e| e.message.clone())
    }

    /// The registry's own words: the newest event about the image says more than a back-off does.
    pub fn pull_failure(&self, image: &str, message: &str) -> String {
        let about = |e: &&Event| {
            let text = e.message.as_deref().unwrap_or("");
            e.reason.as_deref() == Some("Failed") && text.contains(image)
        };
        let said = self.events.iter().rev().find(about).and_then(|e| e.message.clone());
        said.unwrap_or_else(|| message.to_owned())
    }

    /// A container that is being made ready: by what the newest event says.
    pub fn preparing(&self, name: &str) -> Chain {
        if let Some(message) = self.last("FailedMount") {
            let chain =
                Chain::new(Cause::Volume, format!("container {name} waits for a volume")).quoting([message.clone()]);
            return match message.contains("not found") {
                true => Chain { cause: Cause::MissingSource, ..chain }
                    .advise("create it in the pod's namespace; the container then starts by itself"),
                false => chain,
            };
        }
        match self.last("Pulling").filter(|_| self.last("Pulled").is_none()) {
            Some(pulling) => Chain::new(Cause::OnItsWay, format!("container {name}: {pulling}")),
            None => Chain::new(Cause::OnItsWay, format!("container {name} is being made")),
        }
    }

    /// The memory that a container may use.
    pub fn memory_limit(&self, name: &str) -> Option<String> {
        let spec = self.pod.spec.as_ref()?;
        let container = spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)?;
        Some(container.resources.as_ref()?.limits.as_ref()?.get("memory")?.0.clone())
    }

    /// What the newest event says of a failing probe of the container.
    pub fn unhealthy(&self, probe: &str, name: &str) -> Option<String> {
        let field = format!("{{{name}}}");
        let about = |e: &&Event| {
            e.reason.as_deref() == Some("Unhealthy")
                && e.message.as_deref().is_some_and(|m| m.starts_with(probe))
                && e.involved_object.field_path.as_deref().is_none_or(|f| f.ends_with(&field))
        };
        self.events.iter().rev().find(about).and_then(|e| e.message.clone())
    }

    /// The hook or probe that had the container killed in the run that `ended`; what it did to earlier runs is no cause.
    pub fn killed(&self, name: &str, ended: &ContainerStateTerminated) -> Option<Chain> {
        let start = format!("Container {name} failed ");
        let within = |e: &&Event| match (&e.last_timestamp, &ended.started_at) {
            (Some(event), Some(run)) => event.0 >= run.0,
            _ => true,
        };
        let mut killing = self.events.iter().rev().filter(|e| e.reason.as_deref() == Some("Killing")).filter(within);
        let why = killing.find_map(|e| e.message.as_deref()?.strip_prefix(&start))?;
        if let Some(said) = why.strip_prefix("its postStart hook: ") {
            let link = format!("container {name} was ended because its postStart hook failed");
            let chain = Chain::new(Cause::Hook, link).quoting([said.to_owned()]);
            return Some(chain.advise("check what the hook does, and what it needs"));
        }
        let (probe, said) =
            ["Liveness", "Startup"].iter().find_map(|probe| Some((probe, self.unhealthy(probe, name)?)))?;
        let probe = probe.to_lowercase();
        let link = format!("container {name} was ended because its {probe} probe failed");
        Some(Chain::new(Cause::Killed, link).quoting([said]).advise("check what the probe asks for, and its timeouts"))
    }

    /// The last lines that a container printed.
    pub fn last_lines(&self, name: &str) -> Vec<String> {
        self.logs.iter().find(|(container, _)| container == name).map(|(_, lines)| lines.clone()).unwrap_or_default()
    }
}
