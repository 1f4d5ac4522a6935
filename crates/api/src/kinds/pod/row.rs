//! A pod in one line, with the words that `kubectl get pods` has for its state.

use jiff::Timestamp;
use serde_json::Value;

use crate::columns::{NONE, age, items};

/// What the columns READY, STATUS and RESTARTS are made of.
pub(super) struct Row<'a> {
    ready: usize,
    total: usize,
    pub(super) reason: String,
    restarts: i64,
    last_restart: Option<&'a Value>,
}

impl Row<'_> {
    pub(super) fn ready(&self) -> String {
        format!("{}/{}", self.ready, self.total)
    }

    pub(super) fn restarts(&self, now: Timestamp) -> String {
        match self.last_restart {
            Some(at) if self.restarts != 0 => format!("{} ({} ago)", self.restarts, age(Some(at), now)),
            _ => self.restarts.to_string(),
        }
    }
}

impl<'a> Row<'a> {
    fn count_restarts(&mut self, status: &'a Value) {
        self.restarts += status["restartCount"].as_i64().unwrap_or(0);
        // Timestamps in RFC 3339 with one zone sort as text.
        let at = status.pointer("/lastState/terminated/finishedAt").filter(|v| v.is_string());
        if at.and_then(Value::as_str) > self.last_restart.and_then(Value::as_str) {
            self.last_restart = at;
        }
    }
}

pub(super) fn of(pod: &Value) -> Row<'_> {
    let status = &pod["status"];
    let word = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let phase = status["phase"].as_str().unwrap_or_default();
    let inits = items(pod, "/spec/initContainers");
    let sidecar = |name: &Value| inits.iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
    let mut row = Row {
        ready: 0,
        total: items(pod, "/spec/containers").len() + inits.iter().filter(|c| sidecar(&c["name"])).count(),
        reason: word(&status["reason"]).unwrap_or_else(|| phase.to_owned()),
        restarts: 0,
        last_restart: None,
    };
    let condition = |kind: &str| items(status, "/conditions").iter().find(|c| c["type"] == kind);
    if condition("PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated") {
        row.reason = "SchedulingGated".to_owned();
    }

    let init_statuses = items(status, "/initContainerStatuses");
    let mut initializing = false;
    for (at, container) in init_statuses.iter().enumerate() {
        row.count_restarts(container);
        let (terminated, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if terminated.is_object() && terminated["exitCode"] == 0 {
            continue;
        }
        if sidecar(&container["name"]) && container["started"] == true {
            row.ready += usize::from(container["ready"] == true);
            continue;
        }
        row.reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else {
            match word(&waiting["reason"]).filter(|r| r != "PodInitializing") {
                Some(reason) => format!("Init:{reason}"),
                None => format!("Init:{at}/{}", inits.len()),
            }
        };
        initializing = true;
        break;
    }

    if !initializing || condition("Initialized").is_some_and(|c| c["status"] == "True") {
        // Once past the init containers, only sidecars' restarts still matter.
        (row.restarts, row.last_restart) = (0, None);
        init_statuses.iter().filter(|c| sidecar(&c["name"])).for_each(|c| row.count_restarts(c));
        let mut running = false;
        for container in items(status, "/containerStatuses").iter().rev() {
            row.count_restarts(container);
            let state = &container["state"];
            if let Some(reason) = word(&state["waiting"]["reason"]) {
                row.reason = reason;
            } else if state["terminated"].is_object() {
                row.reason = ended(&state["terminated"]);
            } else if container["ready"] == true && state["running"].is_object() {
                running = true;
                row.ready += 1;
            }
        }
        if row.reason == "Completed" && running {
            let ready = condition("Ready").is_some_and(|c| c["status"] == "True");
            row.reason = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    if pod["metadata"]["deletionTimestamp"].is_string() {
        if status["reason"] == "NodeLost" {
            row.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Failed" | "Succeeded") {
            row.reason = "Terminating".to_owned();
        }
    }
    row
}

/// How a container ended: its reason, or else its signal or exit code.
fn ended(terminated: &Value) -> String {
    match (terminated["reason"].as_str(), terminated["signal"].as_i64()) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", terminated["exitCode"].as_i64().unwrap_or(0)),
    }
}

pub(super) fn gates(pod: &Value) -> String {
    let gates = items(pod, "/spec/readinessGates");
    let conditions = items(pod, "/status/conditions");
    let holds = |gate: &&Value| conditions.iter().any(|c| c["type"] == gate["conditionType"] && c["status"] == "True");
    match gates.len() {
        0 => NONE.to_owned(),
        total => format!("{}/{total}", gates.iter().filter(holds).count()),
    }
}
