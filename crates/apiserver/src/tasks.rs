//! What the server does unasked: follow the store, forget old events, compact.

use std::time::Duration;

use futures::{StreamExt, stream};
use serde_json::Value;
use store::{Expect, Retention, Txn, Write};

use crate::{Server, cache::Cache};

/// How long an event is kept after it was last seen.
const EVENT_TTL: jiff::SignedDuration = jiff::SignedDuration::from_hours(1);
/// How often events are swept and the store is compacted.
const PERIOD: Duration = Duration::from_secs(60);
/// How much of the past can be listed and watched from: as much as upstream keeps. Clients count on an end to it.
const HISTORY: Duration = Duration::from_secs(300);

/// Starts the tasks; they end with the server.
pub(crate) fn start(server: &Server) {
    tokio::spawn(server.stop_token().clone().run_until_cancelled_owned(server.cache().clone().follow()));
    let keeper = server.clone();
    tokio::spawn(server.stop_token().clone().run_until_cancelled_owned(async move {
        let (start, mut retention) = (tokio::time::Instant::now(), Retention::new(HISTORY));
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tick.tick().await;
            sweep_events(&keeper).await;
            if let Some(rev) = retention.due(start.elapsed(), keeper.cache().applied())
                && let Err(error) = keeper.config().store.compact(rev).await
            {
                tracing::warn!("compact the store at {rev}: {error}");
            }
        }
    }));
}

/// Deletes events that were last seen longer ago than [`EVENT_TTL`].
pub(crate) async fn sweep_events(server: &Server) {
    if let Err(error) = server.cache().fresh().await {
        return tracing::warn!("sweep events: {error}");
    }
    let (store, now) = (&server.config().store, server.now());
    for kind in server.config().registry.kinds().iter().filter(|k| k.plural == "events" && k.view.is_none()) {
        let Ok(shelf) = Cache::shelf(server.cache(), kind) else { continue };
        let (items, ..) =
            shelf.list("", None, 0, store::Rev(0), |item| now.duration_since(last_seen(&item.object())) > EVENT_TTL);
        // One commit each: the commits are grouped, and each change has its own revision for watchers.
        let deletes = items.iter().map(|item| {
            let key = kind.key(item.namespace(), item.name());
            store.commit(Txn {
                checks: vec![(key.clone(), Expect::Modified(item.rev))],
                writes: vec![Write::Delete(key)],
            })
        });
        let deletes: Vec<_> = deletes.collect();
        stream::iter(deletes)
            .buffer_unordered(32)
            .for_each(async |deleted| {
                if let Err(error) = deleted {
                    tracing::debug!("delete an old event: {error}");
                }
            })
            .await;
    }
}

/// When an event was last told of; far in the future for one without any time.
fn last_seen(event: &Value) -> jiff::Timestamp {
    let times = [
        &event["metadata"]["creationTimestamp"],
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["series"]["lastObservedTime"],
    ];
    let times = times.into_iter().filter_map(|t| t.as_str()?.parse::<jiff::Timestamp>().ok());
    times.max().unwrap_or(jiff::Timestamp::MAX)
}
