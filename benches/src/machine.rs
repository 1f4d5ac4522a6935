//! A machine of our own image beside the same kernel with a one-line init: `scripts/bench-machine` boots both.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tokio::task::block_in_place;

use crate::figure::Row;

pub async fn measure() -> Result<Vec<Row>> {
    let image = std::env::var("RAST_BENCH_IMAGE").context("RAST_BENCH_IMAGE is set by scripts/bench")?;
    let mut command = Command::new("scripts/bench-machine");
    let output =
        block_in_place(|| command.arg(image).stderr(Stdio::inherit()).output()).context("run from the repository")?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout)?.lines().map(row).collect()
}

/// One line of the script: figure, target, value, peer and verdict, between tabs.
fn row(line: &str) -> Result<Row> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [figure, target, value, peer, verdict] = fields[..] else { anyhow::bail!("{line:?} is no figure") };
    Ok(match verdict {
        "" => Row::told(figure, value.into(), peer.into()),
        verdict => Row::judged(figure, target, verdict == "PASS", value.into(), peer.into()),
    })
}
