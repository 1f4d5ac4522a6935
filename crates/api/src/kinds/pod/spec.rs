//! What the spec of a pod may say.

use std::{collections::HashSet, net::IpAddr};

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PodSpec, Toleration};

use super::{container, context, ephemeral, volume};
use crate::{
    faults::{Cause, Faults, Path},
    meta, names,
};

/// Longest list of names to try behind a short name, in names and in bytes (resolv.conf's own limits).
const SEARCHES: (usize, usize) = (32, 2048);
/// Most name servers (resolv.conf's own limit).
const NAMESERVERS: usize = 3;

/// Whose spec it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A pod's.
    Pod,
    /// A template's whose pods are to run for ever.
    Template,
}

/// Refuses what may not stand.
pub(crate) fn validate(spec: &PodSpec, owner: Owner, at: &Path, bad: &mut Faults) {
    let volumes = volume::validate_all(spec.volumes.as_deref().unwrap_or_default(), &at.field("volumes"), bad);
    containers(spec, &volumes, at, bad);
    match owner {
        Owner::Pod => {
            bad.one_of(at.field("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
            if let Some(seconds) = spec.active_deadline_seconds {
                bad.ranged(at.field("activeDeadlineSeconds"), seconds, 1..=i32::MAX.into());
            }
        }
        Owner::Template => {
            bad.one_of(at.field("restartPolicy"), spec.restart_policy.as_deref(), &["Always"]);
            if spec.ephemeral_containers.as_ref().is_some_and(|all| !all.is_empty()) {
                bad.forbidden(at.field("ephemeralContainers"), "may only be added to a pod that runs");
            }
            if spec.active_deadline_seconds.is_some() {
                bad.forbidden(at.field("activeDeadlineSeconds"), "pods that are replaced for ever cannot have one");
            }
        }
    }
    if let Some(seconds) = spec.termination_grace_period_seconds {
        bad.ranged(at.field("terminationGracePeriodSeconds"), seconds, 0..=i64::MAX);
    }
    ephemeral::validate(spec, at, &container::In { spec, volumes: &volumes, init: false }, bad);
    identity(spec, at, bad);
    dns(spec, at, bad);
    placement(spec, at, bad);
    if let Some(context) = &spec.security_context {
        context::pod(context, spec, &at.field("securityContext"), bad);
    }
}

fn containers(spec: &PodSpec, volumes: &HashSet<&str>, at: &Path, bad: &mut Faults) {
    if spec.containers.is_empty() {
        bad.required(at.field("containers"), "a pod has at least one container");
    }
    let mut seen = HashSet::new();
    let mut host_ports = HashSet::new();
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    let all = inits.iter().enumerate().map(|(i, c)| (c, at.field("initContainers").index(i), true));
    let all = all.chain(spec.containers.iter().enumerate().map(|(i, c)| (c, at.field("containers").index(i), false)));
    for (container, at, init) in all {
        if !container.name.is_empty() && !seen.insert(&container.name) {
            bad.duplicate(at.field("name"), format!("{:.80?}", container.name));
        }
        let pod = container::In { spec, volumes, init };
        container::validate(container, &pod, &at, bad);
        // An init container's port is free again when it has ended.
        if init && container.restart_policy.is_none() {
            continue;
        }
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = (number, port.protocol.as_deref().unwrap_or("TCP"), port.host_ip.as_deref().unwrap_or_default());
            if !host_ports.insert(key) {
                bad.duplicate(at.field("ports").index(index).field("hostPort"), format!("port {number} of the host"));
            }
        }
    }
}

fn identity(spec: &PodSpec, at: &Path, bad: &mut Faults) {
    let named: [(_, _, names::Rule); 4] = [
        ("hostname", &spec.hostname, names::label),
        ("serviceAccountName", &spec.service_account_name, names::subdomain),
        ("schedulerName", &spec.scheduler_name, names::subdomain),
        ("nodeName", &spec.node_name, names::subdomain),
    ];
    for (field, value, rule) in named {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            bad.ruled(at.field(field), value, rule);
        }
    }
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        bad.named(at.field("imagePullSecrets").index(index).field("name"), &secret.name, names::subdomain);
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = at.field("hostAliases").index(index);
        address(&alias.ip, at.field("ip"), bad);
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            bad.named(at.field("hostnames").index(index), name, names::subdomain);
        }
    }
}

pub(super) fn address(text: &str, at: Path, bad: &mut Faults) {
    bad.unless(
        text.parse::<IpAddr>().is_ok(),
        at,
        format!("{text:.80?} must be an IP address such as 10.0.0.1 or fd00::1"),
    );
}

