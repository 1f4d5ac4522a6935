//! Durable commits of the embedded store, beside a bare append-and-fdatasync loop with the same batches.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use store::{Embedded, Store, Txn, Write};

use crate::{figure::Row, peers};

const VALUE: usize = 1024;
const TIME: Duration = Duration::from_secs(1);
/// Interleaved, so that a busy moment of the machine meets both sides.
const ROUNDS: usize = 5;

pub async fn measure() -> Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(peers::dir()?)?;
    let mut rows = Vec::new();
    for clients in [1, 16, 64] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (rate, batch) = committed(&dir.path().join("store"), clients).await?;
            let bare = tokio::task::block_in_place(|| appended(&dir.path().join("bare"), batch))?;
            rounds.push((rate / bare, rate, batch, bare));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, rate, batch, bare) = rounds[ROUNDS / 2];
        rows.push(Row::judged(
            &format!("commits: group commit, {clients} clients"),
            ">= 0.8x",
            ratio >= 0.8,
            format!("{ratio:.2}x: {rate:.0}/s, {batch:.1} a batch"),
            format!("append, fdatasync {bare:.0}/s"),
        ));
    }
    Ok(rows)
}

/// Commits a second, and how many went into one batch.
async fn committed(path: &Path, clients: usize) -> Result<(f64, f64)> {
    let _absent_is_fine = fs::remove_file(path);
    let store = Arc::new(Embedded::open(path)?);
    let began = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![7; VALUE]);
                let mut n = 0;
                while began.elapsed() < TIME {
                    let key = format!("/registry/core/configmaps/default/client-{client}-{n}");
                    store.commit(Txn { checks: vec![], writes: vec![Write::Put(key, value.clone())] }).await?;
                    n += 1;
                }
                anyhow::Ok(n)
            })
        })
        .collect();
    let mut commits = 0;
    for task in tasks {
        commits += task.await??;
    }
    Ok((f64::from(commits) / began.elapsed().as_secs_f64(), f64::from(commits) / store.batches() as f64))
}

/// Records a second that a loop appends and syncs in batches of this size.
fn appended(path: &Path, batch: f64) -> Result<f64> {
    let _absent_is_fine = fs::remove_file(path);
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let record = vec![7; (VALUE as f64 * batch) as usize];
    let (began, mut batches) = (Instant::now(), 0.0);
    while began.elapsed() < TIME {
        file.write_all(&record)?;
        file.sync_data()?;
        batches += 1.0;
    }
    Ok(batches * batch / began.elapsed().as_secs_f64())
}
