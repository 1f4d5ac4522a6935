//! Objects that tests make, and what the API says of them.

use serde_json::{Value, json};

use crate::{Instance, eventually, registry};

/// A pod of one busybox container that runs a script and needs no time to end.
pub fn pod(name: &str, script: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "main", "image": format!("{}/busybox:1", registry()), "command": ["sh", "-c", script],
        }]},
    })
}

/// A Deployment `web` in YAML whose pods say a greeting and need no time to end.
pub fn web(replicas: u32, greeting: &str) -> String {
    let image = format!("{}/busybox:1", registry());
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, labels: {{app: web}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: {image}
        command: [sh, -c, \"echo {greeting}; exec sleep 1000\"]
        resources: {{requests: {{memory: 8Mi}}}}
        env: [{{name: GREETING, value: {greeting}}}]
"
    )
}

/// A ConfigMap with one key.
pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": name}})
}

impl Instance {
    /// Applies objects by our command line.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        self.rast().input(documents(objects)).ok(&["apply", "-f", "-"]);
    }

    /// An object, `KIND/NAME`; null when it does not exist.
    #[track_caller]
    pub fn get(&self, target: &str) -> Value {
        let answer = self.rast().run(&["get", target, "-o", "json"]);
        match answer.code {
            0 => serde_json::from_str(&answer.out).expect("JSON"),
            4 => Value::Null,
            code => panic!("{}: {code}: {}", answer.command, answer.err),
        }
    }

    /// Waits until a pod is ready; gives it.
    #[track_caller]
    pub fn ready(&self, name: &str) -> Value {
        eventually(&format!("{name} is ready"), || {
            let pod = self.get(&format!("pod/{name}"));
            let ready = container(&pod)["ready"] == true;
            if ready { Ok(pod) } else { Err(pod["status"].to_string()) }
        })
    }
}

/// Objects as documents of one file.
pub fn documents(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// The status of a pod's first container.
pub fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}
