//! Heat: stacks and their resources.

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{Error, Mark, Service, Session, error::optional, session::Call};

/// Heat gives up on a create or update after this many minutes: a machine that boots slowly is not Heat's matter.
const TIMEOUT_MINUTES: u32 = 60;

/// A stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What it does or has done: `CREATE_IN_PROGRESS`, `UPDATE_COMPLETE` …
    pub status: String,
    /// Heat's summary of it.
    pub reason: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its outputs.
    pub outputs: Map<String, Value>,
    /// Its parameters.
    pub parameters: Map<String, Value>,
}

/// A resource of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its name in the template.
    pub name: String,
    /// Its type: `OS::Nova::Server` …
    pub kind: String,
    /// The id of the object that it stands for; empty before there is one.
    pub object: String,
    /// What it does or has done.
    pub status: String,
    /// Why, when it failed.
    pub reason: String,
}

impl Stack {
    /// Whether Heat is at work on it.
    pub fn is_busy(&self) -> bool {
        self.status.ends_with("_IN_PROGRESS")
    }

    /// Whether the last thing that Heat did failed.
    pub fn has_failed(&self) -> bool {
        self.status.ends_with("_FAILED")
    }

    /// Whether it failed only because its engine died, as a Heat without convergence says.
    pub fn lost_its_engine(&self) -> bool {
        self.has_failed() && self.reason.contains("Engine went down")
    }

    /// Whether it is on its way out.
    pub fn is_going(&self) -> bool {
        self.status.starts_with("DELETE_")
    }

    /// Whose it is.
    pub fn mark(&self) -> Option<Mark> {
        Mark::on(&json!({"tags": self.tags})).into_iter().next()
    }

    /// Whether it carries these tags and no others.
    pub fn has_tags(&self, wanted: &[String]) -> bool {
        self.tags.len() == wanted.len() && wanted.iter().all(|t| self.tags.contains(t))
    }

    /// The value of a tag `KEY=VALUE`.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find_map(|t| t.strip_prefix(key)?.strip_prefix('='))
    }

    /// An output that is text.
    pub fn output(&self, key: &str) -> Option<&str> {
        self.outputs.get(key)?.as_str().filter(|t| !t.is_empty())
    }

    /// A parameter that is set.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.get(key)?.as_str().filter(|t| !t.is_empty())
    }

    fn path(&self) -> String {
        format!("/stacks/{}/{}", self.name, self.id)
    }
}

/// What a stack is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The template.
    pub template: Value,
    /// Parameters; those left out keep their value in an update.
    pub parameters: Map<String, Value>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// The stack of this name; `None` when there is none.
pub async fn find(session: &Session, name: &str) -> Result<Option<Stack>, Error> {
    let doing = format!("find stack {name}");
    // Asked by name alone, Heat redirects; the list says the id.
    let list = session.list(Service::Orchestration, &format!("/stacks?name={name}"), "stacks", &doing).await?;
    let Some(id) = list.iter().find(|s| s["stack_name"] == name).and_then(|s| s["id"].as_str()) else {
        return Ok(None);
    };
    let path = format!("/stacks/{name}/{id}");
    read(session, &path, &doing).await
}

/// The stack as it is now; `None` when it has gone.
pub async fn again(session: &Session, stack: &Stack) -> Result<Option<Stack>, Error> {
    read(session, &stack.path(), &format!("read stack {}", stack.name)).await
}

async fn read(session: &Session, path: &str, doing: &str) -> Result<Option<Stack>, Error> {
    let found = optional(session.get(Service::Orchestration, path, doing).await)?;
    Ok(found.map(|body| decode(&body["stack"])).filter(|s| s.status != "DELETE_COMPLETE"))
}

pub(crate) fn decode(stack: &Value) -> Stack {
    let text = |key: &str| stack[key].as_str().unwrap_or_default().to_owned();
    let outputs = stack["outputs"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|o| Some((o["output_key"].as_str()?.to_owned(), o["output_value"].clone())));
    let tags = stack["tags"].as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned));
    Stack {
        name: text("stack_name"),
        id: text("id"),
        status: text("stack_status"),
        reason: text("stack_status_reason"),
        tags: tags.collect(),
        outputs: outputs.collect(),
        parameters: stack["parameters"].as_object().cloned().unwrap_or_default(),
    }
}

