//! Waiting until an object is as wanted: by watching it, never by asking again and again.

use std::{pin::pin, time::Duration};

use anyhow::Result;
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use http::{Request, header};
use kube::core::WatchEvent;
use serde_json::Value;

use crate::{
    cluster::{Cluster, Query, uri},
    exit::{Exit, Failure},
    target::Address,
};

/// One object over time: as it is now, then after each change; `None` while it does not exist.
pub async fn follow<'a>(
    cluster: &'a Cluster,
    at: &Address,
) -> Result<impl Stream<Item = Result<Option<Value>>> + use<'a>> {
    let path = Cluster::path(&at.kind, Some(&at.namespace), None);
    let one = Query::default().with("fieldSelector", format!("metadata.name={}", at.name));
    let list = cluster.get(&path, one.clone()).await?;
    let now = list["items"].as_array().and_then(|items| items.first().cloned());
    let from = list["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
    let watch = one.with("watch", "true").with("resourceVersion", from);
    let request = Request::get(uri(&path, &watch)).header(header::ACCEPT, "application/json").body(Vec::new())?;
    let lines = cluster.stream(request).await?.lines();
    let changes = lines.map_err(anyhow::Error::from).and_then(|line| async move {
        match serde_json::from_str(&line)? {
            WatchEvent::<Value>::Added(object) | WatchEvent::Modified(object) => Ok(Some(object)),
            WatchEvent::Deleted(_) => Ok(None),
            WatchEvent::Bookmark(_) => Err(Failure::new(Exit::Failed, "a bookmark nobody asked for").into()),
            WatchEvent::Error(status) => Err(kube::Error::Api(status).into()),
        }
    });
    Ok(stream::once(async { Ok(now) }).chain(changes))
}

/// Watches an object until `done` says so, at most `limit`; the last state is given to `told` when time is up.
pub async fn until(
    cluster: &Cluster,
    at: &Address,
    limit: Duration,
    mut done: impl FnMut(Option<&Value>) -> Result<bool>,
    told: impl FnOnce(Option<&Value>) -> String,
) -> Result<()> {
    let mut last = None;
    let watching = async {
        loop {
            let mut states = pin!(follow(cluster, at).await?);
            while let Some(state) = states.try_next().await? {
                last = state;
                if done(last.as_ref())? {
                    return Ok(());
                }
            }
        }
    };
    match tokio::time::timeout(limit, watching).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(
            Exit::TimedOut,
            format!("after {} s: {}", limit.as_secs_f64().round(), told(last.as_ref())),
        )
        .into()),
    }
}