fn dns(spec: &PodSpec, at: &Path, bad: &mut Faults) {
    let policies = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    bad.one_of(at.field("dnsPolicy"), spec.dns_policy.as_deref(), &policies);
    let config = spec.dns_config.as_ref();
    let servers = config.and_then(|c| c.nameservers.as_deref()).unwrap_or_default();
    let at = at.field("dnsConfig");
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        bad.required(at.field("nameservers"), "must be given when dnsPolicy is None");
    }
    if servers.len() > NAMESERVERS {
        bad.push(at.field("nameservers"), Cause::Invalid, format!("at most {NAMESERVERS} are used"));
    }
    for (index, server) in servers.iter().enumerate() {
        address(server, at.field("nameservers").index(index), bad);
    }
    let searches = config.and_then(|c| c.searches.as_deref()).unwrap_or_default();
    let bytes = searches.iter().map(|s| s.len() + 1).sum::<usize>();
    if searches.len() > SEARCHES.0 || bytes > SEARCHES.1 {
        let message = format!("at most {} names of {} bytes together", SEARCHES.0, SEARCHES.1);
        bad.push(at.field("searches"), Cause::Invalid, message);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let path = at.field("searches").index(index);
        bad.named(path, search.strip_suffix('.').unwrap_or(search), names::subdomain);
    }
    for (index, option) in config.and_then(|c| c.options.as_deref()).unwrap_or_default().iter().enumerate() {
        let at = at.field("options").index(index);
        let name = option.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            bad.required(at.field("name"), "must be given");
        }
        // These words become a line of a file.
        for (field, word) in [("name", name), ("value", option.value.as_deref().unwrap_or_default())] {
            bad.unless(word.chars().all(|c| c.is_ascii_graphic()), at.field(field), "must be one word");
        }
    }
}

fn placement(spec: &PodSpec, at: &Path, bad: &mut Faults) {
    meta::labels(spec.node_selector.iter().flatten(), &at.field("nodeSelector"), bad);
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        tolerates(toleration, &at.field("tolerations").index(index), bad);
    }
    let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) else { return };
    let at = at.field("affinity").field("nodeAffinity");
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let at = at.field("requiredDuringSchedulingIgnoredDuringExecution").field("nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            bad.required(at.clone(), "must have at least one term");
        }
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            node_term(term, &at.index(index), bad);
        }
    }
    for (index, preferred) in affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate()
    {
        let at = at.field("preferredDuringSchedulingIgnoredDuringExecution").index(index);
        bad.ranged(at.field("weight"), preferred.weight.into(), 1..=100);
        node_term(&preferred.preference, &at.field("preference"), bad);
    }
}

fn node_term(term: &NodeSelectorTerm, at: &Path, bad: &mut Faults) {
    for (index, label) in term.match_expressions.iter().flatten().enumerate() {
        let at = at.field("matchExpressions").index(index);
        bad.named(at.field("key"), &label.key, names::qualified);
        let values = label.values.as_deref().unwrap_or_default();
        let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        bad.one_of(at.field("operator"), Some(&label.operator), &operators);
        match (&*label.operator, values) {
            ("In" | "NotIn", []) => bad.required(at.field("values"), "must be given with In and NotIn"),
            ("Exists" | "DoesNotExist", [_, ..]) => {
                bad.forbidden(at.field("values"), "must not be given with Exists and DoesNotExist");
            }
            ("Gt" | "Lt", values) => {
                let one = matches!(values, [value] if value.parse::<i64>().is_ok());
                bad.unless(one, at.field("values"), "must be one integer with Gt and Lt");
            }
            _ => {}
        }
    }
    for (index, field) in term.match_fields.iter().flatten().enumerate() {
        let at = at.field("matchFields").index(index);
        bad.one_of(at.field("key"), Some(&field.key), &["metadata.name"]);
        bad.one_of(at.field("operator"), Some(&field.operator), &["In", "NotIn"]);
        let one = field.values.as_ref().is_some_and(|v| v.len() == 1);
        bad.unless(one, at.field("values"), "must be one name");
    }
}

fn tolerates(toleration: &Toleration, at: &Path, bad: &mut Faults) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, operator, value) = (text(&toleration.key), text(&toleration.operator), text(&toleration.value));
    let effect = toleration.effect.as_deref().filter(|e| !e.is_empty());
    bad.one_of(at.field("operator"), Some(&operator), &["", "Equal", "Exists"]);
    bad.one_of(at.field("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    if key.is_empty() {
        bad.unless(operator == "Exists", at.field("operator"), "must be Exists where the key is empty");
    } else {
        bad.ruled(at.field("key"), &key, names::qualified);
    }
    if operator == "Exists" {
        bad.unless(value.is_empty(), at.field("value"), "must be empty with Exists");
    } else {
        bad.ruled(at.field("value"), &value, names::label_value);
    }
    if toleration.toleration_seconds.is_some() && effect != Some("NoExecute") {
        bad.push(at.field("effect"), Cause::Invalid, "must be NoExecute where tolerationSeconds is given");
    }
}
