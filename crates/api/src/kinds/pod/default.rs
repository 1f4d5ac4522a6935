//! What a pod is taken to mean where it says nothing, as upstream has it.

use k8s_openapi::{
    api::core::v1::{
        Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HTTPGetAction, LifecycleHandler, ObjectFieldSelector,
        Pod, PodSpec, Probe, ResourceFieldSelector, ResourceRequirements, Volume,
    },
    apimachinery::pkg::api::resource,
};

use super::ephemeral;
use crate::quantity::Quantity;

/// The mode of files that come from the API: 0644.
const FILE_MODE: i32 = 0o644;

/// A pod: its spec, and requests where only limits are given (a template keeps that open).
pub(super) fn pod(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    self::spec(spec);
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for resources in containers.filter_map(|c| c.resources.as_mut()) {
        for (name, limit) in resources.limits.iter().flatten() {
            resources.requests.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
}

/// The spec of a pod or template.
pub(crate) fn spec(spec: &mut PodSpec) {
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    // A time that cannot be is taken for the shortest, as upstream does.
    let grace = spec.termination_grace_period_seconds.unwrap_or(30);
    spec.termination_grace_period_seconds = Some(if grace < 0 { 1 } else { grace });
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    #[cfg(feature = "mutate")]
    if crate::mutate::drops("io.k8s.api.core.v1.PodSpec", "serviceAccount") {
        spec.service_account = None;
    }
    // `serviceAccount` is the old name of `serviceAccountName`: both say the same.
    let account = [&spec.service_account_name, &spec.service_account].into_iter().flatten().find(|a| !a.is_empty());
    if let Some(account) = account.cloned() {
        spec.service_account_name = Some(account.clone());
        spec.service_account = Some(account);
    }
    let host_network = spec.host_network == Some(true);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        self::container(container, host_network);
    }
    spec.ephemeral_containers.iter_mut().flatten().for_each(ephemeral::default);
    spec.volumes.iter_mut().flatten().for_each(volume);
}

pub(super) fn container(container: &mut Container, host_network: bool) {
    let image = container.image.as_deref().unwrap_or_default();
    text(&mut container.image_pull_policy, if names_a_version(image) { "IfNotPresent" } else { "Always" });
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    resources(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
        if host_network {
            port.host_port = port.host_port.filter(|p| *p != 0).or(Some(port.container_port));
        }
    }
    let probes = [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten().for_each(handler);
    }
    for source in container.env.iter_mut().flatten().filter_map(|e| e.value_from.as_mut()) {
        source.field_ref.iter_mut().for_each(field_ref);
        source.resource_field_ref.iter_mut().for_each(resource_field_ref);
    }
}

/// Whether an image's reference has a digest, or a tag other than `latest`.
fn names_a_version(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    image.contains('@') || last.split_once(':').is_some_and(|(_, tag)| tag != "latest")
}

/// Amounts in their canonical form.
fn resources(resources: &mut ResourceRequirements) {
    for list in [&mut resources.limits, &mut resources.requests] {
        list.iter_mut().flatten().for_each(|(_, amount)| canonical(amount));
    }
}

/// What is no quantity is left for validation to refuse.
fn canonical(amount: &mut resource::Quantity) {
    if let Ok(quantity) = amount.0.parse::<Quantity>() {
        amount.0 = quantity.to_string();
    }
}

fn probe(probe: &mut Probe) {
    let numbers = [
        (&mut probe.timeout_seconds, 1),
        (&mut probe.period_seconds, 10),
        (&mut probe.success_threshold, 1),
        (&mut probe.failure_threshold, 3),
    ];
    for (number, default) in numbers {
        *number = number.filter(|n| *n != 0).or(Some(default));
    }
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    handler.http_get.iter_mut().for_each(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    text(&mut action.path, "/");
    text(&mut action.scheme, "HTTP");
}

fn field_ref(selector: &mut ObjectFieldSelector) {
    text(&mut selector.api_version, "v1");
}

fn resource_field_ref(selector: &mut ResourceFieldSelector) {
    canonical(selector.divisor.get_or_insert_with(|| resource::Quantity("0".to_owned())));
}

fn downward<'a>(items: impl IntoIterator<Item = &'a mut DownwardAPIVolumeFile>) {
    for item in items {
        item.field_ref.iter_mut().for_each(field_ref);
        item.resource_field_ref.iter_mut().for_each(resource_field_ref);
    }
}

fn volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|e| e.size_limit.as_mut()) {
        canonical(limit);
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        downward(source.items.iter_mut().flatten());
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        for source in source.sources.iter_mut().flatten() {
            if let Some(token) = &mut source.service_account_token {
                token.expiration_seconds.get_or_insert(3600);
            }
            if let Some(source) = &mut source.downward_api {
                downward(source.items.iter_mut().flatten());
            }
        }
    }
}

/// An empty word says nothing.
fn text(field: &mut Option<String>, default: &str) {
    if field.as_ref().is_none_or(String::is_empty) {
        *field = Some(default.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::typed::{decode, encode};

    #[test]
    fn a_bare_pod_gets_what_upstream_gives_it() {
        let mut pod = decode(&json!({"metadata": {"name": "a"}, "spec": {
            "serviceAccount": "robot",
            "containers": [{"name": "a", "image": "web:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1000m", "memory": 1024}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 0},
                "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}}))
        .unwrap();
        super::pod(&mut pod);
        let spec = &encode(&pod)["spec"];
        assert_eq!(
            spec,
            &json!({
                "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
                "terminationGracePeriodSeconds": 30, "enableServiceLinks": true, "securityContext": {},
                "serviceAccount": "robot", "serviceAccountName": "robot",
                "containers": [{"name": "a", "image": "web:1", "imagePullPolicy": "IfNotPresent",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1024"}, "requests": {"cpu": "1", "memory": "1024"}},
                    "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "0"}}}]}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
                    {"name": "p", "projected": {"defaultMode": 420,
                        "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}],
            })
        );
    }

    #[test]
    fn a_grace_below_zero_is_the_shortest() {
        let spec = json!({"terminationGracePeriodSeconds": -1, "containers": [{"name": "a", "image": "i"}]});
        let mut pod = decode(&json!({"metadata": {"name": "a"}, "spec": spec})).unwrap();
        super::pod(&mut pod);
        assert_eq!(encode(&pod)["spec"]["terminationGracePeriodSeconds"], 1);
    }

    #[test]
    fn only_a_moving_tag_is_always_pulled() {
        for (image, version) in [
            ("web", false),
            ("web:latest", false),
            ("host:5000/web", false),
            ("web:1", true),
            ("host:5000/web:1", true),
            ("web@sha256:0", true),
            ("web:latest@sha256:0", true),
        ] {
            assert_eq!(super::names_a_version(image), version, "{image}");
        }
    }
}
