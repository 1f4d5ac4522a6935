//! Layers as overlayfs sees them: mounted for real, in a mount namespace of the test's own.

mod common;

use common::{Content, Layer, Place, Tar};
use images::{Config, Error, Image, Snapshot};
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Command,
    time::{Duration, Instant},
};

async fn load(place: &Place, layers: Vec<Tar>) -> Image {
    let layers = layers.into_iter().map(|t| t.end()).enumerate().map(|(n, tar)| match n % 3 {
        0 => Layer::gzip(tar),
        1 => Layer::zstd(tar),
        _ => Layer::plain(tar),
    });
    let archive = Content::image(&layers.collect::<Vec<_>>()).archive(&place.dir.path().join("image.tar"), "app:1");
    place.images.load(&archive).await.unwrap().remove(0)
}

/// What `script` prints with the snapshot mounted at its working directory.
fn mounted(place: &Place, snapshot: &Snapshot, script: &str) -> String {
    let lower: Vec<_> = snapshot.lower.iter().map(|l| l.to_str().unwrap()).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        snapshot.upper.display(),
        snapshot.work.display()
    );
    let root = place.dir.path().join("root");
    fs::create_dir_all(&root).unwrap();
    let out = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "sh",
            "-euc",
            &format!("mount -t overlay -o \"$1\" overlay \"$2\"; cd \"$2\"; {script}"),
            "sh",
            &options,
        ])
        .arg(&root)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test]
async fn whiteouts_and_opaque_directories() {
    let place = Place::new(Config::default());
    let image = load(
        &place,
        vec![
            Tar::default()
                .dir("d")
                .file("d/gone", b"1")
                .file("d/kept", b"1")
                .dir("o")
                .file("o/old", b"1")
                .file("f", b"1")
                .dir("r")
                .file("r/old", b"1")
                .dir("p")
                .file("p/old", b"1")
                .dir("tree")
                .file("tree/x", b"1"),
            Tar::default()
                .file("d/.wh.gone", b"")
                .dir("o")
                .file("o/.wh..wh..opq", b"")
                .file("o/new", b"2")
                .file(".wh.f", b"")
                // In either order, what the layer itself has stays.
                .file(".wh.r", b"")
                .dir("r")
                .file("r/new", b"2")
                .dir("p")
                .file("p/new", b"2")
                .file(".wh.p", b"")
                .file(".wh.tree", b"")
                .file("tree/y", b"2")
                .file(".wh..wh.plnk", b""),
            Tar::default().file("f/now/deep", b"3").file("d/more", b"3"),
        ],
    )
    .await;
    let snapshot = place.images.prepare(&image, "c").await.unwrap();
    assert_eq!(
        mounted(&place, &snapshot, "find . -type f | sort; cat f/now/deep"),
        "./d/kept\n./d/more\n./f/now/deep\n./o/new\n./p/new\n./r/new\n./tree/y\n3"
    );
}

#[tokio::test]
async fn directory_replaced_by_a_symlink_between_layers() {
    let place = Place::new(Config::default());
    let outside = place.dir.path().join("outside");
    let image = load(
        &place,
        vec![
            Tar::default().dir("d").file("d/a", b"1"),
            Tar::default().symlink("d", "../../../../../outside"),
            Tar::default().file("d/kept", b"evil"),
        ],
    )
    .await;
    let snapshot = place.images.prepare(&image, "c").await.unwrap();
    assert_eq!(mounted(&place, &snapshot, "ls d"), "kept\n");
    assert_eq!(fs::read(outside.join("kept")).unwrap(), b"kept");
}