/// The resources of a stack; none when it has gone.
pub async fn resources(session: &Session, stack: &Stack) -> Result<Vec<Resource>, Error> {
    let doing = format!("list the resources of stack {}", stack.name);
    let path = format!("{}/resources", stack.path());
    let list = optional(session.list(Service::Orchestration, &path, "resources", &doing).await)?;
    Ok(list.unwrap_or_default().iter().map(resource).collect())
}

pub(crate) fn resource(resource: &Value) -> Resource {
    let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    Resource {
        name: text("resource_name"),
        kind: text("resource_type"),
        object: text("physical_resource_id"),
        status: text("resource_status"),
        reason: text("resource_status_reason"),
    }
}

/// Begins to make a stack. A stack of that name that is there already is a conflict.
pub async fn create(session: &Session, wanted: &Wanted) -> Result<(), Error> {
    let mut body = body(wanted);
    body["stack_name"] = wanted.name.as_str().into();
    body["disable_rollback"] = true.into();
    let doing = format!("create stack {}", wanted.name);
    session.call(Call::new(Method::POST, Service::Orchestration, "/stacks", doing).with(body)).await.map(drop)
}

/// Begins to make a stack as wanted.
pub async fn update(session: &Session, stack: &Stack, wanted: &Wanted) -> Result<(), Error> {
    let doing = format!("update stack {}", stack.name);
    // PATCH keeps the parameters that are not given.
    let call = Call::new(Method::PATCH, Service::Orchestration, stack.path(), doing);
    session.call(call.with(body(wanted))).await.map(drop)
}

fn body(wanted: &Wanted) -> Value {
    json!({
        "template": wanted.template,
        "parameters": wanted.parameters,
        "tags": wanted.tags.join(","),
        "timeout_mins": TIMEOUT_MINUTES,
    })
}

/// Begins anew what a stack is busy with. What an engine has in hand it finishes first; what was an engine's that died,
/// another takes over, which by itself none does.
pub async fn go_on(session: &Session, stack: &Stack) -> Result<(), Error> {
    if stack.is_going() {
        return going(delete(session, stack).await);
    }
    let doing = format!("go on with stack {}", stack.name);
    let call = Call::new(Method::PATCH, Service::Orchestration, stack.path(), doing);
    going(session.call(call.with(json!({"parameters": {}})).repeatable()).await.map(drop))
}

/// A Heat without convergence refuses while an engine is at work (409, or 400 in the first place): then it goes on
/// already. What a dead engine left, the next that is started there calls failed.
fn going(asked: Result<(), Error>) -> Result<(), Error> {
    asked.or_else(|error| if matches!(error.status(), Some(400 | 409)) { Ok(()) } else { Err(error) })
}

/// Begins to delete a stack.
pub async fn delete(session: &Session, stack: &Stack) -> Result<(), Error> {
    session.delete(Service::Orchestration, stack.path(), &format!("delete stack {}", stack.name)).await
}

/// Lets the next update replace a resource whose object is gone; Heat does not see that by itself.
pub async fn mark_unhealthy(session: &Session, stack: &Stack, resource: &str, why: &str) -> Result<(), Error> {
    let doing = format!("mark {resource} of stack {} as gone", stack.name);
    let body = json!({"mark_unhealthy": true, "resource_status_reason": why});
    let path = format!("{}/resources/{resource}", stack.path());
    session.call(Call::new(Method::PATCH, Service::Orchestration, path, doing).with(body).repeatable()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Refusal;

    #[test]
    fn what_an_engine_is_at_work_on_goes_on_already() {
        let refused = |status| {
            let (message, doing) = ("Stack a already has an action (CREATE) in progress.".into(), "go on".into());
            Err(Error::Refused(Box::new(Refusal { doing, status, message, request_id: None })))
        };
        assert!([Ok(()), refused(400), refused(409)].into_iter().all(|asked| going(asked).is_ok()));
        assert_eq!(going(refused(403)).unwrap_err().status(), Some(403));
    }
}
