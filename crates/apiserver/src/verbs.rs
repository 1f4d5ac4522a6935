//! What can be done with resources: one file a verb, generic over the kinds.

mod bind;
mod create;
mod delete;
mod get;
mod list;
pub(crate) mod options;
mod page;
mod patch;
mod scale;
mod update;
mod watch;
mod write;

#[cfg(fuzzing)]
pub(crate) use page::Token;

use api::{Subresource, Verb};
use axum::response::Response;

use crate::{
    ApiError, Result,
    call::Call,
    nodes, reviews,
    wire::{accept::Form, table::Include},
};

/// Answers a request.
pub(crate) async fn run(call: Call) -> Result<Response> {
    // Whatever is asked of the pod itself, by whatever method.
    if call.at.subresource == Subresource::Proxy.name() && call.kind.subresources.contains(&Subresource::Proxy) {
        return nodes::proxy(call, Subresource::Proxy).await;
    }
    let Some(verb) = Verb::named(&call.at.verb) else { return Err(not_allowed(&call, &call.at.verb)) };
    // Whoever takes no answer in JSON is told before anything is done; what a node or a pod answers is its own.
    if !matches!(call.at.subresource.as_str(), "log" | "exec" | "attach" | "portforward")
        && let Form::Table(_) = Form::of(&call.headers)?
    {
        Include::of(call.query("includeObject"))?;
    }
    if call.at.subresource.is_empty() { object(call, verb).await } else { part(call, verb).await }
}

async fn object(call: Call, verb: Verb) -> Result<Response> {
    // What there is one of is changed by its name; what is made gets one by the object.
    let misplaced = match verb {
        Verb::Create => !call.at.name.is_empty(),
        Verb::Update | Verb::Patch => call.at.name.is_empty(),
        _ => false,
    };
    if misplaced || !call.kind.verbs.contains(&verb) {
        return Err(not_allowed(&call, &call.at.verb));
    }
    match verb {
        Verb::Create if !call.kind.stored => create::review(&call).await,
        Verb::Create => create::run(&call).await,
        Verb::Get => get::run(&call).await,
        Verb::List => list::run(&call).await,
        Verb::Watch => watch::run(&call).await,
        Verb::Update => update::run(&call, write::Part::Main).await,
        Verb::Patch => patch::run(&call, write::Part::Main).await,
        Verb::Delete => delete::run(&call).await,
        Verb::DeleteCollection => delete::collection(&call).await,
    }
}

/// Subresources.
async fn part(call: Call, verb: Verb) -> Result<Response> {
    use Subresource as S;
    let part = call.kind.subresources.iter().copied().find(|s| s.name() == call.at.subresource);
    let part = part.ok_or_else(ApiError::no_route)?;
    match (part, verb) {
        (S::Status | S::EphemeralContainers, Verb::Get) => get::run(&call).await,
        (S::Status, Verb::Update) => update::run(&call, write::Part::Status).await,
        (S::Status, Verb::Patch) => patch::run(&call, write::Part::Status).await,
        (S::EphemeralContainers, Verb::Update) => update::run(&call, write::Part::EphemeralContainers).await,
        (S::EphemeralContainers, Verb::Patch) => patch::run(&call, write::Part::EphemeralContainers).await,
        (S::Finalize, Verb::Update) => update::run(&call, write::Part::Finalize).await,
        (S::Scale, Verb::Get) => scale::get(&call).await,
        (S::Scale, Verb::Update | Verb::Patch) => scale::set(&call, verb).await,
        (S::Binding, Verb::Create) => bind::run(&call).await,
        (S::Eviction, Verb::Create) => delete::evict(&call).await,
        (S::Token, Verb::Create) => {
            let account = call.current(&call.at.name).await?.object();
            let answer = reviews::token(&call.server, &call.identity, &account, call.object()?).await?;
            call.reply(http::StatusCode::CREATED, &answer)
        }
        (S::Log | S::Exec | S::Attach | S::PortForward, Verb::Get | Verb::Create) => nodes::proxy(call, part).await,
        _ => Err(not_allowed(&call, &call.at.verb)),
    }
}

fn not_allowed(call: &Call, verb: &str) -> ApiError {
    let slash = if call.at.subresource.is_empty() { "" } else { "/" };
    ApiError::method_not_allowed(verb, &format!("{}{slash}{}", call.at.resource, call.at.subresource))
}

#[cfg(test)]
mod tests;
