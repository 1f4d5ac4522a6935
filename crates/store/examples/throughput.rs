//! Durable commits a second of 1 KiB values, beside a bare append-and-fdatasync loop with the same batches.
//!
//! `cargo run --release -p store --example throughput [DIR]` (default: a temporary directory; name one on the disk
//! of interest). Prints `clients commits/s batch bare/s ratio`; the target is a ratio of at least 0.8.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use store::{Embedded, Store, Txn, Write};

const VALUE: usize = 1024;
const TIME: Duration = Duration::from_secs(2);
/// Interleaved, so that a busy moment of the machine meets both sides.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir_in(std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut out = std::io::stdout();
    writeln!(out, "clients  commits/s  batch     bare/s  ratio")?;
    for clients in [1, 16, 64] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (rate, batch) = runtime.block_on(committed(&dir.path().join("store"), clients))?;
            let bare = appended(&dir.path().join("bare"), batch)?;
            rounds.push((rate / bare, rate, batch, bare));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, rate, batch, bare) = rounds[ROUNDS / 2];
        writeln!(out, "{clients:7} {rate:10.0} {batch:6.1} {bare:10.0} {ratio:6.2}")?;
    }
    Ok(())
}

/// Commits a second, and how many went into one batch.
async fn committed(path: &Path, clients: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let _ = std::fs::remove_file(path);
    let store = Arc::new(Embedded::open(path)?);
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![7; VALUE]);
                let mut n = 0;
                while start.elapsed() < TIME {
                    let key = format!("/registry/core/configmaps/default/client-{client}-{n}");
                    store.commit(Txn { checks: vec![], writes: vec![Write::Put(key, value.clone())] }).await?;
                    n += 1;
                }
                Ok::<_, store::Error>(n)
            })
        })
        .collect();
    let mut commits = 0;
    for task in tasks {
        commits += task.await??;
    }
    Ok((f64::from(commits) / start.elapsed().as_secs_f64(), f64::from(commits) / store.batches() as f64))
}

/// Records a second that a loop appends and syncs in batches of this size.
fn appended(path: &Path, batch: f64) -> std::io::Result<f64> {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    let record = vec![7; (VALUE as f64 * batch) as usize];
    let (start, mut batches) = (Instant::now(), 0.0);
    while start.elapsed() < TIME {
        file.write_all(&record)?;
        file.sync_data()?;
        batches += 1.0;
    }
    Ok(batches * batch / start.elapsed().as_secs_f64())
}
