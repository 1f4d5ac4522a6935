//! `rast logs`: what a container printed.

use anyhow::Result;
use clap::Args;
use http::Request;
use jiff::SignedDuration;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use crate::{
    cli::Context,
    cluster::{Cluster, Query, uri},
    complete,
    exit::{Exit, Failure},
    target::Address,
};

/// Print what a container printed
#[derive(Args)]
pub struct Logs {
    /// POD or pod/POD; deployment/NAME takes its first pod
    #[arg(add = complete::pod())]
    target: String,
    /// The container, when the pod has several
    #[arg(short, long, add = complete::container())]
    container: Option<String>,
    /// Go on as more is printed
    #[arg(short, long)]
    follow: bool,
    /// The container's previous run
    #[arg(short, long)]
    previous: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
    /// Only what is not older than this: 10s, 5m, 1h30m
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    since: Option<u64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
}

impl Logs {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let cluster = Cluster::connect(context).await?;
        let pod = pod_of(&cluster, &self.target).await?;
        let at = Address { kind: cluster.kind("pods")?, namespace: cluster.namespace().to_owned(), name: pod };
        let mut query = Query::default().maybe("container", self.container.as_deref());
        for (name, set) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            query = query.maybe(name, set.then_some("true"));
        }
        query = query.maybe("tailLines", self.tail.map(|n| n.to_string()).as_deref());
        query = query.maybe("sinceSeconds", self.since.map(|n| n.to_string()).as_deref());
        print(&cluster, &at, query).await
    }
}

/// The whole seconds of `10s`, `5m` or `1h30m`; a number alone is seconds. A part of a second counts as one.
fn seconds(age: &str) -> Result<u64, String> {
    let duration = age.parse().map(SignedDuration::from_secs).or_else(|_| age.parse::<SignedDuration>());
    let seconds = duration.ok().and_then(|d| d.as_secs().checked_add(i64::from(d.subsec_nanos() > 0)));
    let seconds = seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    seconds.ok_or_else(|| "write how old the first line may be, at least a second: 10s, 5m, 1h30m".to_owned())
}

/// Prints a pod's log as it comes.
pub async fn print(cluster: &Cluster, pod: &Address, query: Query) -> Result<()> {
    let request = Request::get(uri(&(pod.path() + "/log"), &query)).body(Vec::new())?;
    let mut log = cluster.stream(request).await?.compat();
    let mut out = tokio::io::stdout();
    match copy(&mut log, &mut out).await {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => {
            other?;
            Ok(out.flush().await?)
        }
    }
}

/// The pod that `word` means: its own name, `pod/NAME`, or the first pod of a workload.
pub async fn pod_of(cluster: &Cluster, word: &str) -> Result<String> {
    if !word.contains('/') {
        return Ok(word.to_owned());
    }
    let at = Address::parse(cluster, word)?;
    if at.kind.kind == "Pod" {
        return Ok(at.name);
    }
    let object = cluster.get(&at.path(), Query::default()).await?;
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> = labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or(""))).collect();
    let none = || Failure::new(Exit::NotFound, format!("{word} has no pod; ask `rast why {word}`"));
    if selector.is_empty() {
        return Err(none().into());
    }
    let pods = Cluster::path(&*cluster.kind("pods")?, Some(cluster.namespace()), None);
    let list = cluster.get(&pods, Query::default().with("labelSelector", selector.join(","))).await?;
    let first = list["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
    Ok(first.ok_or_else(none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_written_as_people_write_it() {
        for (age, expected) in [("10s", 10), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("90", 90), ("1500ms", 2)] {
            assert_eq!(seconds(age), Ok(expected), "{age}");
        }
        for age in ["", "0", "0s", "-5s", "5 parsecs", "1d", "99999999999999999999", "9223372036854775807.5s"] {
            assert!(seconds(age).unwrap_err().contains("10s, 5m, 1h30m"), "{age}");
        }
    }
}
