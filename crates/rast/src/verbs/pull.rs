//! `rast pull`: fetches an image to this host.

use std::{env, io::IsTerminal as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use images::{Credentials, Keyring, Progress, Reference};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::{
    cli::Context,
    exit::{Exit, Failure},
    output,
    verbs::images::open,
};

/// Fetch an image from its registry
#[derive(Args)]
pub struct Pull {
    /// The image, e.g. registry.example/app:1
    image: String,
    /// A Docker configuration file with credentials, instead of ~/.docker/config.json
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Pull {
    /// Runs the verb.
    pub async fn run(self, context: &Context) -> Result<()> {
        let reference: Reference =
            self.image.parse().map_err(|e: images::Error| Failure::new(Exit::Invalid, e.to_string()))?;
        let credentials = self.credentials(&reference)?;
        let (sender, progress) = watch::channel(Progress::default());
        let bar = tokio::spawn(show(progress));
        let image = open(context)?.pull(&reference, &credentials, &sender).await;
        drop(sender);
        bar.await?;
        let image = image.map_err(|error| match &error {
            images::Error::NotFound { .. } => Failure::new(Exit::NotFound, error.to_string()).into(),
            images::Error::Denied { .. } => Failure::new(Exit::Denied, error.to_string()).into(),
            images::Error::Stalled { .. } => Failure::new(Exit::TimedOut, error.to_string()).into(),
            _ => anyhow::Error::from(error),
        })?;
        output::line(if image.digest.is_empty() { &image.id } else { &image.digest })
    }

    fn credentials(&self, reference: &Reference) -> Result<Credentials> {
        let default = || Some(PathBuf::from(env::var_os("HOME")?).join(".docker/config.json"));
        let file = match &self.authfile {
            Some(file) => file.clone(),
            None => match default().filter(|file| file.exists()) {
                Some(file) => file,
                None => return Ok(Credentials::Anonymous),
            },
        };
        let bytes = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let keyring = Keyring::parse(&bytes).with_context(|| format!("read {}", file.display()))?;
        Ok(keyring.matching(reference).swap_remove(0))
    }
}

/// A bar while the pull lasts, on a terminal only.
async fn show(mut progress: watch::Receiver<Progress>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {msg}";
    let bar =
        ProgressBar::new(0).with_style(ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar()));
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        bar.set_length(now.total);
        bar.set_position(now.done);
        bar.set_message(format!("{} of {} layers ready", now.ready, now.layers));
    }
    bar.finish_and_clear();
}
