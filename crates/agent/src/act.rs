//! Effects: each carries out one step and says how it went. No decisions.

use std::sync::Arc;

use images::Image;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use network::{HostPort, Protocol};
use runtime::Mount;
use serde_json::json;

use crate::{
    agent::{Agent, Scene, termination_file},
    decide::Step,
    env, events,
    fields::Facts,
    files,
    mounts::{self, Maker},
    observe::{Ended, Failure, Outcome, essence},
    pod, probe, spec, status,
};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
/// How long a postStart hook may take.
const POST_START: std::time::Duration = std::time::Duration::from_secs(300);

impl Agent {
    pub(crate) async fn carry_out(&self, scene: &Scene, step: Step) -> Outcome {
        let want = &scene.want;
        let failure = |e: String| Failure { reason: "Failed", message: e };
        match step {
            Step::Sandbox => Outcome::Sandbox(self.sandbox(want).await),
            Step::Volumes => Outcome::Volumes(self.make_volumes(scene, false).await),
            Step::Pull { container } => {
                let result = self.pull(want, &container).await;
                Outcome::Image(container, result)
            }
            Step::Start { container, attempt } => self.start(scene, &container, attempt).await,
            Step::PostStart { container, attempt } => {
                let result = self.post_start(scene, &container, attempt).await;
                Outcome::Hooked(container, attempt, result)
            }
            Step::Stop { container, grace, why } => {
                self.stop(scene, &container, grace, why).await;
                Outcome::Signalled(container)
            }
            Step::Kill { container } => {
                self.signal(scene, &container, SIGKILL).await;
                Outcome::Killed(container)
            }
            Step::Probe { container, kind, .. } => {
                let attempt = scene.remains.get(&container).map_or(0, |r| r.0);
                let result = self.probe(scene, &container, attempt, kind).await;
                Outcome::Probed(container, attempt, kind, result)
            }
            Step::Forget { container, attempt } => {
                self.forget(scene, &container, attempt).await;
                Outcome::Forgotten(container, attempt)
            }
            Step::Report(status) => self.report(want, *status).await,
            Step::Clean => Outcome::Cleaned(self.clean(scene).await.map_err(failure)),
            Step::Delete => self.delete(want).await,
            Step::Hurry { container, .. } => Outcome::Signalled(container),
        }
    }

    async fn sandbox(&self, want: &Pod) -> Result<Vec<std::net::IpAddr>, Failure> {
        self.make_sandbox(want).await.map_err(|message| {
            let text = format!("Failed to create pod sandbox: {message}");
            self.0.events.warning(events::about(want, None), "FailedCreatePodSandBox", text.clone());
            Failure { reason: "ContainerCreating", message: text }
        })
    }

    async fn make_sandbox(&self, want: &Pod) -> Result<Vec<std::net::IpAddr>, String> {
        let spec = spec::sandbox(&self.0.config, want)?;
        let sandbox = self.0.runtime.make_sandbox(&spec).await.map_err(chain)?;
        let ips = if spec.host_network {
            self.0.config.addresses.clone()
        } else {
            let request = network::Request { id: spec.id, netns: sandbox.netns, host_ports: host_ports(want) };
            self.0.network.attach(&request).await.map_err(chain)?.addresses
        };
        let hostname = &sandbox.spec.hostname;
        let host = |path| std::fs::read_to_string(path).unwrap_or_default();
        let hosts = files::hosts(want, &ips, &self.0.config.dns.domain, &host("/etc/hosts"));
        let resolv = files::resolv(want, &self.0.config.dns, &host("/etc/resolv.conf"));
        let uid = pod::uid(want);
        for (name, text) in [("hosts", hosts), ("hostname", format!("{hostname}\n")), ("resolv.conf", resolv)] {
            self.0.volumes.file(uid, name, Some(text.as_bytes()), 0o644).map_err(|e| e.to_string())?;
        }
        Ok(ips)
    }

    /// Makes the pod's volumes, or refreshes those that come from the API.
    pub(crate) async fn make_volumes(&self, scene: &Scene, refresh: bool) -> Result<(), Failure> {
        let maker = Maker {
            client: &self.0.client,
            objects: &self.0.objects,
            volumes: &self.0.volumes,
            ca: self.0.config.ca.as_deref(),
            tokens: &scene.tokens,
        };
        maker.make(&self.facts(scene), refresh, Timestamp::now()).await.map_err(|message| {
            self.0.events.warning(events::about(&scene.want, None), "FailedMount", message.clone());
            Failure { reason: "ContainerCreating", message }
        })
    }

    fn facts<'a>(&'a self, scene: &'a Scene) -> Facts<'a> {
        Facts {
            pod: &scene.want,
            ips: &scene.ips,
            host_ips: &self.0.config.addresses,
            node: &self.0.config.node_name,
            capacity: self.0.config.capacity,
        }
    }

