use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use rustls::pki_types::pem::PemObject;

use super::*;

/// A world of a few objects and a clock that a test moves.
struct World {
    objects: Mutex<HashMap<String, Held>>,
}

#[async_trait]
impl Holders for World {
    async fn find(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Held>> {
        Ok(self.objects.lock().unwrap().get(&format!("{plural}/{namespace}/{name}")).cloned())
    }
}

struct Fixture {
    pki: Pki,
    authenticator: Authenticator,
    world: Arc<World>,
    seconds: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let held = |uid: &str| Held { uid: uid.into(), deleted: None };
        let objects = [("serviceaccounts/a/builder", "sa-1"), ("pods/a/web", "pod-1")];
        let objects = objects.map(|(key, uid)| (key.to_owned(), held(uid)));
        let world = Arc::new(World { objects: Mutex::new(objects.into()) });
        let ticks = seconds.clone();
        let clock: Clock = Arc::new(move || Timestamp::from_second(ticks.load(Ordering::SeqCst)).unwrap());
        let pki = Pki::open(dir.path(), clock()).unwrap();
        let authenticator = Authenticator::new(&pki, world.clone(), clock).unwrap();
        Self { pki, authenticator, world, seconds, _dir: dir }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.seconds.load(Ordering::SeqCst)).unwrap()
    }

    fn token(&self, audiences: &[&str]) -> String {
        let reference = |name: &str, uid: &str| Reference { name: name.into(), uid: uid.into() };
        let bound = Bound {
            namespace: "a".into(),
            node: Some(reference("n1", "node-1")),
            pod: Some(reference("web", "pod-1")),
            secret: None,
            serviceaccount: reference("builder", "sa-1"),
        };
        let audiences = audiences.iter().map(|a| (*a).to_owned()).collect();
        self.authenticator.tokens().unwrap().issue(Issue { bound, audiences, seconds: 3607 }, self.now()).unwrap().0
    }

    async fn bearer(&self, token: &str) -> std::result::Result<String, u16> {
        let found = self.authenticator.authenticate(None, Some(token)).await;
        found.map(|identity| identity.unwrap().user).map_err(|e| e.code.as_u16())
    }

    async fn certificate(&self, credentials: &pki::Credentials) -> std::result::Result<Identity, u16> {
        let der = CertificateDer::from_pem_slice(credentials.cert.as_bytes()).unwrap();
        let found = self.authenticator.authenticate(Some(&der), None).await;
        found.map(Option::unwrap).map_err(|e| e.code.as_u16())
    }
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_pod_and_account() {
    let f = Fixture::new();
    let token = f.token(&[]);
    let builder = Ok("system:serviceaccount:a:builder".to_owned());
    assert_eq!(f.bearer(&token).await, builder);
    for key in ["pods/a/web", "serviceaccounts/a/builder"] {
        let held = f.world.objects.lock().unwrap().remove(key).unwrap();
        assert_eq!(f.bearer(&token).await, Err(401), "{key} is gone");
        let other = Held { uid: "another".into(), ..held.clone() };
        f.world.objects.lock().unwrap().insert(key.into(), other);
        assert_eq!(f.bearer(&token).await, Err(401), "{key} is another one");
        f.world.objects.lock().unwrap().insert(key.into(), held);
        assert_eq!(f.bearer(&token).await, builder);
    }
    f.world.objects.lock().unwrap().get_mut("pods/a/web").unwrap().deleted = Some(f.now());
    assert_eq!(f.bearer(&token).await, builder, "while the pod ends");
    f.seconds.fetch_add(61, Ordering::SeqCst);
    assert_eq!(f.bearer(&token).await, Err(401), "long after");
}

#[tokio::test]
async fn a_token_has_its_time() {
    let f = Fixture::new();
    let token = f.token(&[]);
    f.seconds.fetch_add(3606, Ordering::SeqCst);
    assert!(f.bearer(&token).await.is_ok());
    f.seconds.fetch_add(1, Ordering::SeqCst);
    assert_eq!(f.bearer(&token).await, Err(401), "expired");
    f.seconds.fetch_sub(3608, Ordering::SeqCst);
    assert_eq!(f.bearer(&token).await, Err(401), "not yet valid");
}

#[tokio::test]
async fn a_token_is_for_its_audience() {
    let f = Fixture::new();
    let token = f.token(&["vault", "other"]);
    assert_eq!(f.bearer(&token).await, Err(401));
    let (identity, audiences) = f.authenticator.review(&token, &["vault", "x"]).await.unwrap().unwrap();
    assert_eq!(audiences, ["vault"]);
    assert_eq!(identity.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert_eq!(identity.extra["authentication.kubernetes.io/pod-name"], ["web"]);
    assert!(f.authenticator.review(&token, &[]).await.unwrap().is_none());
}

#[tokio::test]
async fn a_forged_token_is_refused() {
    let (f, stranger) = (Fixture::new(), Fixture::new());
    assert_eq!(f.bearer(&stranger.token(&[])).await, Err(401), "another cluster's");
    let token = f.token(&[]);
    let parts: Vec<&str> = token.split('.').collect();
    let decode = |part: &str| base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, part).unwrap();
    let encode = |text: String| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text);
    let claims = String::from_utf8(decode(parts[1])).unwrap().replace("a:builder", "kube-system:admin");
    assert_eq!(f.bearer(&[parts[0], &encode(claims), parts[2]].join(".")).await, Err(401), "changed");
    let none = encode(r#"{"alg":"none"}"#.into());
    assert_eq!(f.bearer(&[&none, parts[1], ""].join(".")).await, Err(401), "unsigned");
    for junk in ["", "x", "a.b.c", "....", "\u{0}"] {
        assert_eq!(f.bearer(junk).await, Err(401), "{junk:?}");
    }
}

#[tokio::test]
async fn a_certificate_names_user_and_group_until_it_ends() {
    let f = Fixture::new();
    let node = f.pki.node("n1", f.now()).unwrap();
    for _ in 0..2 {
        let identity = f.certificate(&node).await.unwrap();
        assert_eq!(identity.user, "system:node:n1");
        assert_eq!(identity.groups, ["system:nodes", "system:authenticated"]);
    }
    assert_eq!(f.certificate(&Fixture::new().pki.node("n1", f.now()).unwrap()).await, Err(401), "another authority's");
    f.seconds.fetch_add(366 * 86400, Ordering::SeqCst);
    assert_eq!(f.certificate(&node).await, Err(401), "a connection outlived it");
}

#[tokio::test]
async fn nothing_shown_is_nobody() {
    assert_eq!(Fixture::new().authenticator.authenticate(None, None).await.unwrap(), None);
    assert_eq!(Authenticator::default().authenticate(None, None).await.unwrap(), None);
    assert!(Authenticator::default().authenticate(None, Some("x")).await.is_err());
}

#[test]
fn keys_are_published() {
    let f = Fixture::new();
    let jwks = f.authenticator.tokens().unwrap().jwks();
    let jwk = serde_json::from_value(jwks["keys"][0].clone()).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[ISSUER]);
    let found = jsonwebtoken::decode::<Claims>(f.token(&[]), &key, &validation);
    assert_eq!(found.unwrap().claims.bound.namespace, "a");
}
