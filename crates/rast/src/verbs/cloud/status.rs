//! `rast cloud status`: stack, server, volume, address, API and pods in one view.

use std::time::Duration;

use anyhow::Result;
use apiserver::pki::Validity;
use clap::Args;
use cloud::{
    Service,
    seen::{self, Made, Seen},
};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use super::{
    Which,
    keep::{self, Keep},
    own, trust,
};
use crate::{
    cli::Context,
    cluster::{Cluster, Query},
    exit::{Exit, Failure, words},
    output,
};

/// How long the API may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Show a cluster: its stacks, server, volume, address, API, nodes and pods
#[derive(Args)]
pub struct Status {
    /// The cluster's name
    #[arg(value_parser = super::name)]
    name: String,
}

impl Status {
    /// Runs the verb; fails when a part is missing or not well.
    pub async fn run(self, context: &Context, which: &Which) -> Result<()> {
        let session = which.session().await?;
        let seen = seen::read(&session, &self.name).await?;
        let mark = super::mark(&seen, &self.name)?;
        let mut rows = objects(&seen);
        if let Some(admission) = Keep::of(&mark)?.admission()? {
            rows.extend(Validity::of(&admission.certificate).map(|v| certificate(&self.name, v, Timestamp::now())));
        }
        let path = keep::kubeconfig_path(context, &self.name)?;
        if path.exists() {
            let within = tokio::time::timeout(PATIENCE, inside(&trust::at(context, &path), &self.name)).await;
            match within {
                Ok(Ok(inner)) => rows.extend(inner),
                Ok(Err(error)) => rows.push(row("API", "-", false, words(&error))),
                Err(_) => rows.push(row("API", "-", false, "does not answer".into())),
            }
        } else {
            rows.push(row("API", "-", true, format!("no kubeconfig here: rast cloud kubeconfig {}", self.name)));
        }
        let shown: Vec<Vec<String>> = rows.iter().map(|r| r.cells.to_vec()).collect();
        output::table(&["KIND".into(), "NAME".into(), "STATE".into()], &shown)?;
        match rows.iter().all(|r| r.well) {
            true => Ok(()),
            false => Err(Failure::new(Exit::Failed, cure(&self.name, &seen)).into()),
        }
    }
}

/// What makes a cluster well that is not.
fn cure(name: &str, seen: &Seen) -> String {
    match [&seen.state, &seen.machines].into_iter().flatten().any(|made| made.stack.is_going()) {
        true => format!("it is being removed; rast cloud down {name} finishes that"),
        false => format!("not everything is well; rast cloud up {name} makes it whole"),
    }
}

struct Row {
    cells: [String; 3],
    well: bool,
}

fn row(kind: &str, name: &str, well: bool, state: String) -> Row {
    Row { cells: [kind.to_owned(), name.to_owned(), state], well }
}

/// The cloud's side.
fn objects(seen: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    for made in [&seen.state, &seen.machines].into_iter().flatten() {
        let stack = &made.stack;
        rows.push(row("stack", &stack.name, !stack.has_failed(), stack.status.clone()));
    }
    if seen.machines.is_none() {
        rows.push(row("stack", "machines", false, "there is none".into()));
    }
    for service in [Service::Compute, Service::BlockStorage, Service::Network] {
        let silence = seen.silence(service);
        rows.extend(silence.map(|why| row("service", &service.to_string(), false, format!("does not answer: {why}"))));
    }
    let object = |made: &Option<Made>, name: &str| made.as_ref().and_then(|m| m.object(name)).map(str::to_owned);
    let absent = |service| if seen.answers(service) { "gone" } else { "not known" };
    if let Some(id) = object(&seen.machines, "server_0") {
        let found = seen.servers.iter().find(|s| s.id == id);
        let (name, state) = found.map_or((id.as_str(), absent(Service::Compute).to_owned()), |s| {
            let fault = if s.fault.is_empty() { String::new() } else { format!(": {}", s.fault) };
            (s.name.as_str(), s.status.clone() + &fault)
        });
        rows.push(row("server", name, state == "ACTIVE", state.clone()));
    }
    if let Some(id) = object(&seen.state, "state") {
        let state = seen.volumes.iter().find(|v| v.id == id).map_or(absent(Service::BlockStorage), |v| &v.status);
        rows.push(row("volume", &id, state == "in-use" || seen.machines.is_none(), state.to_owned()));
    }
    if let Some(id) = object(&seen.state, "address") {
        let found = seen.addresses.iter().find(|a| a.id == id);
        let leads = found.is_some_and(|a| a.port.is_some());
        let state = match found {
            None => absent(Service::Network),
            Some(_) if leads => "leads to the machine",
            Some(_) => "leads nowhere",
        };
        let ip = found.map_or(id.as_str(), |a| a.ip.as_str());
        rows.push(row("floating IP", ip, leads || seen.machines.is_none(), state.into()));
    }
    rows
}

