//! What clients ask of a node: logs, exec, attach, port-forward, statistics. The API server calls this in process and
//! has authenticated and authorised the request.

use std::{collections::HashMap, time::Duration};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    agent::{Agent, Scene},
    decide, exec, logs, pod, proxy, spec,
};

/// How often a followed log is looked at: soon after a line, then less often.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(400));

impl Agent {
    /// The node's paths, as kubelet has them. `uid` in the query narrows a name to one pod.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/pods", get(pods))
            .route("/stats/summary", get(summary))
            .route("/metrics", get(metrics))
            .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
            .route("/exec/{namespace}/{pod}/{container}", get(exec::exec).post(exec::exec))
            .route("/attach/{namespace}/{pod}/{container}", get(exec::attach).post(exec::attach))
            .route("/portForward/{namespace}/{pod}", get(exec::port_forward).post(exec::port_forward))
            .route("/proxy/{namespace}/{pod}/{port}/", any(proxy::proxy))
            .route("/proxy/{namespace}/{pod}/{port}/{*path}", any(proxy::proxy))
            .with_state(self.clone())
    }

    /// The pod that a request means.
    pub(crate) fn find_pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Result<Scene, Refusal> {
        let means = |p: &Pod| {
            pod::namespace(p) == namespace && pod::name(p) == name && uid.is_none_or(|uid| pod::uid(p) == uid)
        };
        let found = self.scenes().into_iter().find(|s| means(&s.want));
        found.ok_or_else(|| Refusal(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found on this node")))
    }
}

/// An answer that is no success, in plain words.
pub(crate) struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1).into_response()
    }
}

pub(crate) fn bad(message: String) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, message)
}

pub(crate) type Words = HashMap<String, String>;

fn query(words: &Words) -> Result<logs::Query, Refusal> {
    let flag = |name: &str| words.get(name).is_some_and(|v| matches!(v.as_str(), "true" | "1"));
    let number = |name: &str| -> Result<Option<i64>, Refusal> {
        let Some(text) = words.get(name) else { return Ok(None) };
        let n = text.parse::<i64>().ok().filter(|n| *n >= 0);
        n.map(Some).ok_or_else(|| bad(format!("{name}: {text:?} is not a number of zero or more")))
    };
    let since = match (number("sinceSeconds")?, words.get("sinceTime")) {
        (Some(_), Some(_)) => return Err(bad("sinceSeconds and sinceTime exclude each other".into())),
        (Some(n), None) => Timestamp::now().checked_sub(pod::seconds(n)).ok(),
        (None, Some(text)) => Some(text.parse().map_err(|e| bad(format!("sinceTime: {e}")))?),
        (None, None) => None,
    };
    let stream = match words.get("stream").map(|s| s.to_lowercase()) {
        Some(s) if s == "stdout" || s == "stderr" => Some(s.into_bytes()),
        Some(s) if s != "all" => return Err(bad(format!("stream: {s:?} is not All, Stdout or Stderr"))),
        _ => None,
    };
    Ok(logs::Query {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        since,
        tail: number("tailLines")?.and_then(|n| usize::try_from(n).ok()),
        limit: number("limitBytes")?.and_then(|n| u64::try_from(n).ok()),
        stream,
    })
}

