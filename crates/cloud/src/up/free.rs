//! Letting go: a server that must make room, and the volume that it held.

use std::time::{Duration, Instant};

use super::UpError;
use crate::{Error, Service, Session, error::optional, nova};

/// How often the cloud is asked how far it is.
const POLL: Duration = Duration::from_millis(1500);
/// A machine that does not stop by itself in this time is deleted while it runs.
const STOPPING: Duration = Duration::from_secs(90);
/// A deleted server, and the volume it held, are gone and free by then.
const FREEING: Duration = Duration::from_secs(300);
/// Cinder is not helped before Nova has had this time.
const GRACE: Duration = Duration::from_secs(30);

/// Stops a server in an orderly way, deletes it and waits until it has gone.
pub(super) async fn retire(session: &Session, id: &str) -> Result<(), UpError> {
    let (begun, mut taken) = (Instant::now(), false);
    while begun.elapsed() < STOPPING && nova::server(session, id).await?.is_some_and(|s| s.status == "ACTIVE") {
        taken = taken || nova::stop(session, id).await?;
        tokio::time::sleep(POLL).await;
    }
    if nova::server(session, id).await?.is_none() {
        return Ok(());
    }
    nova::delete(session, id).await?;
    let begun = Instant::now();
    while let Some(server) = nova::server(session, id).await? {
        if server.is_buried() {
            nova::bury(session, id).await?;
        }
        if begun.elapsed() > FREEING {
            return Err(UpError::Stuck { what: format!("deleting server {id}"), state: server.status, limit: FREEING });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Waits until a volume is held by nobody. Attachments of servers that are gone are taken away: Cinder keeps them
/// when Nova could not end them in an orderly way. `uid` is the cluster's.
pub(crate) async fn free(session: &Session, id: &str, uid: &str) -> Result<(), UpError> {
    let begun = Instant::now();
    while let Some(volume) = nova::volume(session, id).await? {
        if volume.servers.is_empty() && (volume.status == "available" || volume.status.starts_with("error")) {
            return Ok(());
        }
        if begun.elapsed() > FREEING {
            return Err(UpError::Stuck { what: format!("freeing volume {id}"), state: volume.status, limit: FREEING });
        }
        if begun.elapsed() > GRACE {
            detach_from_the_gone(session, id, uid).await?;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn detach_from_the_gone(session: &Session, volume: &str, uid: &str) -> Result<(), Error> {
    let doing = format!("list the attachments of volume {volume}");
    // Attachments are an API of their own since microversion 3.27.
    let path = format!("/attachments/detail?volume_id={volume}");
    let list = optional(session.list(Service::BlockStorage, &path, "attachments", &doing).await)?;
    for attachment in list.unwrap_or_default() {
        let server = attachment["instance"].as_str().unwrap_or_default();
        match nova::server(session, server).await? {
            None => {
                let id = attachment["id"].as_str().unwrap_or_default();
                let path = format!("/attachments/{id}");
                session.delete(Service::BlockStorage, path, &format!("end attachment {id} of volume {volume}")).await?;
            }
            Some(held) if held.is_buried() && held.uid == uid => drop(nova::bury(session, server).await?),
            Some(_) => {}
        }
    }
    Ok(())
}