    async fn start(&self, scene: &Scene, name: &str, attempt: u32) -> Outcome {
        let want = &scene.want;
        let Some((_, c)) = pod::container(want, name) else {
            let failure = Failure { reason: "CreateContainerError", message: format!("no container {name}") };
            return Outcome::Started { name: name.into(), attempt, hash: 0, result: Err(failure) };
        };
        let about = events::about(want, Some(name));
        let hash = crate::decide::definition(c);
        match self.try_start(scene, c, attempt).await {
            Ok(since) => {
                self.0.events.normal(about.clone(), "Created", format!("Created container: {name}"));
                self.0.events.normal(about, "Started", format!("Started container {name}"));
                Outcome::Started { name: name.into(), attempt, hash, result: Ok(since) }
            }
            Err(Refused::Program(message)) => {
                self.0.events.warning(about, "Failed", format!("Error: {message}"));
                let _ = self.0.images.discard(&pod::id(scene.uid(), name, attempt)).await;
                let at = Timestamp::now();
                let reason = "StartError".to_string();
                let ended = Ended { attempt, since: None, at, code: Some(128), signal: None, reason, message };
                Outcome::NotStarted(name.into(), ended)
            }
            Err(Refused::Image(failure)) => {
                self.0.events.warning(about, "Failed", format!("Error: {}", failure.message));
                Outcome::NoImage(name.into(), attempt, failure)
            }
            Err(Refused::Before(failure)) => {
                self.0.events.warning(about, "Failed", format!("Error: {}", failure.message));
                let id = pod::id(scene.uid(), name, attempt);
                // It may run all the same: a helper that is killed after a start answers nobody.
                if self.0.runtime.list().await.is_ok_and(|all| all.iter().all(|c| c.spec.id != id)) {
                    let _ = self.0.images.discard(&id).await;
                }
                Outcome::Started { name: name.into(), attempt, hash, result: Err(failure) }
            }
        }
    }

    async fn try_start(&self, scene: &Scene, c: &Container, attempt: u32) -> Result<Timestamp, Refused> {
        let want = &scene.want;
        let id = pod::id(scene.uid(), &c.name, attempt);
        let error = |reason, message| Refused::Before(Failure { reason, message });
        let (referred, image) = tokio::join!(
            env::fetch(&self.0.objects, pod::namespace(want), c),
            self.snapshot(c.image.as_deref().unwrap_or_default(), &id),
        );
        let referred = referred.map_err(Refused::Before)?;
        let gone = |message| Refused::Image(Failure { reason: "CreateContainerError", message });
        let (image, snapshot) = image.map_err(gone)?;
        let services = spec::service_env(&self.0.config);
        let env = env::build(&self.facts(scene), c, &referred, services).map_err(Refused::Before)?;
        let mounts = self.mounts(want, c, attempt, &env).await.map_err(|e| error("CreateContainerConfigError", e))?;
        let parts = spec::Parts { attempt, image: &image, snapshot, env, mounts };
        let spec = spec::container(&self.0.config, want, c, parts).map_err(Refused::Before)?;
        let container = match self.0.runtime.start(&spec).await {
            Ok(container) => container,
            // Started by an agent that was killed before it heard of it.
            Err(runtime::Error::Exists(_)) => {
                let all = self.0.runtime.list().await.map_err(|e| error("CreateContainerError", chain(e)))?;
                let found = all.into_iter().find(|c| c.spec.id == spec.id);
                found.ok_or_else(|| error("CreateContainerError", format!("{} exists and is not listed", spec.id)))?
            }
            Err(runtime::Error::Start { why, .. }) => return Err(Refused::Program(why)),
            Err(e @ (runtime::Error::RunsAsRoot { .. } | runtime::Error::Invalid { .. })) => {
                return Err(error("CreateContainerConfigError", chain(e)));
            }
            Err(e) => return Err(error("CreateContainerError", chain(e))),
        };
        Ok(match container.state {
            runtime::State::Running { since, .. } => Timestamp::try_from(since).unwrap_or_default(),
            runtime::State::Exited { since, exit } => {
                self.exited(&container.spec.id, exit);
                Timestamp::try_from(since).unwrap_or_default()
            }
            runtime::State::Creating => Timestamp::now(),
        })
    }

    async fn snapshot(&self, name: &str, id: &str) -> Result<(Image, images::Snapshot), String> {
        let image = self.0.images.get(name).await.map_err(chain)?;
        let image = image.ok_or_else(|| format!("image {name} was removed meanwhile"))?;
        let snapshot = self.0.images.prepare(&image, id).await.map_err(chain)?;
        Ok((image, snapshot))
    }

