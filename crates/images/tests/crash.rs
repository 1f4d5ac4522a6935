//! Processes that share a store, and processes killed in the middle of a pull; Debian's own registry.

mod common;
#[path = "common/server.rs"]
mod server;

use common::{Content, Layer, Place, Tar};
use images::{Config, Credentials, Error, Images, Reference};
use server::Server;
use std::{
    env, fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Semaphore, watch};

fn layer(name: &str) -> Layer {
    let data: Vec<u8> = (0..600_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    Layer::zstd(Tar::default().file(name, &data).end())
}

/// What a child of these tests does: one pull. Not a test by itself.
#[tokio::test]
#[ignore = "run by the other tests, in a process of its own"]
async fn child() {
    let Ok(store) = env::var("IMAGES_STORE") else { return };
    let images = Images::open(Path::new(&store), Config::default()).unwrap();
    let reference: Reference = env::var("IMAGES_REFERENCE").unwrap().parse().unwrap();
    images.pull(&reference, &Credentials::Anonymous, &watch::Sender::default()).await.unwrap();
}

fn pull_in_child(store: &Path, reference: &Reference) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored"])
        .env("IMAGES_STORE", store)
        .env("IMAGES_REFERENCE", reference.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn killed_pull_leaves_staging_only_and_its_finished_layers_are_used() {
    let place = Place::new(Config::default());
    let (first, second) = (layer("first"), layer("second"));
    let stuck = images::Digest::of(&second.bytes).to_string();
    let content = Content::image(&[first.clone(), second]);
    let reached = Arc::new(Semaphore::new(0));
    let signal = reached.clone();
    let server = Server::start(content, move |request, mut reply| {
        if request.path.ends_with(&stuck) && request.nth == 0 {
            (reply.length, reply.cut, reply.stall) = (Some(reply.body.len()), Some(100_000), true);
            signal.add_permits(1);
        }
        reply
    })
    .await;
    let mut child = pull_in_child(&place.store(), &server.reference());
    let _ = reached.acquire().await.unwrap();
    let finished = |_: &()| {
        let dirs = fs::read_dir(place.store().join("staging")).unwrap().map(|e| e.unwrap().path().join("done"));
        dirs.filter_map(|d| fs::read_dir(d).ok()).any(|d| d.count() > 0)
    };
    let waiting = async {
        while !finished(&()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the first layer is finished");
    child.kill().unwrap();
    child.wait().unwrap();

    for dir in ["layers/sha256", "images", "names", "blobs/sha256"] {
        assert_eq!(fs::read_dir(place.store().join(dir)).unwrap().count(), 0, "{dir}");
    }
    assert!(!place.staged().is_empty(), "the dead left something");
    let again = Images::open(&place.store(), Config::default()).unwrap();
    assert_eq!(place.staged(), [] as [std::path::PathBuf; 0]);
    let image = again.pull(&server.reference(), &Credentials::Anonymous, &watch::Sender::default()).await.unwrap();
    assert!(image.layers[0].join("second").exists() && image.layers[1].join("first").exists());
    let first = images::Digest::of(&first.bytes).to_string();
    assert_eq!(server.seen(&first).len(), 1, "the finished layer was not fetched again");
}

#[tokio::test]
async fn finished_layers_of_another_boot_are_not_trusted() {
    let place = Place::new(Config::default());
    let dead = place.store().join("staging/another-boot.1.0");
    fs::create_dir_all(dead.join("done/half/fs")).unwrap();
    let again = Images::open(&place.store(), Config::default()).unwrap();
    assert!(!dead.exists());
    drop(again);
    drop(place.images);
    assert!(fs::read_dir(place.dir.path().join("store/staging")).unwrap().count() == 1, "only the lock is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_share_one_store() {
    let place = Place::new(Config::default());
    let server = Server::honest(Content::image(&[layer("a"), layer("b")])).await;
    let mut children: Vec<_> = (0..2).map(|_| pull_in_child(&place.store(), &server.reference())).collect();
    let image =
        place.images.pull(&server.reference(), &Credentials::Anonymous, &watch::Sender::default()).await.unwrap();
    for child in &mut children {
        let waited = tokio::task::block_in_place(|| child.wait());
        assert!(waited.unwrap().success());
    }
    assert_eq!(place.images.list().await.unwrap(), [image]);
    assert_eq!(fs::read_dir(place.store().join("layers/sha256")).unwrap().count(), 2);
    assert_eq!(place.staged(), [] as [std::path::PathBuf; 0]);
}

#[tokio::test]
async fn disk_full() {
    let place = Place::new(Config::default());
    let archive = Content::image(&[layer("big")]).archive(&place.dir.path().join("image.tar"), "big:1");
    let script = "mount -t tmpfs -o size=1m none \"$1\"; exec \"$2\" full --exact --ignored";
    let full = place.dir.path().join("full");
    fs::create_dir(&full).unwrap();
    let out = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-euc", script, "sh"])
        .args([&full, &env::current_exe().unwrap()])
        .env("IMAGES_STORE", &full)
        .env("IMAGES_ARCHIVE", &archive)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}

/// Loads an archive where there is no room for it. Run by [`disk_full`].
#[tokio::test]
#[ignore = "run by disk_full, on a disk of its own"]
async fn full() {
    let (Ok(store), Ok(archive)) = (env::var("IMAGES_STORE"), env::var("IMAGES_ARCHIVE")) else { return };
    let images = Images::open(&Path::new(&store).join("images"), Config::default()).unwrap();
    assert!(matches!(images.load(Path::new(&archive)).await, Err(Error::DiskFull { .. })));
    let left = rustix::fs::statvfs(&*store).unwrap();
    assert!(left.f_bfree * 2 > left.f_blocks, "the half-unpacked layer is gone again");
}

/// Debian's registry on a port of its own; stopped when dropped.
struct Registry(Child, u16);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn registry(dir: &Path, auth: &str) -> Registry {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}",
        dir.display()
    );
    fs::write(dir.join("registry.yml"), config).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(dir.join("registry.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let registry = Registry(child.expect("Debian's docker-registry"), port);
    let up = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up).await.expect("the registry comes up");
    registry
}

#[tokio::test]
async fn debian_registry_with_a_password() {
    let place = Place::new(Config::default());
    // me:secret
    fs::write(place.dir.path().join("htpasswd"), "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n")
        .unwrap();
    let auth = format!("auth: {{htpasswd: {{realm: here, path: {}/htpasswd}}}}\n", place.dir.path().display());
    let registry = registry(place.dir.path(), &auth).await;
    let base = format!("http://127.0.0.1:{}/v2/team/app", registry.1);
    let content = Content::image(&[layer("a"), Layer::gzip(Tar::default().dir("d").end())]).index();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut manifests = vec![];
    for (digest, bytes) in &content.blobs {
        let media = serde_json::from_slice::<serde_json::Value>(bytes)
            .ok()
            .and_then(|v| v["mediaType"].as_str().map(str::to_string));
        if let Some(media) = media {
            manifests.push((digest.clone(), media, bytes.clone()));
            continue;
        }
        let started =
            client.post(format!("{base}/blobs/uploads/")).basic_auth("me", Some("secret")).send().await.unwrap();
        let place = started.headers()["location"].to_str().unwrap().to_string();
        let put = client
            .put(place)
            .query_digest(digest)
            .basic_auth("me", Some("secret"))
            .body(bytes.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(put.status(), 201);
    }
    manifests.sort_by_key(|(digest, ..)| *digest == content.top);
    for (digest, media, bytes) in manifests {
        let tag = if digest == content.top { "1".to_string() } else { digest };
        let put = client
            .put(format!("{base}/manifests/{tag}"))
            .header("content-type", media)
            .basic_auth("me", Some("secret"));
        let put = put.body(bytes).send().await.unwrap();
        // The index's foreign entry does not exist, which this registry does not like.
        assert!(put.status() == 201 || tag == "1", "{}", put.text().await.unwrap());
    }
    let image = content.blobs.iter().find(|(_, b)| String::from_utf8_lossy(b).contains("\"layers\"")).unwrap().0;
    let reference: Reference = format!("127.0.0.1:{}/team/app@{image}", registry.1).parse().unwrap();
    let pull =
        async |credentials: Credentials| place.images.pull(&reference, &credentials, &watch::Sender::default()).await;
    let me = |password: &str| Credentials::Basic { user: "me".into(), password: password.into() };
    assert!(
        matches!(pull(Credentials::Anonymous).await, Err(Error::Denied { registry_said, .. }) if registry_said.contains("UNAUTHORIZED"))
    );
    assert!(matches!(pull(me("wrong")).await, Err(Error::Denied { .. })));
    let pulled = pull(me("secret")).await.unwrap();
    assert_eq!((pulled.layers.len(), &pulled.digest), (2, &reference.to_string()));
    let missing: Reference = format!("127.0.0.1:{}/team/none:1", registry.1).parse().unwrap();
    let error = place.images.pull(&missing, &me("secret"), &watch::Sender::default()).await.unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { registry_said, .. } if registry_said.contains("MANIFEST_UNKNOWN")),
        "{error:?}"
    );
}

trait QueryDigest {
    fn query_digest(self, digest: &str) -> Self;
}

impl QueryDigest for reqwest::RequestBuilder {
    /// `reqwest`'s own `query` is behind a feature we do without.
    fn query_digest(self, digest: &str) -> Self {
        let (client, request) = self.build_split();
        let mut request = request.unwrap();
        request.url_mut().query_pairs_mut().append_pair("digest", digest);
        reqwest::RequestBuilder::from_parts(client, request)
    }
}
