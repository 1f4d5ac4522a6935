//! What an instance takes that does nothing, and how soon its API answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::{Client, Config};
use tests::Instance;

use crate::{
    figure::{Row, Times},
    memory,
};

const ROUNDS: usize = 5;
/// After which memory is measured.
pub const QUIET: Duration = Duration::from_secs(60);

pub async fn measure() -> Result<Vec<Row>> {
    let mut ready = Times::default();
    for _ in 0..ROUNDS {
        ready.add(first_answer().await?);
    }
    let instance = tokio::task::block_in_place(Instance::up);
    tokio::time::sleep(QUIET).await;
    let (kib, processes) = memory::of_rast()?;
    drop(instance);
    let mib = kib as f64 / 1024.0;
    Ok(vec![
        Row::judged(
            "idle: API ready after its start, fresh root",
            "<= 300 ms",
            ready.median() <= 300.0,
            ready.words(),
            "reference 5900 ms".into(),
        ),
        Row::judged(
            "idle: memory 60 s after ready",
            "<= 40 MiB",
            mib <= 40.0,
            format!("{mib:.1} MiB in {processes} processes"),
            "reference 700 MiB".into(),
        ),
    ])
}

/// From the start of the process on a fresh root until `/readyz` says yes.
async fn first_answer() -> Result<Duration> {
    let instance = Instance::prepared();
    let mut config = Config::new(format!("https://127.0.0.1:{}", instance.port()).parse()?);
    // Nobody knows its authority yet; health needs no name.
    config.accept_invalid_certs = true;
    let client = Client::try_from(config)?;
    let log = std::fs::File::create(instance.root().join("rast.log"))?;
    let began = Instant::now();
    let mut child = instance.command().stdout(std::process::Stdio::null()).stderr(log).spawn()?;
    let took = loop {
        let ready = http::Request::get("/readyz").body(Vec::new())?;
        if client.request_text(ready).await.is_ok() {
            break began.elapsed();
        }
        ensure!(child.try_wait()?.is_none(), "rast up ended:\n{}", instance.said());
        ensure!(began.elapsed() < QUIET, "rast up does not answer:\n{}", instance.said());
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    tokio::task::block_in_place(|| {
        drop(instance);
        child.wait()
    })
    .context("rast up ends")?;
    Ok(took)
}
