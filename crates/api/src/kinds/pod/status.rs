//! What can be told from a pod: phase, readiness, class of service, what it needs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource,
};

use crate::quantity::Quantity;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// Whether an init container runs on beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A condition of a pod by its type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == kind)
}

/// Whether a pod says that it is ready.
pub fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Whether a pod has been ready for so many seconds.
pub fn available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    let since = condition(pod, "Ready").and_then(|c| c.last_transition_time.as_ref());
    ready(pod)
        && (min_ready_seconds == 0
            || since.is_some_and(|since| now.as_second() - since.0.as_second() >= min_ready_seconds.into()))
}

/// Whether a pod has ended for good: Succeeded or Failed.
pub fn ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

/// Whether a pod counts as a replica: neither ended nor on its way out.
pub fn active(pod: &Pod) -> bool {
    !ended(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// The phase that the states of a pod's containers amount to.
pub fn phase(spec: &PodSpec, inits: &[ContainerStatus], containers: &[ContainerStatus]) -> &'static str {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let of = |all: &[ContainerStatus], name: &str| all.iter().find(|s| s.name == name).cloned().unwrap_or_default();
    let mut pending = false;
    for container in spec.init_containers.iter().flatten() {
        let status = of(inits, &container.name);
        if is_sidecar(container) {
            pending |= status.started != Some(true) && exit_code(&status).is_none();
            continue;
        }
        match exit_code(&status) {
            Some(0) => {}
            Some(_) if policy == "Never" => return "Failed",
            _ => pending = true,
        }
    }
    if pending {
        return "Pending";
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        let status = of(containers, &container.name);
        match exit_code(&status) {
            _ if status.state.as_ref().is_some_and(|s| s.running.is_some()) => running += 1,
            Some(code) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
            }
            None => waiting += 1,
        }
    }
    match policy {
        _ if waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        "Always" => "Running",
        _ if succeeded == stopped => "Succeeded",
        "Never" => "Failed",
        _ => "Running",
    }
}

/// How a container ended, now or the last time.
fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let now = status.state.as_ref().and_then(|s| s.terminated.as_ref());
    let last = || status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
    now.or_else(last).map(|t| t.exit_code)
}

/// The class of service of a pod: `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos(spec: &PodSpec) -> &'static str {
    let all = || spec.init_containers.iter().flatten().chain(&spec.containers);
    let amount = |list: Option<&BTreeMap<String, resource::Quantity>>, name: &str| {
        list.and_then(|l| l.get(name)?.0.parse::<Quantity>().ok()).filter(|q| !q.is_zero())
    };
    let both = |c: &Container, name: &str| {
        let resources = c.resources.as_ref();
        let limit = amount(resources.and_then(|r| r.limits.as_ref()), name);
        (amount(resources.and_then(|r| r.requests.as_ref()), name).or(limit), limit)
    };
    let names = ["cpu", "memory"];
    if all().all(|c| names.iter().all(|name| both(c, name) == (None, None))) {
        return "BestEffort";
    }
    let guaranteed = |c: &Container| names.iter().all(|n| matches!(both(c, n), (Some(r), Some(l)) if r == l));
    if all().all(guaranteed) { "Guaranteed" } else { "Burstable" }
}

/// What a pod asks for: the sum of what runs side by side, or more if an init container needs more.
pub fn requests(spec: &PodSpec) -> Amounts {
    effective(spec, |resources| resources.requests.as_ref())
}

/// What a pod may use at most, of the resources that some container limits. Where another container has no limit
/// for one of them, the pod has none either: see [`limits_of`].
pub fn limits(spec: &PodSpec) -> Amounts {
    effective(spec, |resources| resources.limits.as_ref())
}

/// The limit of a pod for one resource, if all of its containers have one.
pub fn limits_of(spec: &PodSpec, name: &str) -> Option<Quantity> {
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let limited =
        |c: &Container| c.resources.as_ref().is_some_and(|r| r.limits.iter().flatten().any(|(n, _)| n == name));
    if all.all(limited) { limits(spec).get(name).copied() } else { None }
}

