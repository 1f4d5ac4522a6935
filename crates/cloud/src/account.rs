//! What the cloud has to say of a cluster that is not as it should be. Changes nothing.

use crate::{
    Error, Session, nova,
    seen::{self, Seen},
    up::{Failed, explain},
};

const CONSOLE_LINES: u32 = 60;

/// A cluster as its cloud sees it.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The project.
    pub seen: Seen,
    /// The stacks that failed, each with its causes; what outlives machines first.
    pub failed: Vec<Failed>,
    /// The last lines of the first machine's console; empty when it has none.
    pub console: String,
}

/// Asks for it.
pub async fn read(session: &Session, name: &str) -> Result<Account, Error> {
    let seen = seen::read(session, name).await?;
    let mut failed = Vec::new();
    for made in [&seen.state, &seen.machines].into_iter().flatten().filter(|made| made.has_failed()) {
        failed.push(explain(session, made).await);
    }
    let console = match seen.machines.as_ref().and_then(|made| made.object("server_0")) {
        // A cloud that keeps consoles to itself has said the rest all the same.
        Some(server) => nova::console(session, server, CONSOLE_LINES).await.unwrap_or_default(),
        None => String::new(),
    };
    Ok(Account { seen, failed, console })
}