    async fn mounts(
        &self,
        want: &Arc<Pod>,
        c: &Container,
        attempt: u32,
        env: &[(String, String)],
    ) -> Result<Vec<Mount>, String> {
        let (volumes, want, c, env) = (self.0.volumes.clone(), want.clone(), c.clone(), env.to_vec());
        let work = move || {
            let lookup = |name: &str| env.iter().find(|e| e.0 == name).map(|e| e.1.clone());
            let mut all = mounts::mounts(&volumes, &want, &c, &lookup)?;
            let uid = pod::uid(&want);
            let fixed = c.security_context.as_ref().and_then(|s| s.read_only_root_filesystem) == Some(true);
            let taken = |path: &str| all.iter().any(|m| m.destination.as_os_str() == path);
            let mut own = vec![];
            for (name, path) in
                [("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf")]
            {
                if !taken(path) {
                    own.push((volumes.file(uid, name, None, 0o644), path.to_string(), fixed));
                }
            }
            let message = c.termination_message_path.clone().filter(|p| !p.is_empty());
            let message = message.unwrap_or_else(|| "/dev/termination-log".into());
            own.push((volumes.file(uid, &termination_file(&c.name, attempt), None, 0o666), message, false));
            for (source, destination, read_only) in own {
                let source = source.map_err(|e| e.to_string())?;
                all.push(Mount { source, destination: destination.into(), read_only, receive_propagation: false });
            }
            Ok(all)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string())?
    }

    async fn post_start(&self, scene: &Scene, name: &str, attempt: u32) -> Result<(), String> {
        let hook = pod::container(&scene.want, name).and_then(|(_, c)| c.lifecycle.as_ref()?.post_start.clone());
        let Some(hook) = hook else { return Ok(()) };
        let id = pod::id(scene.uid(), name, attempt);
        // Nothing else limits it.
        let ran = tokio::time::timeout(POST_START, probe::hook(self, scene, name, &id, &hook)).await;
        let ran = ran.unwrap_or_else(|_| Err(format!("not done within {}s", POST_START.as_secs())));
        ran.map_err(|e| {
            let text = format!("PostStartHook failed: {e}");
            self.0.events.warning(events::about(&scene.want, Some(name)), "FailedPostStartHook", text);
            format!("Container {name} failed its postStart hook: {e}")
        })
    }

    async fn stop(&self, scene: &Scene, name: &str, grace: std::time::Duration, why: String) {
        let about = events::about(&scene.want, Some(name));
        self.0.events.normal(about.clone(), "Killing", why);
        if grace.is_zero() {
            return;
        }
        let lifecycle = pod::container(&scene.want, name).and_then(|(_, c)| c.lifecycle.clone());
        let hook = lifecycle.as_ref().and_then(|l| l.pre_stop.clone());
        if let Some(hook) = hook {
            let attempt = scene.remains.get(name).map_or(0, |r| r.0);
            let id = pod::id(scene.uid(), name, attempt);
            let ran = tokio::time::timeout(grace, probe::hook(self, scene, name, &id, &hook)).await;
            let failed = match ran {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(e),
                Err(_) => Some(format!("not done within {}s", grace.as_secs())),
            };
            if let Some(e) = failed {
                self.0.events.warning(about, "FailedPreStopHook", format!("PreStopHook failed: {e}"));
            }
        }
        let own = lifecycle.and_then(|l| l.stop_signal).and_then(|s| signal(&s));
        let image = match own {
            Some(_) => None,
            None => self.image_signal(scene, name).await,
        };
        self.signal(scene, name, own.or(image).unwrap_or(SIGTERM)).await;
    }

    async fn image_signal(&self, scene: &Scene, name: &str) -> Option<i32> {
        let image = pod::container(&scene.want, name)?.1.image.as_deref()?;
        let image = self.0.images.get(image).await.ok()??;
        signal(image.config.config().as_ref()?.stop_signal().as_deref()?)
    }

    async fn signal(&self, scene: &Scene, name: &str, signal: i32) {
        let attempt = scene.remains.get(name).map_or(0, |r| r.0);
        let id = pod::id(scene.uid(), name, attempt);
        match self.0.runtime.kill(&id, signal).await {
            Ok(()) => {}
            // Its end was not heard of: ask.
            Err(runtime::Error::NotFound(_) | runtime::Error::NotRunning(_)) => self.resync().await,
            Err(e) => tracing::warn!("signal {signal} to {id}: {}", chain(e)),
        }
    }

