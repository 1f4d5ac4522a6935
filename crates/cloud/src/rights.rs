//! Rights that no list shows. A service asks whether a request is allowed before it asks whether it is possible: what
//! cannot succeed is asked for, and only "forbidden" tells something. Nothing is made.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Error, Service, Session, seen::Seen, session::Call, token::Restriction};

/// What may be forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To make networks.
    Network,
    /// To upload images.
    Image,
    /// To make stacks.
    Stack,
    /// To make trusts, which Heat wants in most clouds.
    Trust,
}

/// The rights that are denied, as far as a cluster that is to be made needs them.
pub async fn denied(session: &Session, seen: &Seen) -> Result<Vec<Right>, Error> {
    if seen.machines.is_some() {
        return Ok(Vec::new());
    }
    let user = session.token().await?.user.clone();
    let asked = join_all(questions(seen, &user).into_iter().map(|(right, call)| async move {
        let denied = match session.call(call).await {
            Err(error) => error.status() == Some(403),
            Ok(body) => {
                undo(session, &body).await?;
                false
            }
        };
        Ok(denied.then_some(right))
    }));
    let denied: Vec<Option<Right>> = asked.await.into_iter().collect::<Result<_, Error>>()?;
    Ok(denied.into_iter().flatten().collect())
}

fn questions(seen: &Seen, user: &str) -> Vec<(Right, Call)> {
    let ask = |right, service, path: &str, body| {
        (right, Call::new(Method::POST, service, path, "ask for a right").with(body))
    };
    let none = Uuid::nil().to_string();
    let mut questions = Vec::new();
    if seen.answers(Service::Network) {
        // There is no such zone.
        let body = json!({"network": {"name": "rastos-question", "availability_zone_hints": [none]}});
        questions.push(ask(Right::Network, Service::Network, "/networks", body));
    }
    if let Some(image) = seen.images.first() {
        // The id is taken.
        let body = json!({"id": image.id, "name": image.name, "disk_format": "raw", "container_format": "bare"});
        questions.push(ask(Right::Image, Service::Image, "/images", body));
    }
    if seen.answers(Service::Orchestration) && seen.state.is_none() {
        // No template has this version.
        let body = json!({"stack_name": "rastos-question", "template": {"heat_template_version": "1970-01-01"}});
        questions.push(ask(Right::Stack, Service::Orchestration, "/stacks", body));
    }
    if seen.credential.is_some() {
        // There is no such trustee. Users with a password may always make trusts.
        let roles: Vec<Value> = seen.roles.iter().take(1).map(|name| json!({"name": name})).collect();
        let body = json!({"trust": {
            "trustor_user_id": user, "trustee_user_id": none, "project_id": seen.project, "impersonation": true,
            "roles": roles,
        }});
        questions.push(ask(Right::Trust, Service::Identity, "/OS-TRUST/trusts", body));
    }
    questions
}

/// A cloud that makes a network in a zone that there is not is asked to forget it.
async fn undo(session: &Session, made: &Value) -> Result<(), Error> {
    match made["network"]["id"].as_str() {
        Some(id) => session.delete(Service::Network, format!("/networks/{id}"), "forget a network").await,
        None => Ok(()),
    }
}

/// What a user can do who holds a credential that can make no trusts.
pub fn advice(credential: Option<Restriction>) -> &'static str {
    match credential {
        Some(Restriction::Restricted) => {
            "if this cloud's Heat wants one, make the credential with --unrestricted, or use a password (docs/openstack.md)"
        }
        _ => "this cloud lets no such credential; if its Heat wants one, use a password (docs/openstack.md)",
    }
}
