//! Pulls an image into a directory and says how long it took until it was ready and synced.
//!
//!     cargo run --release -p images --example pull -- 127.0.0.1:5000/bench:1 /var/tmp/images

#![allow(clippy::print_stdout)]

use images::{Config, Credentials, Images, Keyring, Reference};
use std::{path::Path, time::Instant};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(reference), Some(dir)) = (args.next(), args.next()) else {
        return Err("usage: pull REFERENCE DIR [DOCKER-CONFIG-FILE]".into());
    };
    let reference: Reference = reference.parse()?;
    let credentials = match args.next() {
        Some(file) => Keyring::parse(&std::fs::read(file)?)?.matching(&reference).swap_remove(0),
        None => Credentials::Anonymous,
    };
    let images = Images::open(Path::new(&dir), Config::default())?;
    let (progress, mut seen) = tokio::sync::watch::channel(Default::default());
    let began = Instant::now();
    let image = images.pull(&reference, &credentials, &progress).await?;
    let took = began.elapsed().as_secs_f64();
    let fetched = seen.borrow_and_update().done as f64 / f64::from(1 << 20);
    println!("{} {} {fetched:.0} MiB in {took:.2} s, {:.0} MiB/s", image.names.join(" "), image.id, fetched / took);
    Ok(())
}