    async fn forget(&self, scene: &Scene, name: &str, attempt: u32) {
        let id = pod::id(scene.uid(), name, attempt);
        if let Err(e) = self.0.runtime.remove(&id).await {
            tracing::warn!("remove {id}: {}", chain(e));
        }
        if let Err(e) = self.0.images.discard(&id).await {
            tracing::warn!("discard {id}: {}", chain(e));
        }
        // The log of the instance before stays, for `logs --previous`.
        if let Some(older) = attempt.checked_sub(1) {
            let _ = crate::logs::remove(&spec::log(&self.0.config.logs, &scene.want, name, older));
        }
    }

    async fn report(&self, want: &Pod, status: PodStatus) -> Outcome {
        let essence = essence(&status);
        let status = status::on_host(status, &self.0.config.addresses);
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), pod::namespace(want));
        let patch = json!({"metadata": {"uid": want.metadata.uid}, "status": status::own(&status)});
        match api.patch_status(pod::name(want), &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(new) => {
                self.renew(new);
                Outcome::Reported(Ok(essence))
            }
            // Another pod of that name has another uid.
            Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) && self.is_gone(want).await => Outcome::Absent,
            Err(e) => Outcome::Reported(Err(Failure { reason: "Failed", message: e.to_string() })),
        }
    }

    /// Asked as a node may ask: one that is not ours any more cannot be got by its name.
    async fn is_gone(&self, want: &Pod) -> bool {
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), pod::namespace(want));
        let it = format!("metadata.name={},spec.nodeName={}", pod::name(want), self.0.config.node_name);
        match api.list(&ListParams::default().fields(&it)).await {
            Ok(found) => found.items.iter().all(|p| p.metadata.uid != want.metadata.uid),
            Err(_) => false,
        }
    }

    async fn clean(&self, scene: &Scene) -> Result<(), String> {
        let uid = scene.uid();
        let mut faults: Vec<String> = vec![];
        faults.extend(self.0.network.detach(uid).await.err().map(chain));
        faults.extend(self.0.runtime.remove_sandbox(uid).await.err().map(chain));
        for (name, (_, attempts)) in scene.remains.iter() {
            for attempt in attempts {
                faults.extend(self.0.images.discard(&pod::id(uid, name, *attempt)).await.err().map(chain));
            }
        }
        let (volumes, id) = (self.0.volumes.clone(), uid.to_string());
        match tokio::task::spawn_blocking(move || volumes.teardown(&id)).await {
            Ok(done) => faults.extend(done.err().map(|e| e.to_string())),
            Err(e) => faults.push(e.to_string()),
        }
        if faults.is_empty() {
            return Ok(());
        }
        let text = faults.join("; ");
        tracing::warn!("clean up after pod {uid}: {text}");
        Err(text)
    }

    async fn delete(&self, want: &Pod) -> Outcome {
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), pod::namespace(want));
        let only = Preconditions { uid: want.metadata.uid.clone(), resource_version: None };
        let now = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(only), ..DeleteParams::default() };
        let logs = spec::log_dir(&self.0.config.logs, want);
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(logs)).await;
        match api.delete(pod::name(want), &now).await {
            Ok(_) => Outcome::Deleted(Ok(())),
            // Someone did not wait for us (`--grace-period=0`): it is gone all the same.
            Err(kube::Error::Api(e)) if matches!(e.code, 404 | 409) && self.is_gone(want).await => {
                Outcome::Deleted(Ok(()))
            }
            Err(e) => Outcome::Deleted(Err(Failure { reason: "Failed", message: e.to_string() })),
        }
    }
}

enum Refused {
    /// Before anything ran.
    Before(Failure),
    /// Its image is not as it was.
    Image(Failure),
    /// The program itself.
    Program(String),
}

/// An error with its causes.
pub(crate) fn chain(e: impl std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(c) = cause {
        let c_text = c.to_string();
        if !text.contains(&c_text) {
            text.push_str(&format!(": {c_text}"));
        }
        cause = c.source();
    }
    text
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let unspecified = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    pod::containers(pod)
        .flat_map(|(_, c)| c.ports.iter().flatten())
        .filter_map(|p| {
            Some(HostPort {
                address: p.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(unspecified),
                host: p.host_port.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0)?,
                pod: u16::try_from(p.container_port).ok()?,
                protocol: if p.protocol.as_deref() == Some("UDP") { Protocol::Udp } else { Protocol::Tcp },
            })
        })
        .collect()
}

/// A signal by its name or number, as an image's StopSignal has it.
fn signal(text: &str) -> Option<i32> {
    if let Ok(n) = text.parse::<i32>() {
        return (1..=64).contains(&n).then_some(n);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
    ];
    match name.split_once("RTMIN+") {
        Some((_, n)) => n.parse::<i32>().ok().filter(|n| (0..=30).contains(n)).map(|n| 34 + n),
        None => known.iter().find(|k| k.0 == name).map(|k| k.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, n) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("99", None),
            ("x", None),
        ] {
            assert_eq!(signal(text), n, "{text}");
        }
    }
}
