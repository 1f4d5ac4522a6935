//! Pulls from a registry that breaks, lies, stalls and asks for passwords.

mod common;
#[path = "common/server.rs"]
mod server;

use common::{Content, Layer, Place, Tar};
use images::{Config, Credentials, Error, Image, Images, Keyring, Progress, Reference};
use server::{Reply, Server};
use std::{fs, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// Bytes that do not compress, so that a layer is as long on the wire as it is.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let next = || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn layer(name: &str, seed: u64) -> Layer {
    Layer::gzip(Tar::default().file(name, &noise(600_000, seed)).end())
}

fn quick() -> Config {
    Config { stall: Duration::from_millis(300), ..Config::default() }
}

async fn pull(images: &Images, reference: &Reference) -> Result<Image, Error> {
    images.pull(reference, &Credentials::Anonymous, &watch::Sender::default()).await
}

fn basic(password: &str) -> Credentials {
    Credentials::Basic { user: "me".into(), password: password.into() }
}

/// The layers are whole: what the store says is what the image has.
fn assert_whole(image: &Image, files: &[(&str, u64)]) {
    for (layer, (name, seed)) in image.layers.iter().rev().zip(files) {
        assert_eq!(fs::read(layer.join(name)).unwrap(), noise(600_000, *seed));
    }
    assert_eq!(image.layers.len(), files.len());
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_sees_no_password() {
    let content = || Content::image(&[layer("a", 1)]);
    let (mirror, registry) = (Server::honest(content()).await, Server::honest(content()).await);
    let at = |server: &Server| server.reference().registry().to_owned();
    let mirrored = |endpoint: String| Config {
        mirrors: vec![images::Mirror { registry: at(&registry), endpoint: format!("http://{endpoint}") }],
        ..quick()
    };
    let place = Place::new(mirrored(at(&mirror)));
    let wanted = registry.reference();
    place.images.pull(&wanted, &basic("secret"), &watch::Sender::default()).await.unwrap();
    assert!(registry.seen("/v2/").is_empty() && mirror.seen("/blobs/").len() == 2);
    assert!(mirror.seen("/v2/").iter().all(|request| request.header("authorization").is_empty()));

    // One that is not there is passed over.
    let place = Place::new(mirrored("127.0.0.1:1".into()));
    pull(&place.images, &wanted).await.unwrap();
    assert_eq!(registry.seen("/blobs/").len(), 2);
}

#[tokio::test]
async fn pulled_once_and_found_again() {
    let place = Place::new(quick());
    let server = Server::honest(Content::image(&[layer("a", 1), layer("b", 2)]).index()).await;
    let (progress, seen) = watch::channel(Progress::default());
    let image = place.images.pull(&server.reference(), &Credentials::Anonymous, &progress).await.unwrap();
    assert_whole(&image, &[("a", 1), ("b", 2)]);
    let seen = *seen.borrow();
    assert!(seen.done == seen.total && seen.total > 1_200_000 && (seen.layers, seen.ready) == (2, 2), "{seen:?}");
    assert_eq!(server.seen("/blobs/").len(), 3);
    assert!(image.names.contains(&server.reference().to_string()) && image.digest.contains("@sha256:"));

    for name in [server.reference().to_string(), image.id.clone(), image.digest.clone()] {
        assert_eq!(place.images.get(&name).await.unwrap().as_ref(), Some(&image), "{name}");
    }
    assert_eq!(place.images.list().await.unwrap(), std::slice::from_ref(&image));
    assert_eq!(pull(&place.images, &server.reference()).await.unwrap(), image);
    assert_eq!(server.seen("/blobs/").len(), 3, "nothing is fetched again");
    // By digest, and after a restart.
    let again = Images::open(&place.store(), quick()).unwrap();
    assert_eq!(pull(&again, &image.digest.parse().unwrap()).await.unwrap(), image);
    assert_eq!(server.seen("/blobs/").len(), 3);
    assert!(again.remove(&server.reference().to_string()).await.unwrap());
    assert_eq!(again.get(&image.id).await.unwrap(), None);
    assert!(!again.remove("never/was:here").await.unwrap());
}

#[tokio::test]
async fn broken_connections_are_resumed_where_they_broke() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") {
            reply.length = Some(reply.body.len());
            reply.cut = Some(100_000);
        }
        reply
    })
    .await;
    assert_whole(&pull(&place.images, &server.reference()).await.unwrap(), &[("a", 1)]);
    let ranges: Vec<_> = server.seen("/blobs/").iter().map(|r| r.from()).filter(|f| *f > 0).collect();
    assert_eq!(ranges, [100_000, 200_000, 300_000, 400_000, 500_000, 600_000]);
}

