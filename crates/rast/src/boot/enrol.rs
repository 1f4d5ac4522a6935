//! Enrolment: whoever holds the key whose hash the machine was told is given a certificate for it, and nobody else.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use apiserver::{
    ApiError, Door,
    pki::{Error, Pki, Request},
    rbac::MASTERS,
};
use axum::{
    Json,
    extract::{DefaultBodyLimit, State},
    routing::post,
};
use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use os::config::metadata::{Metadata, SERVICE};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// A request is shorter than this.
const LIMIT: usize = 16 << 10;
/// How long what the metadata service said is believed: a stranger must not make us ask it all the time.
const BELIEF: Duration = Duration::from_secs(5);

struct Enrolment {
    pki: Arc<Pki>,
    keys: Vec<String>,
    service: Metadata,
    told: Mutex<Option<(Instant, Vec<String>)>>,
}

/// The door, for these keys and those in the server's metadata under `rastos-enrol`.
pub fn door(pki: Arc<Pki>, keys: &[String]) -> Door {
    door_of(pki, keys, Metadata::new(SERVICE))
}

fn door_of(pki: Arc<Pki>, keys: &[String], service: Metadata) -> Door {
    let enrolment = Enrolment { pki, keys: keys.to_vec(), service, told: Mutex::default() };
    let answers = post(enrol).layer(DefaultBodyLimit::max(LIMIT)).with_state(Arc::new(enrolment));
    Door { path: "/enrol", answers }
}

async fn enrol(State(enrolment): State<Arc<Enrolment>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let request = Request::read(&body).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let key = hex::encode(request.key());
    if !enrolment.keys.contains(&key) && !enrolment.clone().told(&key).await {
        let message = format!("enrolment: the key {key} was not announced to this machine");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    let user = format!("enrolled:{}", &key[..16]);
    let signed = enrolment.pki.sign(request, &user, MASTERS, Timestamp::now());
    let certificate = signed.map_err(|e: Error| ApiError::internal(e.to_string()))?;
    tracing::warn!(user, "a client was enrolled as administrator");
    Ok(Json(json!({"certificate": certificate, "ca": enrolment.pki.ca()})))
}

impl Enrolment {
    /// Whether the server's metadata names the key; asked anew for one that is unknown, but not too often.
    async fn told(self: Arc<Self>, key: &str) -> bool {
        let mut told = self.told.lock().await;
        if let Some((at, keys)) = told.as_ref()
            && (at.elapsed() < BELIEF || keys.iter().any(|k| k == key))
        {
            return keys.iter().any(|k| k == key);
        }
        let asking = self.clone();
        let keys = match tokio::task::spawn_blocking(move || asking.service.meta()).await {
            Ok(Ok(meta)) => meta.enrol(),
            Ok(Err(error)) => {
                tracing::debug!("enrolment: {error}");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let known = keys.iter().any(|k| k == key);
        *told = Some((Instant::now(), keys));
        known
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt as _;
    use rcgen::{CertificateParams, KeyPair};
    use sha2::{Digest as _, Sha256};
    use tower::ServiceExt as _;

    use super::*;

    fn request() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let hash = hex::encode(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)));
        (CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap(), hash)
    }

    async fn knock(door: &Door, body: &str) -> (StatusCode, Value) {
        let router = Router::new().route(door.path, door.answers.clone());
        let request = http::Request::post("/enrol").body(Body::from(body.to_owned())).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// A metadata service that names these keys.
    async fn metadata(keys: &'static str) -> Metadata {
        let answer = json!({"uuid": "u", "meta": {"rastos-enrol": keys}});
        let app = Router::new().route("/openstack/latest/meta_data.json", get(async move || Json(answer)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Metadata::new(&base)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_announced_keys_are_signed() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Arc::new(Pki::open(dir.path(), Timestamp::now()).unwrap());
        let ((known, hash), (stranger, _), (told, told_hash)) = (request(), request(), request());
        let keys = format!("aa, {told_hash}").leak();
        let door = door_of(pki.clone(), &[hash], metadata(keys).await);
        for body in [&known, &told] {
            let (status, answer) = knock(&door, body).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["ca"], pki.ca());
            assert!(answer["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        }
        let (status, answer) = knock(&door, &stranger).await;
        assert_eq!((status.as_u16(), &answer["reason"]), (403, &json!("Forbidden")));
        assert_eq!(knock(&door, "nonsense").await.0, 400);
        assert_eq!(knock(&door, &"x".repeat(LIMIT + 1)).await.0, 413);
    }
}
