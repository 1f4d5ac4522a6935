//! Why one container does not run, or is not ready.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus};

use super::{Cause, Chain, pod::Evidence};

/// What stops this container; `None` when it runs and is ready, or ended well.
pub fn explain(status: &ContainerStatus, evidence: &Evidence) -> Option<Chain> {
    let state = status.state.as_ref();
    if let Some(waiting) = state.and_then(|s| s.waiting.as_ref()) {
        return Some(waits(status, waiting, evidence));
    }
    if let Some(ended) = state.and_then(|s| s.terminated.as_ref()) {
        return (ended.exit_code != 0).then(|| ends(status, ended, evidence));
    }
    if status.ready {
        return None;
    }
    Some(not_ready(status, evidence))
}

fn waits(status: &ContainerStatus, waiting: &ContainerStateWaiting, evidence: &Evidence) -> Chain {
    let (name, image) = (&status.name, &status.image);
    let message = waiting.message.clone().unwrap_or_default();
    if message.starts_with("Pulling image") {
        return Chain::new(Cause::OnItsWay, format!("container {name}: {message}"));
    }
    match waiting.reason.as_deref().unwrap_or("") {
        "ErrImagePull" | "ImagePullBackOff" => image_pull(name, image, &evidence.pull_failure(image, &message)),
        "InvalidImageName" => Chain::new(Cause::ImageName, format!("container {name}: {image:?} is not an image name"))
            .quoting([message])
            .advise("write REGISTRY/REPOSITORY:TAG in lower case"),
        "ErrImageNeverPull" => Chain::new(
            Cause::ImageNeverPulled,
            format!("container {name}: the image {image} is not on the node and imagePullPolicy is Never"),
        )
        .advise("`rast pull` or `rast images load` it, or allow it to be pulled"),
        "CreateContainerConfigError" => config(name, &message),
        "CreateContainerError" | "RunContainerError" => start(name, &message),
        "CrashLoopBackOff" => match status.last_state.as_ref().and_then(|s| s.terminated.as_ref()) {
            Some(ended) => ends(status, ended, evidence).because_of(format!(
                "container {name} waits before its next start, after {}",
                times(status.restart_count, "restart")
            )),
            None => Chain::new(Cause::Crash, format!("container {name} ends again and again")).quoting([message]),
        },
        "PodInitializing" => Chain::new(Cause::OnItsWay, format!("container {name} waits for the init containers")),
        _ => evidence.preparing(name),
    }
}

fn image_pull(name: &str, image: &str, answer: &str) -> Chain {
    let has = |words: &[&str]| words.iter().any(|w| answer.to_lowercase().contains(w));
    let said = vec![answer.to_owned()];
    if has(&["unauthorized", "denied", "forbidden", "401", "403", "authentication"]) {
        Chain::new(Cause::ImageDenied, format!("container {name}: the registry refuses access to {image}"))
            .quoting(said)
            .advise("name a Secret of type kubernetes.io/dockerconfigjson in spec.imagePullSecrets")
    } else if has(&["not found", "unknown", "404", "no such"]) {
        Chain::new(Cause::ImageNotFound, format!("container {name}: the registry has no image {image}"))
            .quoting(said)
            .advise("check the name and the tag")
    } else {
        Chain::new(Cause::RegistryDown, format!("container {name}: the image {image} could not be fetched"))
            .quoting(said)
            .advise("check that the node reaches the registry; the pull is tried again by itself")
    }
}

fn config(name: &str, message: &str) -> Chain {
    let link = format!("container {name}: {message}");
    let lower = message.to_lowercase();
    if lower.contains("root") {
        Chain::new(Cause::RunsAsRoot, link).advise("set securityContext.runAsUser, or use an image with another user")
    } else if lower.contains("key") && lower.contains("find") {
        Chain::new(Cause::MissingKey, link).advise("add the key, or mark the reference optional")
    } else {
        Chain::new(Cause::MissingSource, link)
            .advise("create it in the pod's namespace; the container then starts by itself")
    }
}

fn start(name: &str, message: &str) -> Chain {
    if message.to_lowercase().contains("runs as root") {
        return config(name, message);
    }
    Chain::new(Cause::NotStarted, format!("container {name}: its program could not be started"))
        .quoting([message.to_owned()])
        .advise("check command, args and the image's entrypoint")
}

fn ends(status: &ContainerStatus, ended: &ContainerStateTerminated, evidence: &Evidence) -> Chain {
    let name = &status.name;
    if ended.reason.as_deref() == Some("OOMKilled") {
        let limit = evidence.memory_limit(name).map(|l| format!(" of {l}")).unwrap_or_default();
        return Chain::new(
            Cause::Memory,
            format!("container {name} used all its memory{limit} and the kernel killed it"),
        )
        .advise("raise resources.limits.memory, or find what takes the memory");
    }
    if let Some(killed) = evidence.killed(name, ended) {
        return killed;
    }
    let code = match ended.reason.as_deref() {
        Some("ContainerStatusUnknown") => "in a way that nobody saw".to_owned(),
        _ => format!("with exit code {}", ended.exit_code),
    };
    let lines = match ended.message.as_deref().filter(|m| !m.is_empty()) {
        Some(message) => message.lines().map(str::to_owned).collect(),
        None => evidence.last_lines(name),
    };
    Chain::new(Cause::Crash, format!("container {name} ended {code}"))
        .quoting(lines)
        .advise(format!("`rast logs {} -c {name} --previous` shows all it printed", evidence.name()))
}

fn not_ready(status: &ContainerStatus, evidence: &Evidence) -> Chain {
    let name = &status.name;
    match evidence.unhealthy("Readiness", name).or_else(|| evidence.unhealthy("Startup", name)) {
        Some(said) => Chain::new(Cause::NotReady, format!("container {name} runs, but its probe fails"))
            .quoting([said])
            .advise("check what the probe asks for"),
        None => Chain::new(Cause::OnItsWay, format!("container {name} runs and its probe has not succeeded yet")),
    }
}

/// `1 restart`, `3 restarts`.
pub fn times(count: i32, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
