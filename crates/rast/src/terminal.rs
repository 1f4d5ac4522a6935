//! This process's terminal as the terminal of a container's process.

use std::{io, process};

use anyhow::Result;
use futures::SinkExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachedProcess, TerminalSize};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncWriteExt as _, copy},
    signal::unix::{SignalKind, signal},
};

use crate::exit::{Exit, Failure};

/// The terminal in raw mode; as it was again when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _no_terminal_any_more = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

fn size() -> Option<TerminalSize> {
    let size = termios::tcgetwinsize(io::stdin()).ok()?;
    Some(TerminalSize { width: size.ws_col, height: size.ws_row })
}

/// Connects standard input and output to `remote` until it ends, and ends this program with its exit code.
pub async fn join(remote: AttachedProcess, tty: bool) -> Result<()> {
    let Some(status) = stream(remote, tty).await? else {
        return Err(Failure::new(Exit::Failed, "the connection broke before the command ended").into());
    };
    let code = status.details.iter().flat_map(|d| d.causes.iter().flatten()).find_map(|cause| {
        let code = cause.reason.as_deref() == Some("ExitCode");
        code.then(|| cause.message.as_deref()?.parse().ok()).flatten()
    });
    match code {
        // The blocking read of standard input would hold a normal return up.
        Some(code) => process::exit(code),
        None if status.status.as_deref() == Some("Success") => process::exit(0),
        None => Err(Failure::new(Exit::Failed, status.message.unwrap_or_default()).into()),
    }
}

/// Connects standard input and output to `remote` until it ends; what it says of its end.
pub async fn stream(mut remote: AttachedProcess, tty: bool) -> Result<Option<Status>> {
    let raw = if tty { Some(Raw::enter()?) } else { None };
    let status = remote.take_status();
    if let Some(mut input) = remote.stdin() {
        tokio::spawn(async move {
            let _client_gone = copy(&mut tokio::io::stdin(), &mut input).await;
            let _client_gone = input.shutdown().await;
        });
    }
    if let Some(mut sizes) = remote.terminal_size() {
        let mut changed = signal(SignalKind::window_change())?;
        tokio::spawn(async move {
            while let Some(size) = size() {
                if sizes.send(size).await.is_err() || changed.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    let (out, err) = (remote.stdout(), remote.stderr());
    let output = async {
        if let Some(mut out) = out {
            copy(&mut out, &mut tokio::io::stdout()).await?;
        }
        tokio::io::stdout().flush().await
    };
    let errors = async {
        match err {
            Some(mut err) => copy(&mut err, &mut tokio::io::stderr()).await.map(drop),
            None => Ok(()),
        }
    };
    tokio::try_join!(output, errors)?;
    drop(raw);
    Ok(match status {
        Some(status) => status.await,
        None => None,
    })
}