/// The certificate that was given to us.
fn certificate(name: &str, validity: Validity, now: Timestamp) -> Row {
    let until = validity.until.to_zoned(TimeZone::UTC).date();
    let advice = if validity.is_due(now) { format!("; rast cloud kubeconfig {name} renews it") } else { String::new() };
    row("certificate", "admin", validity.holds(now), format!("good until {until}{advice}"))
}

/// The cluster's side.
async fn inside(context: &Context, name: &str) -> Result<Vec<Row>> {
    let cluster = Cluster::connect(context).await?;
    let version = cluster.get("/version", Query::default()).await?;
    let mut rows = vec![row("API", "-", true, format!("answers ({})", text(&version["gitVersion"])))];
    // A machine that is older than Clusters in the API says nothing of its own.
    if let Some(kept) = own::kept(&cluster, name).await? {
        let state = if kept.awaits_up() {
            format!("was changed in the API: rast cloud up {name} makes that")
        } else {
            "as wanted".into()
        };
        rows.push(row("cluster", name, true, state));
    }
    let nodes = cluster.get("/api/v1/nodes", Query::default()).await?;
    for node in items(&nodes) {
        let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
        let well = ready.is_some_and(|c| c["status"] == "True");
        let state = if well {
            "Ready".into()
        } else {
            format!("not ready: {}", text(&ready.unwrap_or(&Value::Null)["message"]))
        };
        rows.push(row("node", &text(&node["metadata"]["name"]), well, state));
    }
    let pods = cluster.get("/api/v1/pods", Query::default()).await?;
    for pod in items(&pods) {
        let phase = text(&pod["status"]["phase"]);
        let name = format!("{}/{}", text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
        rows.push(row("pod", &name, phase == "Running" || phase == "Succeeded", phase));
    }
    Ok(rows)
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use cloud::heat::{Resource, Stack};

    use super::*;

    fn made(name: &str, objects: &[&str]) -> Made {
        let stack = Stack { name: name.into(), status: "CREATE_COMPLETE".into(), ..Stack::default() };
        let resource = |object: &&str| Resource { name: (*object).into(), object: "id".into(), ..Resource::default() };
        Made { stack, resources: objects.iter().map(resource).collect() }
    }

    #[test]
    fn what_is_half_removed_is_not_to_be_made_whole() {
        let mut seen = Seen { machines: Some(made("rastos-demo", &[])), ..Seen::default() };
        assert!(cure("demo", &seen).ends_with("rast cloud up demo makes it whole"));
        seen.machines.as_mut().unwrap().stack.status = "DELETE_FAILED".into();
        assert!(cure("demo", &seen).ends_with("rast cloud down demo finishes that"));
    }

    #[test]
    fn what_a_silent_service_holds_is_not_said_to_be_gone() {
        let state = Some(made("rastos-demo-state", &["state", "address"]));
        let mut seen = Seen { state, machines: Some(made("rastos-demo", &["server_0"])), ..Seen::default() };
        let shown = |seen: &Seen| {
            let rows = objects(seen).into_iter().filter(|r| r.cells[0] != "stack");
            rows.map(|r| (r.well, r.cells.join(" "))).collect::<Vec<_>>()
        };
        let row = |text: &str| (false, text.to_owned());
        assert_eq!(shown(&seen), [row("server id gone"), row("volume id gone"), row("floating IP id gone")]);
        seen.lacking = vec![(Service::Compute, "503".into()), (Service::Network, "504".into())];
        assert_eq!(
            shown(&seen),
            [
                row("service compute (Nova) does not answer: 503"),
                row("service network (Neutron) does not answer: 504"),
                row("server id not known"),
                row("volume id gone"),
                row("floating IP id not known"),
            ]
        );
    }
}
