//! The end of a machine: its containers go first, each with some grace.

use std::time::Duration;

use runtime::{Container, Runtime, State};

/// How long containers may take to end.
const GRACE: Duration = Duration::from_secs(30);
const SIGTERM: i32 = 15;

/// Tells all containers to end, and waits for them. The pods stay as they are, to run again after the next boot.
pub async fn end(runtime: &dyn Runtime) {
    let mut events = runtime.events();
    for container in running(runtime).await {
        if let Err(error) = runtime.kill(&container.spec.id, SIGTERM).await {
            tracing::debug!("tell {} to end: {error}", container.spec.id);
        }
    }
    let all = async {
        // Whatever happened while we did not look is seen in the list.
        while !running(runtime).await.is_empty() {
            let _missed_or_gone = events.recv().await;
        }
    };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!("containers did not end within {GRACE:?}; they are killed");
    }
}

async fn running(runtime: &dyn Runtime) -> Vec<Container> {
    let mut all = runtime.list().await.unwrap_or_default();
    all.retain(|container| matches!(container.state, State::Running { .. }));
    all
}