#[tokio::test]
async fn modes_owners_times_and_attributes() {
    let place = Place::new(Config::default());
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("long/{}", "n".repeat(200));
    let image = load(
        &place,
        vec![
            Tar::default()
                .header("./", b'5', |h| h.set_mode(0o711))
                .entry("su", b'0', "", 0o4755, b"x")
                .header("owned", b'0', |h| {
                    h.set_uid(1000);
                    h.set_gid(70_000);
                    h.set_mtime(1_234_567_890);
                    h.set_mode(0o640)
                })
                .pax(&[
                    ("SCHILY.xattr.security.capability", capability),
                    ("SCHILY.xattr.user.note", b"a\nb"),
                    ("mtime", b"1.5"),
                ])
                .file("cap", b"x")
                .hardlink("cap2", "cap")
                .header("sgid", b'5', |h| {
                    h.set_mode(0o2775);
                    h.set_gid(50);
                    h.set_mtime(7)
                })
                .file("sgid/inherits", b"x")
                .pax(&[("path", long.as_bytes())])
                .file("short", b"x")
                .entry("fifo", b'6', "", 0o622, b"")
                .dir("dev")
                .entry("dev/sda", b'4', "", 0o666, b"")
                .file("twice", b"first")
                .file("twice", b"second"),
        ],
    )
    .await;
    let layer = &image.layers[0];
    let stat = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    assert_eq!(stat("su").mode() & 0o7777, 0o4755, "setuid is kept; whether it works is decided elsewhere");
    assert_eq!(
        (stat("owned").uid(), stat("owned").gid(), stat("owned").mtime(), stat("owned").mode() & 0o7777),
        (1000, 70_000, 1_234_567_890, 0o640)
    );
    assert_eq!((stat("cap").nlink(), stat("cap").mtime(), stat("cap").mtime_nsec()), (2, 1, 500_000_000));
    assert_eq!((stat("sgid").mode() & 0o7777, stat("sgid").gid(), stat("sgid").mtime()), (0o2775, 50, 7));
    assert_eq!(stat("sgid/inherits").gid(), 0);
    assert_eq!(stat("fifo").mode() & 0o7777, 0o622);
    assert!(layer.join(&long).exists());
    assert!(!layer.join("dev/sda").exists(), "devices of an image's /dev are left out");
    assert_eq!(fs::read(layer.join("twice")).unwrap(), b"second");
    let mut value = [0; 64];
    let mut attribute = |name: &str| {
        let length = rustix::fs::getxattr(layer.join("cap"), name, &mut value).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(attribute("security.capability"), capability);
    assert_eq!(attribute("user.note"), b"a\nb");

    let snapshot = place.images.prepare(&image, "c").await.unwrap();
    assert_eq!(mounted(&place, &snapshot, "stat -c '%a %u' ."), "711 0\n");
}

#[tokio::test]
async fn implied_directories_do_not_change_what_lies_below() {
    let place = Place::new(Config::default());
    let image = load(
        &place,
        vec![
            Tar::default().header("tmp", b'5', |h| h.set_mode(0o1777)).header("home", b'5', |h| {
                h.set_uid(5);
                h.set_mode(0o700)
            }),
            Tar::default().file("tmp/x", b"").file("home/a/b", b""),
            Tar::default().file("tmp/y", b""),
        ],
    )
    .await;
    let snapshot = place.images.prepare(&image, "c").await.unwrap();
    assert_eq!(
        mounted(&place, &snapshot, "stat -c '%n %a %u' . tmp home home/a; ls tmp"),
        ". 755 0\ntmp 1777 0\nhome 700 5\nhome/a 755 0\nx\ny\n"
    );
}

#[tokio::test]
async fn snapshots_are_the_containers_own() {
    let place = Place::new(Config::default());
    let image = load(&place, vec![Tar::default().file("f", b"1")]).await;
    let other = load(&place, vec![Tar::default().file("g", b"1")]).await;
    let one = place.images.prepare(&image, "one").await.unwrap();
    assert_eq!(place.images.prepare(&image, "one").await.unwrap(), one, "again is the same");
    assert!(matches!(place.images.prepare(&other, "one").await, Err(Error::Snapshot { .. })));
    let two = place.images.prepare(&image, "two").await.unwrap();
    for bad in ["", "..", ".x", "a/b", "a\0", &"x".repeat(129)] {
        assert!(matches!(place.images.prepare(&image, bad).await, Err(Error::Snapshot { .. })), "{bad:?}");
    }
    assert_eq!(place.images.usage("one", Instant::now() + Duration::from_secs(60)).await.unwrap().inodes, 0);
    mounted(&place, &one, "echo changed > f; mkdir d; head -c 100000 /dev/zero > d/big; ln d/big d/same");
    let usage = place.images.usage("one", Instant::now() + Duration::from_secs(60)).await.unwrap();
    assert!(usage.inodes == 3 && (100_000..130_000).contains(&usage.bytes), "{usage:?}");
    assert_eq!(mounted(&place, &two, "cat f; ls"), "1f\n");
    assert_eq!(mounted(&place, &one, "cat f"), "changed\n", "it outlives the mount");
    assert_eq!(fs::metadata(place.store()).unwrap().permissions().mode() & 0o777, 0o700);

    assert_eq!(place.images.snapshot("one").await.unwrap(), Some(one.clone()));
    place.images.discard("one").await.unwrap();
    place.images.discard("one").await.unwrap();
    assert_eq!(place.images.snapshot("one").await.unwrap(), None);
    assert!(!one.upper.exists() && two.upper.exists());
    assert_eq!(place.images.snapshots().await.unwrap(), ["two"]);
    assert_eq!(place.staged(), [] as [std::path::PathBuf; 0]);
}

#[tokio::test]
async fn docker_save_archives_of_both_ages() {
    let place = Place::new(Config::default());
    let layer = Layer::plain(Tar::default().file("f", b"1").end());
    let content = Content::image(std::slice::from_ref(&layer));
    let (config, bytes) = content.blobs.iter().find(|(_, b)| b.starts_with(b"{\"architecture")).unwrap();
    let config_name = format!("{}.json", &config[7..]);
    let manifest =
        serde_json::json!([{"Config": config_name, "RepoTags": ["app:1", "other.io/x:2"], "Layers": ["b/layer.tar"]}])
            .to_string();
    let saved = Tar::default()
        .file(&config_name, bytes)
        .file("a/layer.tar", &layer.bytes)
        .symlink("b/layer.tar", "../a/layer.tar")
        .file("manifest.json", manifest.as_bytes())
        .end();
    let path = place.dir.path().join("saved.tar");
    for packed in [saved.clone(), common::gzip(&saved), zstd::encode_all(&saved[..], 1).unwrap()] {
        fs::write(&path, packed).unwrap();
        let image = place.images.load(&path).await.unwrap().remove(0);
        assert_eq!(image.id, *config);
        assert_eq!(fs::read(image.layers[0].join("f")).unwrap(), b"1");
        assert_eq!(image.names, ["docker.io/library/app:1", "other.io/x:2"]);
        assert!(place.images.remove("app:1").await.unwrap());
        assert!(place.images.get("other.io/x:2").await.unwrap().is_some(), "it has a name left");
        assert!(place.images.remove(&image.id).await.unwrap());
        assert_eq!(place.images.list().await.unwrap(), []);
    }
}

#[tokio::test]
async fn mount_points_are_looked_at_as_overlay_would_show_them() {
    let place = Place::new(Config::default());
    let base = || Tar::default().dir("etc").symlink("etc/hosts", "/tmp");
    for (case, low, high, refused) in [
        ("seen", base(), Tar::default().file("etc/other", b""), true),
        ("replaced", base(), Tar::default().file("etc/hosts", b""), false),
        ("whiteout", base(), Tar::default().file("etc/.wh.hosts", b""), false),
        ("opaque", base(), Tar::default().dir("etc").file("etc/.wh..wh..opq", b""), false),
        ("gone", base(), Tar::default().file(".wh.etc", b""), false),
        ("hidden", base(), Tar::default().file("etc", b"a file"), false),
        ("above", Tar::default().dir("etc").file("etc/hosts", b""), base(), true),
    ] {
        let content = Content::image(&[Layer::gzip(low.end()), Layer::gzip(high.end())]);
        let archive = content.archive(&place.dir.path().join("image.tar"), "app:1");
        let loaded = place.images.load(&archive).await;
        assert_eq!(matches!(loaded, Err(Error::Archive { .. })), refused, "{case}: {loaded:?}");
    }
}