fn effective(
    spec: &PodSpec,
    list: fn(&ResourceRequirements) -> Option<&BTreeMap<String, resource::Quantity>>,
) -> Amounts {
    let amounts = |container: &Container| -> Amounts {
        let entries = container.resources.as_ref().and_then(list).into_iter().flatten();
        entries.filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?))).collect()
    };
    let mut together = Amounts::new();
    spec.containers.iter().for_each(|c| add(&mut together, &amounts(c)));
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = amounts(container);
        let mut now = sidecars.clone();
        add(&mut now, &own);
        if is_sidecar(container) {
            add(&mut together, &own);
            sidecars.clone_from(&now);
        }
        for (name, amount) in now {
            most.entry(name).and_modify(|m| *m = amount.max(*m)).or_insert(amount);
        }
    }
    for (name, amount) in most {
        together.entry(name).and_modify(|t| *t = amount.max(*t)).or_insert(amount);
    }
    together
}

fn add(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        to.entry(name.clone()).and_modify(|sum| *sum = sum.plus(*amount)).or_insert(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn a_pod_needs_what_runs_side_by_side() {
        let pod = spec(json!({
            "initContainers": [
                {"name": "first", "resources": asks("2", "10Mi")},
                {"name": "side", "restartPolicy": "Always", "resources": asks("100m", "20Mi")},
                {"name": "second", "resources": asks("1", "300Mi")}],
            "containers": [{"name": "a", "resources": asks("500m", "100Mi")}, {"name": "b", "resources": asks("500m", "100Mi")}]}));
        let needs = requests(&pod);
        // cpu: the first init container alone; memory: the second beside the sidecar.
        assert_eq!((needs["cpu"].to_string(), needs["memory"].to_string()), ("2".to_owned(), "320Mi".to_owned()));
    }

    #[test]
    fn a_pod_is_limited_where_all_of_it_is() {
        let pod = spec(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
            {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}));
        assert_eq!(limits_of(&pod, "cpu"), Some(Quantity::from_units(2)));
        assert_eq!(limits_of(&pod, "memory"), None);
    }

    #[test]
    fn classes_of_service() {
        let class = |resources: Value| qos(&spec(json!({"containers": [{"name": "a", "resources": resources}]})));
        assert_eq!(class(json!({})), "BestEffort");
        assert_eq!(class(json!({"limits": {"ephemeral-storage": "1Gi"}})), "BestEffort");
        assert_eq!(class(asks("1", "1Gi")), "Burstable");
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
        assert_eq!(
            class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}})),
            "Guaranteed"
        );
        assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
    }

    #[test]
    fn phases() {
        let running = || json!({"running": {}});
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let of = |policy: &str, init: Value, states: &[Value]| {
            let names: Vec<String> = (0..states.len()).map(|n| format!("c{n}")).collect();
            let spec = spec(json!({"restartPolicy": policy, "initContainers": [{"name": "i"}],
                "containers": names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>()}));
            let status = |name: &str, state: &Value| -> ContainerStatus {
                serde_json::from_value(json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})).unwrap()
            };
            let containers: Vec<_> = names.iter().zip(states).map(|(n, s)| status(n, s)).collect();
            phase(&spec, &[status("i", &init)], &containers)
        };
        assert_eq!(of("Always", running(), &[json!({})]), "Pending");
        assert_eq!(of("Always", ended(1), &[json!({})]), "Pending");
        assert_eq!(of("Never", ended(1), &[json!({})]), "Failed");
        assert_eq!(of("Always", ended(0), &[json!({})]), "Pending");
        assert_eq!(of("Always", ended(0), &[running(), json!({"waiting": {}})]), "Pending");
        assert_eq!(of("Always", ended(0), &[running(), ended(1)]), "Running");
        assert_eq!(of("Always", ended(0), &[ended(0)]), "Running");
        assert_eq!(of("OnFailure", ended(0), &[ended(0), ended(0)]), "Succeeded");
        assert_eq!(of("OnFailure", ended(0), &[ended(0), ended(1)]), "Running");
        assert_eq!(of("Never", ended(0), &[ended(0), ended(1)]), "Failed");
        assert_eq!(of("Never", ended(0), &[running(), ended(1)]), "Running");
    }
}
