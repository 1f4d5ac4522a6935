//! Nova: the few things that are done to servers beside Heat.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    Error, Service, Session,
    error::optional,
    seen::{self, Server, Volume},
    session::Call,
    template::ENROL,
};

/// A server; `None` when there is none.
pub async fn server(session: &Session, id: &str) -> Result<Option<Server>, Error> {
    let found = session.get(Service::Compute, format!("/servers/{id}"), &format!("read server {id}")).await;
    Ok(optional(found)?.map(|body| seen::server(&body["server"])))
}

/// The last lines of a server's console; none while there is no console.
pub async fn console(session: &Session, id: &str, lines: u32) -> Result<String, Error> {
    let call = action(id, "read the console of", json!({"os-getConsoleOutput": {"length": lines}}));
    match session.call(call.repeatable()).await {
        Ok(body) => Ok(body["output"].as_str().unwrap_or_default().to_owned()),
        // It is not running, or its host keeps no log.
        Err(error) if matches!(error.status(), Some(404 | 409 | 501)) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// What the machine wrote into the slot that may be written once; empty before.
pub async fn password(session: &Session, id: &str) -> Result<String, Error> {
    let path = format!("/servers/{id}/os-server-password");
    let found = optional(session.get(Service::Compute, path, &format!("read the password slot of server {id}")).await)?;
    Ok(found.and_then(|body| body["password"].as_str().map(str::to_owned)).unwrap_or_default())
}

/// Admits another key to enrolment, beside those that are admitted.
pub async fn admit(session: &Session, id: &str, hash: &str) -> Result<(), Error> {
    let server = server(session, id).await?.unwrap_or_default();
    if server.enrol.split(',').any(|h| h.trim() == hash) {
        return Ok(());
    }
    // A metadata value holds 255 characters, three hashes; the latest count.
    let earlier = server.enrol.split(',').map(str::trim).filter(|h| !h.is_empty()).rev().take(2);
    let mut all: Vec<&str> = earlier.collect();
    all.reverse();
    all.push(hash);
    let body = json!({"metadata": {ENROL: all.join(",")}});
    let call = Call::new(
        Method::POST,
        Service::Compute,
        format!("/servers/{id}/metadata"),
        format!("admit a key to server {id}"),
    );
    session.call(call.with(body).repeatable()).await.map(drop)
}

/// Begins to bring a server that rests back to work, by the action that does so; whether Nova took it on.
pub async fn wake(session: &Session, id: &str, by: &str) -> Result<bool, Error> {
    taken(session.call(action(id, "wake", json!({by: null}))).await)
}

/// Begins to stop a server; whether Nova took it on.
pub async fn stop(session: &Session, id: &str) -> Result<bool, Error> {
    taken(session.call(action(id, "stop", json!({"os-stop": null}))).await)
}

/// Begins to delete a server.
pub async fn delete(session: &Session, id: &str) -> Result<(), Error> {
    session.delete(Service::Compute, format!("/servers/{id}"), &format!("delete server {id}")).await
}

/// Begins to delete a server that the cloud keeps although it was deleted.
pub async fn bury(session: &Session, id: &str) -> Result<bool, Error> {
    taken(session.call(action(id, "delete for good", json!({"forceDelete": null})).repeatable()).await)
}

fn action(id: &str, act: &str, body: Value) -> Call {
    Call::new(Method::POST, Service::Compute, format!("/servers/{id}/action"), format!("{act} server {id}")).with(body)
}

/// Nova takes nothing on for a server that is busy, in that state already, or gone: it is to be looked at again.
fn taken(result: Result<Value, Error>) -> Result<bool, Error> {
    match result {
        Err(error) if error.is_conflict() || error.is_absent() => Ok(false),
        other => other.map(|_| true),
    }
}

/// A volume; `None` when there is none.
pub async fn volume(session: &Session, id: &str) -> Result<Option<Volume>, Error> {
    let found = session.get(Service::BlockStorage, format!("/volumes/{id}"), &format!("read volume {id}")).await;
    Ok(optional(found)?.map(|body| seen::volume(&body["volume"])))
}
