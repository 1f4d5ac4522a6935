//! What probes and lifecycle hooks of a container may say.

use k8s_openapi::{
    api::core::v1::{Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::container::In;
use crate::{
    faults::{Cause, Faults, Path},
    names,
};

pub(super) fn of_container(container: &Container, pod: &In<'_>, at: &Path, bad: &mut Faults) {
    let plain_init = pod.init && container.restart_policy.as_deref() != Some("Always");
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (field, probe) in probes {
        let Some(probe) = probe else { continue };
        let at = at.field(field);
        if plain_init {
            bad.forbidden(at, "an init container has none unless its restartPolicy is Always");
        } else {
            self::probe(probe, field, &at, bad);
        }
    }
    let Some(lifecycle) = &container.lifecycle else { return };
    let at = at.field("lifecycle");
    if plain_init {
        return bad.forbidden(at, "an init container has none unless its restartPolicy is Always");
    }
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30).max(0);
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            handler(hook, grace, &at.field(field), bad);
        }
    }
}

fn probe(probe: &Probe, field: &str, at: &Path, bad: &mut Faults) {
    let handlers = [probe.exec.is_some(), probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some()];
    one_handler(&handlers, "exec, httpGet, tcpSocket or grpc", at, bad);
    actions(probe.exec.as_ref(), probe.http_get.as_ref(), probe.tcp_socket.as_ref(), at, bad);
    if let Some(GRPCAction { port, .. }) = &probe.grpc {
        bad.ranged(at.field("grpc").field("port"), (*port).into(), 1..=65535);
    }
    for (name, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(number) = number {
            bad.ranged(at.field(name), number.into(), 0..=i64::MAX);
        }
    }
    if field != "readinessProbe" && probe.success_threshold.is_some_and(|n| n > 1) {
        bad.push(at.field("successThreshold"), Cause::Invalid, "must be 1: only readiness is won back by degrees");
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        let at = at.field("terminationGracePeriodSeconds");
        if field == "readinessProbe" {
            bad.forbidden(at, "a readiness probe ends nothing");
        } else {
            bad.ranged(at, seconds, 1..=i64::MAX);
        }
    }
}

fn handler(hook: &LifecycleHandler, grace: i64, at: &Path, bad: &mut Faults) {
    let handlers = [hook.exec.is_some(), hook.http_get.is_some(), hook.tcp_socket.is_some(), hook.sleep.is_some()];
    one_handler(&handlers, "exec, httpGet, sleep or tcpSocket", at, bad);
    actions(hook.exec.as_ref(), hook.http_get.as_ref(), hook.tcp_socket.as_ref(), at, bad);
    if let Some(sleep) = &hook.sleep {
        bad.ranged(at.field("sleep").field("seconds"), sleep.seconds, 0..=grace);
    }
}

fn one_handler(handlers: &[bool], which: &str, at: &Path, bad: &mut Faults) {
    match handlers.iter().filter(|given| **given).count() {
        1 => {}
        0 => bad.required(at.clone(), format!("must have {which}")),
        _ => bad.forbidden(at.clone(), format!("must have only one of {which}")),
    }
}

fn actions(
    exec: Option<&ExecAction>,
    http: Option<&HTTPGetAction>,
    tcp: Option<&TCPSocketAction>,
    at: &Path,
    bad: &mut Faults,
) {
    if let Some(exec) = exec {
        let at = at.field("exec").field("command");
        let command = exec.command.as_deref().unwrap_or_default();
        if command.is_empty() {
            bad.required(at, "must be given");
        } else {
            bad.unless(command.iter().all(|w| !w.contains('\0')), at, "must not contain NUL");
        }
    }
    if let Some(http) = http {
        let at = at.field("httpGet");
        port(&http.port, at.field("port"), bad);
        bad.one_of(at.field("scheme"), http.scheme.as_deref(), &["HTTP", "HTTPS"]);
        host(http.host.as_deref(), &at, bad);
        let path = http.path.as_deref().unwrap_or("/");
        bad.unless(!path.chars().any(|c| c.is_control() || c == ' '), at.field("path"), "must not contain blanks");
        for (index, header) in http.http_headers.iter().flatten().enumerate() {
            let at = at.field("httpHeaders").index(index);
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let good = !header.name.is_empty() && header.name.bytes().all(token);
            bad.unless(good, at.field("name"), format!("{:.80?} must be the name of an HTTP header", header.name));
            // A line break would begin another header.
            let good = !header.value.chars().any(|c| c.is_control() && c != '\t');
            bad.unless(good, at.field("value"), "must not contain control characters");
        }
    }
    if let Some(tcp) = tcp {
        let at = at.field("tcpSocket");
        port(&tcp.port, at.field("port"), bad);
        host(tcp.host.as_deref(), &at, bad);
    }
}

fn host(host: Option<&str>, at: &Path, bad: &mut Faults) {
    if let Some(host) = host.filter(|h| !h.is_empty() && h.parse::<std::net::IpAddr>().is_err()) {
        bad.ruled(at.field("host"), host, names::subdomain);
    }
}

fn port(port: &IntOrString, at: Path, bad: &mut Faults) {
    match port {
        IntOrString::Int(number) => bad.ranged(at, (*number).into(), 1..=65535),
        IntOrString::String(name) => bad.named(at, name, names::port),
    }
}
