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

/// An even number: each side goes first as often as the other.
const ROUNDS: usize = 4;

pub async fn measure() -> Result<Vec<Row>> {
    let image = format!("{}/bench:1", tests::registry());
    // Every pull has a directory of its own, and all of them go at the end: on ext4 files are slow to make where many
    // have just been removed, and a disk still busy with one side's work would be counted as the other's.
    let dir = tempfile::tempdir_in(peers::dir()?)?;
    let (mut ours, mut podman) = (Times::default(), Times::default());
    for round in 0..ROUNDS {
        for ours_now in [round % 2 == 0, round % 2 != 0] {
            sync(dir.path())?;
            if ours_now {
                ours.add(pulled(&image, &dir.path().join(format!("rast-{round}"))).await?);
            } else {
                podman.add(block_in_place(|| pulled_by_podman(&image, &dir.path().join(format!("podman-{round}"))))?);
            }
        }
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

async fn pulled(image: &str, dir: &Path) -> Result<Duration> {
    let reference: Reference = image.parse()?;
    let images = Images::open(dir, Config::default())?;
    let (progress, _seen) = watch::channel(Progress::default());
    let began = Instant::now();
    let image = images.pull(&reference, &Credentials::Anonymous, &progress).await?;
    images.prepare(&image, "root").await?;
    sync(dir)?;
    Ok(began.elapsed())
}

fn pulled_by_podman(image: &str, storage: &Path) -> Result<Duration> {
    // Its database is made before, as ours is by opening the directory.
    peers::time(peers::podman_in(storage, &["images", "--quiet"])?)?;
    let began = Instant::now();
    peers::time(peers::podman_in(storage, &["pull", "--quiet", "--tls-verify=false", image])?)?;
    sync(storage)?;
    Ok(began.elapsed())
}

fn sync(dir: &Path) -> Result<Duration> {
    let mut command = Command::new("sync");
    command.arg("--file-system").arg(dir);
    peers::time(command)
}