#[tokio::test]
async fn registry_without_ranges_is_read_again_from_the_start() {
    let place = Place::new(quick());
    let content = Content::image(&[layer("a", 1)]);
    let blobs = content.blobs.clone();
    let server = Server::start(content, move |request, reply| {
        let Some(bytes) = blobs.get(request.path.rsplit('/').next().unwrap()).filter(|b| b.len() > 100_000) else {
            return reply;
        };
        let mut reply = Reply::new(200, bytes.clone());
        reply.cut = (request.nth < 2).then_some(150_000 * (request.nth + 1));
        reply
    })
    .await;
    assert_whole(&pull(&place.images, &server.reference()).await.unwrap(), &[("a", 1)]);
}

#[tokio::test]
async fn stalled_registry_is_resumed() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && request.nth == 0 && reply.body.len() > 100_000 {
            (reply.length, reply.cut, reply.stall) = (Some(reply.body.len()), Some(100_000), true);
        }
        reply
    })
    .await;
    assert_whole(&pull(&place.images, &server.reference()).await.unwrap(), &[("a", 1)]);
}

#[tokio::test]
async fn registry_stalled_for_good() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && reply.body.len() > 100_000 {
            (reply.length, reply.cut, reply.stall) = (Some(reply.body.len()), Some(0), true);
        }
        reply
    })
    .await;
    assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::Stalled { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn a_trickle_is_no_progress() {
    let place = Place::new(quick());
    for what in ["/blobs/", "/manifests/"] {
        let server = Server::start(Content::image(&[layer("a", 1)]), move |request, mut reply| {
            if request.path.contains(what) {
                (reply.length, reply.cut, reply.trickle) = (Some(reply.body.len()), Some(0), true);
            }
            reply
        })
        .await;
        assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::Stalled { .. })), "{what}");
    }
    place.assert_untouched();
}

#[tokio::test]
async fn byte_by_byte_is_no_progress() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && reply.body.len() > 100_000 {
            reply.cut = Some(1);
        }
        reply
    })
    .await;
    assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::Unreachable { .. })));
    assert!(server.seen("/blobs/").len() < 10);
    place.assert_untouched();
}

#[tokio::test]
async fn content_length_too_short_is_resumed() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && request.nth == 0 {
            reply.length = Some(reply.body.len() / 2);
            reply.cut = reply.length;
        }
        reply
    })
    .await;
    assert_whole(&pull(&place.images, &server.reference()).await.unwrap(), &[("a", 1)]);
}

