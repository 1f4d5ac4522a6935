//! What every request passes on its way in and out: who, whether, how long, written down.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use crate::{
    ApiError, Attributes, Identity, Result, Server, Warnings,
    attributes::{flag, query},
    audit::{Record, Stage},
    limits::Shares,
    rbac::ALLOWED,
    serve::{Peer, counted_for},
    wire::body,
};

/// How long a request may take that is neither a watch nor a stream.
const TIMEOUT: Duration = Duration::from_secs(60);

/// In the extensions of requests that come from within the process: who makes them.
#[derive(Clone)]
pub(crate) struct Local(pub(crate) Arc<Identity>);

/// What is written down about a request.
struct Trail {
    server: Server,
    id: String,
    identity: Identity,
    impersonated: Option<Identity>,
    attributes: Attributes,
    uri: Uri,
    source: Option<IpAddr>,
    user_agent: String,
    received: jiff::Timestamp,
    decision: String,
    code: StatusCode,
}

/// The chain of filters around everything that is served.
pub(crate) async fn chain(State(server): State<Server>, mut request: Request, next: Next) -> Response {
    let attributes = Attributes::of(request.method(), request.uri());
    let mut trail = Trail {
        id: uuid::Uuid::new_v4().to_string(),
        identity: Identity::anonymous(),
        impersonated: None,
        uri: request.uri().clone(),
        source: request.extensions().get::<Peer>().map(|peer| peer.address.ip()),
        user_agent: text(request.headers(), header::USER_AGENT),
        received: server.now(),
        decision: String::new(),
        code: StatusCode::OK,
        attributes,
        server: server.clone(),
    };
    let warnings = Arc::new(Warnings::default());
    let mut stage = Stage::ResponseComplete;
    let mut response = match admit(&server, &mut trail, &mut request).await {
        Err(error) => error.into_response(),
        Ok(()) => {
            let identity = trail.impersonated.as_ref().unwrap_or(&trail.identity).clone();
            request.extensions_mut().insert(identity);
            request.extensions_mut().insert(trail.attributes.clone());
            request.extensions_mut().insert(warnings.clone());
            let answer = AssertUnwindSafe(bounded(&server, &trail, request, next)).catch_unwind().await;
            let answer = answer.map(|answer| answer.unwrap_or_else(IntoResponse::into_response));
            answer.unwrap_or_else(|panic| {
                stage = Stage::Panic;
                let what = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let what = what.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                ApiError::internal(format!("{} {} panicked: {what}", trail.attributes.verb, trail.uri.path()))
                    .into_response()
            })
        }
    };
    trail.code = response.status();
    warnings.write(response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(&trail.id) {
        response.headers_mut().insert(HeaderName::from_static("audit-id"), id);
    }
    let private = HeaderValue::from_static("no-cache, private");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(private);
    if is_long(&trail.attributes, &trail.uri) && stage == Stage::ResponseComplete && trail.code.is_success() {
        trail.record(Stage::ResponseStarted);
        return keeping(response, End(trail));
    }
    trail.record(stage);
    response
}

/// Who is it, and may it?
async fn admit(server: &Server, trail: &mut Trail, request: &mut Request) -> Result<()> {
    let config = server.config();
    if config.doors.iter().any(|door| door.path == request.uri().path()) {
        trail.decision = format!("{} judges its callers itself{ALLOWED}", request.uri().path());
        return Ok(());
    }
    trail.identity = match request.extensions().get::<Local>() {
        Some(Local(identity)) => Identity::clone(identity),
        None => {
            let cert = request.extensions().get::<Peer>().and_then(|peer| peer.certificate.clone());
            let authorization = text(request.headers(), header::AUTHORIZATION);
            let bearer = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let bearer = bearer.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
            config.authenticator.authenticate(cert.as_deref(), bearer).await?.unwrap_or_else(Identity::anonymous)
        }
    };
    trail.impersonated = impersonated(server, &trail.identity, request.headers())?;
    let identity = trail.impersonated.as_ref().unwrap_or(&trail.identity);
    let decision = config.authorizer.decide_soon(identity, &trail.attributes).await;
    trail.decision = decision.reason;
    match decision.allowed {
        true if changes(&trail.attributes) && !config.audit.keeps_up() => Err(ApiError::unaudited()),
        true => Ok(()),
        false if *identity == Identity::anonymous() => Err(ApiError::unauthorized()),
        false => Err(ApiError::forbidden(identity, &trail.attributes, &trail.decision)),
    }
}

/// Whom a request wants to act as, if it may.
fn impersonated(server: &Server, identity: &Identity, headers: &HeaderMap) -> Result<Option<Identity>> {
    let user = text(headers, HeaderName::from_static("impersonate-user"));
    let all = |name: &str| headers.get_all(name).into_iter().filter_map(|v| Some(v.to_str().ok()?.to_owned()));
    let (mut groups, uid): (Vec<String>, _) = (all("impersonate-group").collect(), all("impersonate-uid").next());
    let others = headers.keys().any(|k| k.as_str().starts_with("impersonate-extra-"));
    if user.is_empty() {
        return match groups.is_empty() && uid.is_none() && !others {
            true => Ok(None),
            false => Err(ApiError::bad_request("impersonation needs Impersonate-User")),
        };
    }
    if others {
        return Err(ApiError::bad_request("Impersonate-Extra is not supported"));
    }
    let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    let ask = |resource: &str, group: &str, namespace: &str, name: &str| {
        let at = Attributes {
            verb: "impersonate".into(),
            group: group.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            is_resource: true,
            ..Attributes::default()
        };
        let decision = server.config().authorizer.decide(identity, &at);
        if decision.allowed { Ok(()) } else { Err(ApiError::forbidden(identity, &at, &decision.reason)) }
    };
    match account {
        Some((namespace, name)) => ask("serviceaccounts", "", namespace, name)?,
        None => ask("users", "", "", &user)?,
    }
    groups.iter().try_for_each(|group| ask("groups", "", "", group))?;
    if let Some(uid) = &uid {
        ask("uids", "authentication.k8s.io", "", uid)?;
    }
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    groups.push(crate::identity::AUTHENTICATED.to_owned());
    Ok(Some(Identity { user, uid: uid.unwrap_or_default(), groups, ..Identity::default() }))
}

/// Runs what is served within its limits: so many at a time, each so long.
async fn bounded(server: &Server, trail: &Trail, mut request: Request, next: Next) -> Result<Response> {
    // What comes from within is not held up: a client's request may wait for it.
    let local = request.extensions().get::<Local>().is_some();
    let take = |shares: &Arc<Shares>| {
        let share = if local { None } else { shares.take(&holder(trail)) };
        let refused = || ApiError::too_many("too many requests, please try again later", 1);
        if local || share.is_some() { Ok(share) } else { Err(refused()) }
    };
    if is_long(&trail.attributes, &trail.uri) {
        let share = take(server.long())?;
        return Ok(keeping(next.run(request).await, share));
    }
    let patience = patience(&trail.uri)?;
    // A body comes as slowly as its sender likes: it holds no place of those who only wait for an answer.
    if !request.body().is_end_stream() {
        let _arriving = take(server.bodies())?;
        let (parts, body) = request.into_parts();
        request = Request::from_parts(parts, body::collect(body).await?.into());
    }
    let _share = take(server.in_flight())?;
    let answer = tokio::time::timeout(patience, next.run(request)).await;
    answer.map_err(|_| ApiError::timeout(format!("the request did not end within {patience:?}; it may have been done")))
}

/// How long a request may take: as long as it says itself, at most [`TIMEOUT`].
fn patience(uri: &Uri) -> Result<Duration> {
    let Some(text) = query(uri, "timeout").filter(|text| !text.is_empty()) else { return Ok(TIMEOUT) };
    let asked = text.parse::<jiff::SignedDuration>().ok().and_then(|asked| Duration::try_from(asked).ok());
    match asked {
        Some(Duration::ZERO) => Ok(TIMEOUT),
        Some(asked) => Ok(asked.min(TIMEOUT)),
        None => Err(ApiError::bad_request(format!("invalid timeout specified in the request URL: {text:?}"))),
    }
}

/// Who takes a place: the user; of those that nobody knows, each host for itself.
fn holder(trail: &Trail) -> String {
    match trail.source {
        Some(source) if trail.identity == Identity::anonymous() => counted_for(source),
        _ => trail.identity.user.clone(),
    }
}

/// The response, whose body holds `held` until it is done with.
pub(crate) fn keeping(response: Response, held: impl Send + 'static) -> Response {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _ = &held;
            frame
        }))
    })
}

