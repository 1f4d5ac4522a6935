//! A pull of 200 MiB in 8 gzip layers of real files into a ready root, synced, beside `podman pull`.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use images::{Config, Credentials, Images, Progress, Reference};
use tokio::{sync::watch, task::block_in_place};

use crate::{
    figure::{Row, Times},
    peers,
};

const ROUNDS: usize = 3;

pub async fn measure() -> Result<Vec<Row>> {
    let image = format!("{}/bench:1", tests::registry());
    let (mut ours, mut podman) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        ours.add(pulled(&image).await?);
        podman.add(block_in_place(|| pulled_by_podman(&image))?);
    }
    let (faster, faster_min) = podman.over(&ours);
    Ok(vec![Row::judged(
        "pull: 200 MiB, 8 layers, root ready and synced",
        ">= 1.5x faster",
        faster >= 1.5,
        format!("{faster:.2}x (min {faster_min:.2}x): {}", ours.words()),
        format!("podman pull {}", podman.words()),
    )])
}

async fn pulled(image: &str) -> Result<Duration> {
    let reference: Reference = image.parse()?;
    let dir = tempfile::tempdir_in(peers::dir()?)?;
    let images = Images::open(dir.path(), Config::default())?;
    let (progress, _seen) = watch::channel(Progress::default());
    let began = Instant::now();
    let image = images.pull(&reference, &Credentials::Anonymous, &progress).await?;
    images.prepare(&image, "root").await?;
    sync(dir.path())?;
    Ok(began.elapsed())
}

fn pulled_by_podman(image: &str) -> Result<Duration> {
    let began = Instant::now();
    peers::time(peers::podman(&["pull", "--quiet", "--tls-verify=false", image])?)?;
    sync(&peers::dir()?)?;
    let took = began.elapsed();
    peers::time(peers::podman(&["rmi", "--force", image])?)?;
    Ok(took)
}

fn sync(dir: &Path) -> Result<Duration> {
    let mut command = Command::new("sync");
    command.arg("--file-system").arg(dir);
    peers::time(command)
}