async fn container_logs(
    State(agent): State<Agent>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(words): Query<Words>,
    request: Request,
) -> Result<Response, Refusal> {
    let scene = agent.find_pod(&namespace, &name, words.get("uid").map(String::as_str))?;
    let query = query(&words)?;
    let (role, _) = pod::container(&scene.want, &container)
        .ok_or_else(|| bad(format!("container {container} is not valid for pod {name}")))?;
    let _ = role;
    let current = scene.remains.get(&container).map_or(0, |r| r.0);
    let previous = words.get("previous").is_some_and(|v| v == "true");
    let attempt = match (previous, current) {
        (false, n) => n,
        (true, n) if n > 0 => n - 1,
        (true, _) => {
            return Err(bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found")));
        }
    };
    let log = spec::log(&agent.0.config.logs, &scene.want, &container, attempt);
    if !log.exists() && !query.follow {
        let known = agent.with(scene.uid(), |e| e.seen.container(&container).clone());
        let waiting = known.is_some_and(|s| matches!(s.state, crate::observe::State::Waiting));
        if waiting && current == 0 {
            let text = format!("container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating");
            return Err(bad(text));
        }
    }
    let follow = query.follow;
    let reader = tokio::task::spawn_blocking(move || logs::Reader::open(&log, query)).await;
    let reader = reader.map_err(|e| bad(e.to_string()))?.map_err(|e| bad(format!("log of {container}: {e}")))?;
    let uid = scene.uid().to_string();
    let log = futures::stream::unfold((Some(reader), POLL.0), move |(reader, wait)| {
        let (agent, uid, container) = (agent.clone(), uid.clone(), container.clone());
        async move {
            let (mut reader, mut wait) = (reader?, wait);
            loop {
                // Asked before the read: what is written until the end is read after it.
                let alive = follow
                    && agent
                        .with(&uid, |e| {
                            decide::alive(&e.seen, &container) && e.seen.container(&container).attempt == attempt
                        })
                        .unwrap_or(false);
                let read = tokio::task::spawn_blocking(move || {
                    let mut piece = vec![];
                    while piece.len() < 64 * 1024 {
                        match reader.read() {
                            Ok(Some(more)) => piece.extend(more),
                            Ok(None) | Err(_) => break,
                        }
                    }
                    (reader, piece)
                });
                let (back, piece) = read.await.ok()?;
                if !piece.is_empty() {
                    return Some((Bytes::from(piece), (Some(back), POLL.0)));
                }
                if !alive || back.done() {
                    return None;
                }
                reader = back;
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(POLL.1);
            }
        }
    })
    .boxed();
    Ok(stream::tell(request, log))
}

async fn pods(State(agent): State<Agent>) -> axum::Json<Value> {
    let items: Vec<_> = agent.scenes().into_iter().map(|s| s.want).collect();
    let items: Vec<_> = items.iter().map(|p| serde_json::to_value(&**p).unwrap_or_default()).collect();
    axum::Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// CPU and memory of every container: name of pod and container, then the figures.
async fn usage(agent: &Agent) -> Vec<(Scene, String, runtime::Stats)> {
    let mut all = vec![];
    for scene in agent.scenes() {
        for (name, (attempt, _)) in scene.remains.iter() {
            if let Ok(stats) = agent.0.runtime.stats(&pod::id(scene.uid(), name, *attempt)).await {
                all.push((scene.clone(), name.clone(), stats));
            }
        }
    }
    all
}

async fn summary(State(agent): State<Agent>) -> axum::Json<Value> {
    let now = Timestamp::now().to_string();
    let mut pods: HashMap<String, Value> = HashMap::new();
    for (scene, name, s) in usage(&agent).await {
        let p = &scene.want;
        let entry = pods.entry(scene.uid().to_string()).or_insert_with(|| {
            json!({"podRef": {"name": pod::name(p), "namespace": pod::namespace(p), "uid": pod::uid(p)}, "containers": []})
        });
        if let Some(list) = entry["containers"].as_array_mut() {
            list.push(json!({"name": name, "cpu": {"time": now, "usageCoreNanoSeconds": s.cpu_ns},
                "memory": {"time": now, "workingSetBytes": s.memory, "usageBytes": s.memory}}));
        }
    }
    let pods: Vec<_> = pods.into_values().collect();
    axum::Json(json!({"node": {"nodeName": agent.0.config.node_name}, "pods": pods}))
}

async fn metrics(State(agent): State<Agent>) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    let all = usage(&agent).await;
    for (metric, kind, value) in [
        ("container_cpu_usage_seconds_total", "counter", (|s| s.cpu_ns as f64 / 1e9) as fn(&runtime::Stats) -> f64),
        ("container_memory_working_set_bytes", "gauge", |s| s.memory as f64),
        ("container_processes", "gauge", |s| s.pids as f64),
    ] {
        let _ = writeln!(out, "# TYPE {metric} {kind}");
        for (scene, name, stats) in &all {
            let (ns, p) = (pod::namespace(&scene.want), pod::name(&scene.want));
            let _ = writeln!(out, "{metric}{{namespace=\"{ns}\",pod=\"{p}\",container=\"{name}\"}} {}", value(stats));
        }
    }
    out
}