/// Whether a request may leave something other than it was: all that are not plain reads.
fn changes(at: &Attributes) -> bool {
    let stream = matches!(at.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    at.is_resource && (stream || !matches!(at.verb.as_str(), "get" | "list" | "watch"))
}

/// Whether an answer may take as long as it likes.
fn is_long(at: &Attributes, uri: &Uri) -> bool {
    let stream = matches!(at.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
    let follow = at.subresource == "log" && query(uri, "follow").is_some_and(|v| flag(&v));
    at.is_resource && (at.verb == "watch" || stream || follow)
}

fn text(headers: &HeaderMap, name: HeaderName) -> String {
    headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

impl Trail {
    fn record(&self, stage: Stage) {
        self.server.config().audit.record(&Record {
            id: &self.id,
            stage,
            identity: &self.identity,
            impersonated: self.impersonated.as_ref(),
            attributes: &self.attributes,
            uri: &self.uri,
            source: self.source,
            user_agent: &self.user_agent,
            code: self.code,
            decision: &self.decision,
            received: self.received,
            at: self.server.now(),
        });
    }
}

/// Writes the end of a long answer down, however it ends.
struct End(Trail);

impl Drop for End {
    fn drop(&mut self) {
        self.0.record(Stage::ResponseComplete);
    }
}
