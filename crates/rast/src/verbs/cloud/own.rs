//! The Cluster in its own API: the truth of what is wanted, beside Heat's copy of what was made last.
//!
//! Who changes its spec there has the next `rast cloud up NAME` make it; a file that is given to `up` overrides both.

use std::time::Duration;

use anyhow::Result;
use api::rastos::{
    self,
    cluster::{MachineStatus, Status},
};
use cloud::{Mark, template, up::Ready};
use serde_json::{Value, json};

use super::{keep, trust};
use crate::{
    cli::Context,
    cluster::{Cluster, Query, Refused},
    exit::{Exit, Failure},
    output,
    target::Address,
    verbs::apply::current,
};

/// How long an API may take to say what is wanted by now.
const PATIENCE: Duration = Duration::from_secs(5);

/// The cluster as its API keeps it; `None` before the first `up` has written it.
pub async fn kept(at: &Cluster, name: &str) -> Result<Option<rastos::Cluster>> {
    let Some(object) = current(at, &address(at, name)?).await? else { return Ok(None) };
    let read = rastos::Cluster::read(&object).map_err(|faults| {
        let faults: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        Failure::new(Exit::Invalid, format!("cluster/{name} as its API keeps it: {}", faults.join("; ")))
    });
    Ok(Some(read?))
}

/// What is wanted by now, when it is not what was just made.
fn changed(made: &rastos::Cluster, kept: Option<&rastos::Cluster>) -> Option<rastos::Cluster> {
    kept.filter(|kept| kept.awaits_up()).map(rastos::Cluster::wish).filter(|wish| *wish != made.wish())
}

/// What is wanted of a cluster that was made, as far as its API says so in time.
pub async fn wanted(context: &Context, made: &rastos::Cluster) -> rastos::Cluster {
    let asked = async {
        let path = keep::kubeconfig_path(context, made.name())?;
        kept(&Cluster::connect(&trust::at(context, &path)).await?, made.name()).await
    };
    let kept = tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok).flatten();
    changed(made, kept.as_ref()).unwrap_or_else(|| made.clone())
}

/// Writes what was made into the API; or gives what is wanted by now instead, when somebody has changed it there and no
/// file overrides that.
pub async fn settle(
    at: &Cluster,
    project: &str,
    made: &rastos::Cluster,
    ready: &Ready,
    overrides: bool,
) -> Result<Option<rastos::Cluster>> {
    if !is_served(at).await? {
        output::note(format!(
            "the machine of {} is older than Clusters in the API: nothing is written there",
            made.name()
        ));
        return Ok(None);
    }
    let status = status(project, ready);
    loop {
        let kept = kept(at, made.name()).await?;
        if let Some(wish) = changed(made, kept.as_ref()).filter(|_| !overrides) {
            return Ok(Some(wish));
        }
        match write(at, made, kept.as_ref(), &status).await {
            // It was changed after we looked.
            Err(error) if error.downcast_ref::<Refused>().is_some_and(|r| r.status.code == 409) => {}
            other => return other.map(|()| None),
        }
    }
}

async fn write(at: &Cluster, made: &rastos::Cluster, kept: Option<&rastos::Cluster>, status: &Status) -> Result<()> {
    let path = address(at, made.name())?.path();
    let object = json!(described(made, kept));
    let written = match kept {
        None => at.create(&Cluster::path(&*at.kind("clusters")?, None, None), &object).await?,
        Some(_) => at.replace(&path, &object).await?,
    };
    let mut status = json!(status);
    status["observedGeneration"] = written["metadata"]["generation"].clone();
    at.merge(&format!("{path}/status"), &json!({"status": status})).await.map(drop)
}

/// What there is of it, to be written down.
fn status(project: &str, ready: &Ready) -> Status {
    let name = &ready.mark.name;
    let machine = MachineStatus { name: template::machine_name(name, 0), server: ready.server.clone() };
    Status {
        // Known once the spec is written.
        observed_generation: None,
        uid: Some(ready.mark.uid.clone()),
        project: Some(project.to_owned()),
        address: Some(ready.address.clone()),
        stacks: vec![Mark::state_stack(name), Mark::stack(name)],
        volume: ready.volume.clone(),
        machines: vec![machine],
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

/// The object: the spec that was made, and all metadata that anybody gave it.
fn described(made: &rastos::Cluster, kept: Option<&rastos::Cluster>) -> rastos::Cluster {
    let mut object = made.wish();
    object.metadata = kept.map(|kept| kept.metadata.clone()).unwrap_or(object.metadata);
    let (given, all) = (&made.metadata, &mut object.metadata);
    for (given, all) in [(&given.labels, &mut all.labels), (&given.annotations, &mut all.annotations)] {
        if let Some(given) = given {
            all.get_or_insert_default().extend(given.clone());
        }
    }
    object
}

fn address(at: &Cluster, name: &str) -> Result<Address> {
    Ok(Address { kind: at.kind("clusters")?, namespace: String::new(), name: name.to_owned() })
}

/// Whether a machine's API is too old to keep Clusters.
async fn is_served(at: &Cluster) -> Result<bool> {
    let groups: Value = at.get("/apis", Query::default()).await?;
    Ok(groups["groups"].as_array().into_iter().flatten().any(|group| group["name"] == "rastos.io"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(flavor: &str, generation: i64, made: Option<i64>) -> rastos::Cluster {
        let mut cluster = rastos::Cluster::named("demo");
        cluster.spec.flavor = Some(flavor.to_owned());
        cluster.metadata.generation = Some(generation);
        cluster.status = Some(Status { observed_generation: made, ..Status::default() });
        cluster
    }

    #[test]
    fn only_a_spec_that_was_changed_since_is_a_new_wish() {
        let made = kept("small", 1, Some(1)).wish();
        // Never written; as made; written by an up that was killed before it told so; older than Heat's copy.
        assert_eq!(changed(&made, None), None);
        assert_eq!(changed(&made, Some(&kept("small", 1, Some(1)))), None);
        assert_eq!(changed(&made, Some(&kept("small", 2, Some(1)))), None);
        assert_eq!(changed(&made, Some(&kept("large", 2, Some(2)))), None);
        let wish = changed(&made, Some(&kept("large", 3, Some(2)))).unwrap();
        assert_eq!((wish.spec.flavor.as_deref(), wish.status), (Some("large"), None));
    }

    #[test]
    fn metadata_that_others_gave_stays_and_the_file_s_is_added() {
        let mut there = kept("small", 1, Some(1));
        there.metadata.resource_version = Some("7".into());
        there.metadata.labels = Some([("a".into(), "1".into()), ("b".into(), "1".into())].into());
        let mut made = kept("large", 0, None).wish();
        made.metadata.labels = Some([("b".into(), "2".into())].into());
        let object = described(&made, Some(&there));
        assert_eq!(object.metadata.labels.unwrap(), [("a".into(), "1".into()), ("b".into(), "2".into())].into());
        assert_eq!(object.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!((object.spec.flavor.as_deref(), object.status), (Some("large"), None));
    }
}