#[tokio::test]
async fn more_bytes_than_promised() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && reply.body.len() > 100_000 {
            reply.body.extend(noise(1000, 3));
        }
        reply
    })
    .await;
    assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::Digest { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn another_range_than_asked_for() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, mut reply| {
        if request.path.contains("/blobs/") && request.nth == 0 {
            reply.cut = Some(100_000);
        } else if reply.status == 206 {
            reply.headers = vec![("Content-Range", "bytes 7-8/9".into())];
        }
        reply
    })
    .await;
    assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::Unreachable { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn flipped_byte_is_never_kept() {
    for part in ["/blobs/", "/manifests/sha256"] {
        let place = Place::new(quick());
        let server = Server::start(Content::image(&[layer("a", 1)]).index(), move |request, mut reply| {
            if request.path.contains(part) {
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
            }
            reply
        })
        .await;
        let error = pull(&place.images, &server.reference()).await.unwrap_err();
        assert!(matches!(error, Error::Digest { .. } | Error::Archive { .. }), "{error:?}");
        place.assert_untouched();
    }
}

#[tokio::test]
async fn manifest_of_ten_megabytes() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, reply| {
        if request.path.contains("/manifests/") { Reply::new(200, vec![b' '; 10 << 20]) } else { reply }
    })
    .await;
    assert!(matches!(pull(&place.images, &server.reference()).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn errors_keep_what_the_registry_said() {
    let place = Place::new(quick());
    let answers: [(u16, &str); 4] = [
        (404, r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#),
        (403, r#"{"errors":[{"code":"DENIED","message":"not for you"}]}"#),
        (503, "out to lunch\u{1b}[2J"),
        (429, r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#),
    ];
    for (status, body) in answers {
        let server = Server::start(Content::default(), move |_, _| Reply::new(status, body)).await;
        let error = pull(&place.images, &server.reference()).await.unwrap_err();
        let said = error.to_string();
        match status {
            404 => assert!(
                matches!(error, Error::NotFound { .. }) && said.contains("NAME_UNKNOWN: no such thing"),
                "{said}"
            ),
            403 => assert!(matches!(error, Error::Denied { .. }) && said.contains("DENIED: not for you"), "{said}"),
            503 => assert!(error.is_transient() && said.contains("out to lunch") && !said.contains('\u{1b}'), "{said}"),
            _ => assert!(error.is_transient() && said.contains("TOOMANYREQUESTS"), "{said}"),
        }
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = format!("127.0.0.1:{port}/app").parse().unwrap();
    let error = pull(&place.images, &down).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { registry_said, .. } if registry_said.contains("refused")),
        "{error:?}"
    );
    place.assert_untouched();
}

#[tokio::test]
async fn pulls_of_one_image_are_one() {
    let place = Place::new(quick());
    let server = Server::honest(Content::image(&[layer("a", 1), layer("b", 2)])).await;
    let reference = server.reference();
    let pulls = (0..10).map(|_| pull(&place.images, &reference));
    let pulled = futures::future::try_join_all(pulls).await.unwrap();
    assert!(pulled.iter().all(|i| *i == pulled[0]));
    assert_eq!((server.seen("/manifests/").len(), server.seen("/blobs/").len()), (1, 3));
}

#[tokio::test]
async fn failure_reaches_all_who_wait_and_is_not_remembered() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, reply| {
        if request.nth == 0 && request.path.contains("/manifests/") { Reply::new(500, "once") } else { reply }
    })
    .await;
    let reference = server.reference();
    let pulls = (0..3).map(|_| pull(&place.images, &reference));
    assert!(futures::future::join_all(pulls).await.iter().all(|r| matches!(r, Err(Error::Unreachable { .. }))));
    pull(&place.images, &reference).await.unwrap();
}

#[tokio::test]
async fn shared_layer_is_fetched_once_and_kept_once() {
    let place = Place::new(quick());
    let one = Server::honest(Content::image(&[layer("a", 1), layer("b", 2)])).await;
    let two = Server::honest(Content::image(&[layer("a", 1), layer("c", 3)])).await;
    let (a, b) = (one.reference(), two.reference());
    let (x, y) = tokio::join!(pull(&place.images, &a), pull(&place.images, &b));
    let (x, y) = (x.unwrap(), y.unwrap());
    assert_eq!(x.layers[1], y.layers[1]);
    // Two registries do not wait for each other, but what they bring is kept once, and the next one finds it.
    let three = Server::honest(Content::image(&[layer("a", 1), layer("b", 2)])).await;
    pull(&place.images, &three.reference()).await.unwrap();
    assert_eq!(three.seen("/blobs/").len(), 0);
    assert_eq!(fs::read_dir(place.store().join("layers/sha256")).unwrap().count(), 3);
}

#[tokio::test]
async fn dropped_pull_ends_and_leaves_nothing() {
    let place = Place::new(quick());
    let reached = Arc::new(Semaphore::new(0));
    let signal = reached.clone();
    let server = Server::start(Content::image(&[layer("a", 1)]), move |request, mut reply| {
        if request.path.contains("/blobs/") && reply.body.len() > 100_000 {
            (reply.length, reply.cut, reply.stall) = (Some(reply.body.len()), Some(100_000), true);
            signal.add_permits(1);
        }
        reply
    })
    .await;
    let (images, reference) = (place.images.clone(), server.reference());
    let pulling = tokio::spawn(async move { pull(&images, &reference).await });
    let _ = reached.acquire().await.unwrap();
    until("the layer has a place", || !place.staged().is_empty()).await;
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    until("staging is empty", || place.staged().is_empty()).await;
    place.assert_untouched();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn unauthorized(challenge: String) -> Reply {
    let mut reply = Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#);
    reply.headers.push(("WWW-Authenticate", challenge));
    reply
}

#[tokio::test]
async fn token_is_had_for_a_password_and_used() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, reply| {
        let host = request.header("host");
        if request.path == "/token" {
            // me:right
            let right = request.header("authorization") == "Basic bWU6cmlnaHQ=";
            let scoped =
                request.query.contains("scope=repository%3Aapp%3Apull") && request.query.contains("service=reg");
            return if right && scoped {
                Reply::new(200, r#"{"token":"t0k"}"#)
            } else {
                Reply::new(401, "who are you")
            };
        }
        let challenge = format!(r#"Bearer realm="http://{host}/token",service="reg",scope="repository:app:pull,push""#);
        if request.header("authorization") == "Bearer t0k" { reply } else { unauthorized(challenge) }
    })
    .await;
    let error = pull(&place.images, &server.reference()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Denied { registry_said, .. } if registry_said.contains("who are you")),
        "{error:?}"
    );
    let wrong = place.images.pull(&server.reference(), &basic("wrong"), &watch::Sender::default()).await;
    assert!(matches!(wrong, Err(Error::Denied { .. })));
    place.images.pull(&server.reference(), &basic("right"), &watch::Sender::default()).await.unwrap();
    assert!(server.seen("/blobs/").iter().all(|r| r.header("authorization") == "Bearer t0k"));
}

#[tokio::test]
async fn others_do_not_join_a_pull_that_has_better_rights() {
    let place = Place::new(quick());
    let server = Server::start(Content::image(&[layer("a", 1)]), |request, reply| {
        if request.header("authorization") == "Basic bWU6cmlnaHQ=" {
            reply
        } else {
            unauthorized("Basic realm=\"r\"".into())
        }
    })
    .await;
    let (reference, progress, right) = (server.reference(), watch::Sender::default(), basic("right"));
    let (with, without) =
        tokio::join!(place.images.pull(&reference, &right, &progress), pull(&place.images, &reference));
    assert!(with.is_ok());
    assert!(
        matches!(&without, Err(Error::Denied { registry_said, .. }) if registry_said.contains("authentication required")),
        "{without:?}"
    );
}

#[tokio::test]
async fn redirects_do_not_take_the_password_along() {
    let place = Place::new(quick());
    let content = Content::image(&[layer("a", 1)]);
    let elsewhere = Server::honest(content.clone()).await;
    let to = elsewhere.port;
    let server = Server::start(content, move |request, reply| {
        if request.header("authorization") != "Basic bWU6cmlnaHQ=" {
            return unauthorized("Basic realm=\"r\"".into());
        }
        if !request.path.contains("/blobs/") {
            return reply;
        }
        let mut reply = Reply::new(307, "");
        reply.headers.push(("Location", format!("http://localhost:{to}{}", request.path)));
        reply
    })
    .await;
    place.images.pull(&server.reference(), &basic("right"), &watch::Sender::default()).await.unwrap();
    assert_eq!(elsewhere.seen("/blobs/").len(), 2);
    assert!(elsewhere.seen("").iter().all(|r| r.header("authorization").is_empty()));
}

#[tokio::test]
async fn collection_keeps_what_is_used() {
    let place = Place::new(quick());
    let one = Server::honest(Content::image(&[layer("a", 1), layer("b", 2)])).await;
    let two = Server::honest(Content::image(&[layer("a", 1), layer("c", 3)])).await;
    let x = pull(&place.images, &one.reference()).await.unwrap();
    let y = pull(&place.images, &two.reference()).await.unwrap();
    place.images.prepare(&x, "box").await.unwrap();
    let all = images::Policy { high_percent: 0, low_percent: 0, min_age: Duration::ZERO };
    let layers = || fs::read_dir(place.store().join("layers/sha256")).unwrap().count();

    let kept = place.images.collect(all, [x.id.clone(), y.id.clone()].into()).await.unwrap();
    assert_eq!((kept.images.len(), kept.layers, layers()), (0, 0, 3));
    let kept = place.images.collect(images::Policy::default(), Default::default()).await.unwrap();
    assert_eq!((kept.images.len(), kept.layers), (0, 0), "a fresh image stays");

    let mut gone = place.images.collect(all, Default::default()).await.unwrap();
    gone.images.sort();
    let mut both = vec![x.id.clone(), y.id.clone()];
    both.sort();
    assert_eq!((gone.images, gone.layers, layers()), (both, 1, 2), "the snapshot's layers stay");
    assert_eq!(place.images.list().await.unwrap(), []);
    assert!(place.images.snapshot("box").await.unwrap().unwrap().lower.iter().all(|l| l.exists()));

    place.images.discard("box").await.unwrap();
    assert_eq!(place.images.collect(all, Default::default()).await.unwrap().layers, 2);
    place.assert_untouched();
    assert_eq!(fs::read_dir(place.store().join("blobs/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn docker_configuration_gives_the_credentials() {
    let file = br#"{"auths": {"127.0.0.1:7": {"auth": "bWU6cmlnaHQ="}}}"#;
    assert_eq!(
        Keyring::parse(file).unwrap().matching(&"127.0.0.1:7/a".parse().unwrap()).swap_remove(0),
        basic("right")
    );
}
