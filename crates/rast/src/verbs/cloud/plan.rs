//! `rast cloud plan`: what up would make, what it counts, and what would go wrong.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use cloud::{
    Mark,
    plan::{self, Act},
    rights,
    seen::{self, Seen},
};
use serde_json::json;

use super::{Which, file, own};
use crate::{
    cli::Context,
    exit::{Exit, Failure},
    output::{self, Output},
};

/// Show every object that up would make, what it counts against the quotas, and what would fail
#[derive(Args)]
pub struct Plan {
    /// The cluster's name, when it is there already: what its API wants by now, else what was made last
    #[arg(value_name = "NAME", value_parser = super::name, required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// The file of the Cluster
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Plan {
    /// Runs the verb. Changes nothing; fails when up would.
    pub async fn run(self, context: &Context, which: &Which) -> Result<()> {
        let (cluster, local, mut seen, session) = match &self.name {
            None => {
                let (cluster, dir) = file::read(&self.file)?.only_cluster()?;
                let (local, session) = futures::join!(file::local_image(&cluster, &dir), which.session());
                let (local, session) = (local?, session?);
                let seen = seen::read(&session, cluster.name()).await?;
                (cluster, local, seen, session)
            }
            Some(name) => {
                let session = which.session().await?;
                let seen = seen::read(&session, name).await?;
                let made = plan::journaled(&seen).ok_or_else(|| super::absent(&seen, name))?;
                (own::wanted(context, &made).await, None, seen, session)
            }
        };
        seen.denied = rights::denied(&session, &seen).await?;
        let plan = plan::plan(&cluster, local.as_ref(), &seen);
        match self.output {
            Output::Table | Output::Wide => {
                show(&plan, &seen)?;
                output::line(format!("\n({} API calls)", session.calls()))?;
            }
            form => output::object(&as_json(&plan, &seen), form)?,
        }
        match plan.holds() {
            true => Ok(()),
            false => Err(refusal()),
        }
    }
}

/// What a plan that does not hold ends with.
pub fn refusal() -> anyhow::Error {
    Failure::new(Exit::Invalid, "it would not succeed as it stands; nothing was changed").into()
}

/// Prints a plan.
pub fn show(plan: &plan::Plan, seen: &Seen) -> Result<()> {
    let rows: Vec<Vec<String>> = plan
        .items
        .iter()
        .map(|item| {
            let counts = item.counts.iter().map(|(quota, amount)| format!("{amount} {quota}"));
            let counts = counts.collect::<Vec<_>>().join(", ");
            vec![act(item.act).into(), item.kind.into(), item.name.clone(), counts]
        })
        .collect();
    output::table(&["".into(), "KIND".into(), "NAME".into(), "COUNTS".into()], &rows)?;
    if let Some(flavor) = &plan.choices.flavor {
        let (name, vcpus, ram) = (&flavor.name, flavor.vcpus, flavor.ram);
        output::line(format!("\nflavor {name}: {vcpus} CPU, {ram} MiB, {} GiB", flavor.disk))?;
    }
    let rows: Vec<Vec<String>> = plan
        .needs()
        .into_iter()
        .map(|(quota, need)| {
            let room = seen.rooms.get(&quota);
            let limit = room.map_or("?".into(), |r| r.limit.map_or("unlimited".into(), |l| l.to_string()));
            let used = room.map_or("?".into(), |r| r.used.to_string());
            vec![quota.to_string(), need.to_string(), used, limit]
        })
        .collect();
    if !rows.is_empty() {
        output::line("")?;
        output::table(&["QUOTA".into(), "NEEDED".into(), "USED".into(), "LIMIT".into()], &rows)?;
    }
    tell_problems(plan)
}

/// Prints what would go wrong.
pub fn tell_problems(plan: &plan::Plan) -> Result<()> {
    for problem in &plan.problems {
        let sign = if problem.stops { "!" } else { "note:" };
        output::line(format!("{sign} {}; {}", problem.what, problem.advice))?;
    }
    Ok(())
}

fn act(act: Act) -> &'static str {
    match act {
        Act::Make => "+ make",
        Act::Keep => "= keep",
        Act::Repair => "+ make again",
        Act::Grow => "~ grow",
        Act::Resize => "~ resize",
        Act::Replace => "~ replace",
    }
}

fn as_json(plan: &plan::Plan, seen: &Seen) -> serde_json::Value {
    let counts = |amounts: &cloud::Amounts| -> serde_json::Map<String, serde_json::Value> {
        amounts.iter().map(|(quota, amount)| (quota.to_string(), json!(amount))).collect()
    };
    let items = plan.items.iter().map(|i| {
        let act = act(i.act).split_once(' ').map_or("", |(_, word)| word);
        json!({"act": act, "kind": i.kind, "name": i.name, "counts": counts(&i.counts)})
    });
    let problems = plan.problems.iter().map(|p| json!({"stops": p.stops, "what": p.what, "advice": p.advice}));
    json!({
        "items": items.collect::<Vec<_>>(),
        "needs": counts(&plan.needs()),
        "problems": problems.collect::<Vec<_>>(),
        "uid": seen.mark().map(|Mark { uid, .. }| uid),
    })
}
