//! Layers and archives made to do harm. Each yields a typed error; nothing is written outside, nothing is kept.

mod common;

use common::{Content, INDEX, Layer, MANIFEST, Place, Tar};
use images::{Config, Digest, Error, Limits};
use serde_json::json;

/// From a layer in staging to the directory that holds `store` and `outside`.
const UP: &str = "../../../../..";
const UP_TO_OUTSIDE: &str = "../../../../../outside";

/// Loads an image of one layer, which must fail and leave nothing.
async fn refused(tar: Vec<u8>) -> Error {
    refused_with(Config::default(), &[Layer::gzip(tar)]).await
}

async fn refused_with(config: Config, layers: &[Layer]) -> Error {
    let place = Place::new(config);
    let archive = Content::image(layers).archive(&place.dir.path().join("image.tar"), "bad:1");
    let error = place.images.load(&archive).await.expect_err("a hostile image was taken");
    std::fs::remove_file(archive).unwrap();
    place.assert_untouched();
    error
}

macro_rules! archive_error {
    ($($name:ident: $tar:expr => $reason:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            match refused($tar.end()).await {
                Error::Archive { reason, .. } => assert!(reason.contains($reason), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    )*};
}

archive_error! {
    parent_in_name: Tar::default().file("../outside/evil", b"x") => "leads outside";
    parent_inside_name: Tar::default().dir("a").file("a/../../outside/evil", b"x") => "leads outside";
    absolute_name: Tar::default().file("/tmp/evil", b"x") => "absolute";
    nul_in_name: Tar::default().pax(&[("path", b"a\0b")]).file("x", b"x") => "NUL";
    component_of_300_bytes: Tar::default().pax(&[("path", &[b'a'; 300])]).file("x", b"x") => "too long";
    name_1000_deep: Tar::default().pax(&[("path", "a/".repeat(1000).as_bytes())]).dir("x") => "too long";
    write_through_symlink: Tar::default().symlink("out", UP_TO_OUTSIDE).file("out/evil", b"x") => "symlink";
    write_through_symlink_in_the_middle: Tar::default().symlink("out", UP).file("out/outside/evil", b"x") => "symlink";
    implied_directory_through_symlink: Tar::default().symlink("out", UP).file("out/outside/a/b/evil", b"x") => "symlink";
    write_through_absolute_symlink: Tar::default().symlink("out", "/tmp").file("out/evil", b"x") => "symlink";
    write_through_symlink_to_dot: Tar::default().symlink("here", ".").file("here/evil", b"x") => "symlink";
    directory_through_file: Tar::default().file("a", b"x").file("a/b", b"x") => "not a directory";
    hardlink_outside: Tar::default().hardlink("evil", "../outside/kept") => "leads outside";
    hardlink_to_absolute_name: Tar::default().hardlink("evil", "/etc/passwd") => "absolute";
    hardlink_through_symlink: Tar::default().symlink("out", "/etc").hardlink("evil", "out/passwd") => "target";
    hardlink_through_symlink_then_chmod:
        Tar::default().symlink("out", UP).hardlink("h", "out/outside/kept").entry("h", b'0', "", 0o777, b"x") => "target";
    whiteout_through_symlink_in_the_middle: Tar::default().symlink("out", UP).file("out/outside/.wh.kept", b"") => "symlink";
    hardlink_to_symlink_then_chmod:
        Tar::default().symlink("s", "/etc/passwd").hardlink("h", "s").entry("h", b'0', "", 0o777, b"x") => "not a regular file";
    hardlink_to_nothing: Tar::default().hardlink("h", "nothing") => "target";
    hardlink_to_directory: Tar::default().dir("d").hardlink("h", "d") => "not a regular file";
    hardlink_to_root: Tar::default().hardlink("h", ".") => "root";
    whiteout_of_parent: Tar::default().dir("a").file("a/.wh...", b"") => "hides";
    whiteout_of_self: Tar::default().dir("a").file("a/.wh..", b"") => "hides";
    whiteout_of_nothing: Tar::default().file(".wh.", b"") => "hides";
    whiteout_of_root: Tar::default().file(".wh..", b"") => "hides";
    opaque_root: Tar::default().file(".wh..wh..opq", b"") => "hides the root";
    whiteout_through_symlink: Tar::default().symlink("out", UP_TO_OUTSIDE).file("out/.wh.kept", b"") => "symlink";
    opaque_whiteout_on_symlink: Tar::default().symlink("out", UP_TO_OUTSIDE).file("out/.wh..wh..opq", b"") => "symlink";
    block_device: Tar::default().dir("a").entry("a/sda", b'4', "", 0o666, b"") => "device";
    character_device_0_0: Tar::default().entry("null", b'3', "", 0o666, b"") => "device";
    root_that_is_a_symlink: Tar::default().symlink(".", "/etc") => "replaces the root";
    unknown_entry_type: Tar::default().entry("a", b'~', "", 0o644, b"") => "unknown type";
    sparse_file: Tar::default().entry("a", b'S', "", 0o644, b"") => "sparse";
    pax_sparse_file: Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("a", b"") => "sparse";
    overlay_redirect_attribute: Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("a") => "kernel's own";
    two_sizes: Tar::default().pax(&[("size", b"4096")]).file("a", b"x") => "two sizes";
    uid_that_wraps_to_root: Tar::default().pax(&[("uid", b"4294967296")]).file("a", b"x") => "uid";
    uid_that_means_unchanged: Tar::default().pax(&[("uid", b"4294967295")]).file("a", b"x") => "uid";
    broken_pax_record: Tar::default().entry("pax", b'x', "", 0o644, b"999 path=a\n").file("a", b"x") => "PAX";
    dev_is_a_symlink: Tar::default().symlink("dev", "/tmp") => "symlink";
    proc_is_a_symlink: Tar::default().symlink("proc", "/tmp") => "symlink";
    sys_is_a_symlink: Tar::default().symlink("sys", "/tmp") => "symlink";
    resolv_conf_is_a_symlink: Tar::default().dir("etc").symlink("etc/resolv.conf", "/etc/shadow") => "symlink";
    etc_is_a_symlink: Tar::default().symlink("etc", "/etc") => "symlink";
    negative_size: Tar::default().header("a", b'0', |h| h.as_old_mut().size = [0xff; 12]) => "";
    no_number_in_size: Tar::default().header("a", b'0', |h| h.as_old_mut().size = *b"-00000000001") => "";
}

#[tokio::test]
async fn truncated_tar() {
    let whole = Tar::default().file("a", &[7; 10_000]).end();
    assert!(matches!(refused(whole[..5_000].to_vec()).await, Error::Archive { .. }));
}

#[tokio::test]
async fn truncated_gzip() {
    let mut layer = Layer::gzip(Tar::default().file("a", &[7; 10_000]).end());
    layer.bytes.truncate(layer.bytes.len() / 2);
    assert!(matches!(refused_with(Config::default(), &[layer]).await, Error::Archive { .. }));
}

#[tokio::test]
async fn huge_size() {
    let tar = Tar::default().header("a", b'0', |h| h.set_size(8 << 40)).data(b"x").end();
    assert!(matches!(refused(tar).await, Error::Archive { .. }));
}

#[tokio::test]
async fn endless_pax_header() {
    let tar = Tar::default().header("pax", b'x', |h| h.set_size(8 << 30)).data(&[b'0'; 2 << 20]).end();
    let error = refused(tar).await;
    assert!(matches!(&error, Error::TooLarge { what, .. } if what.contains("extension")), "{error:?}");
}

#[tokio::test]
async fn pax_headers_without_end() {
    let mut tar = Tar::default();
    for _ in 0..100 {
        tar = tar.pax(&[("comment", &[b'x'; 60_000])]);
    }
    let error = refused(tar.file("a", b"").end()).await;
    assert!(matches!(&error, Error::TooLarge { what, .. } if what.contains("extension")), "{error:?}");
}

fn bomb() -> Vec<u8> {
    Tar::default().file("zeros", &vec![0; 64 << 20]).end()
}

fn limits(limits: Limits) -> Config {
    Config { limits, ..Config::default() }
}

#[tokio::test]
async fn gzip_bomb_by_ratio() {
    let config = limits(Limits { free: 1 << 20, ..Limits::default() });
    let error = refused_with(config, &[Layer::gzip(bomb())]).await;
    assert!(matches!(&error, Error::TooLarge { what, limit: 200 } if what.contains("compressed")), "{error:?}");
}

#[tokio::test]
async fn zstd_bomb_by_ratio() {
    let config = limits(Limits { free: 1 << 20, ..Limits::default() });
    let error = refused_with(config, &[Layer::zstd(bomb())]).await;
    assert!(matches!(&error, Error::TooLarge { what, limit: 200 } if what.contains("compressed")), "{error:?}");
}

#[tokio::test]
async fn bomb_by_bytes() {
    let config = limits(Limits { bytes: 1 << 20, ..Limits::default() });
    let error = refused_with(config, &[Layer::zstd(bomb())]).await;
    assert!(matches!(&error, Error::TooLarge { what, .. } if what.contains("unpacked")), "{error:?}");
}

#[tokio::test]
async fn bomb_behind_the_end_of_the_tar() {
    let mut tar = Tar::default().file("a", b"x").end();
    tar.resize(64 << 20, 0);
    let config = limits(Limits { bytes: 1 << 20, ..Limits::default() });
    assert!(matches!(refused_with(config, &[Layer::gzip(tar)]).await, Error::TooLarge { .. }));
}

#[tokio::test]
async fn too_many_entries() {
    let mut tar = Tar::default();
    for n in 0..2_000 {
        tar = tar.file(&n.to_string(), b"");
    }
    let config = limits(Limits { entries: 1_000, ..Limits::default() });
    let error = refused_with(config, &[Layer::gzip(tar.end())]).await;
    assert!(matches!(&error, Error::TooLarge { what, .. } if what.contains("entries")), "{error:?}");
}

#[tokio::test]
async fn layer_digest_mismatch() {
    let place = Place::new(Config::default());
    let layer = Layer::gzip(Tar::default().file("a", b"x").end());
    let mut content = Content::image(std::slice::from_ref(&layer));
    // The time in gzip's header: the tar inside, and the length, stay the same.
    content.blobs.get_mut(&Digest::of(&layer.bytes).to_string()).unwrap()[4] ^= 1;
    let archive = content.archive(&place.dir.path().join("image.tar"), "bad:1");
    assert!(matches!(place.images.load(&archive).await, Err(Error::Digest { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn diff_id_mismatch() {
    let mut layer = Layer::gzip(Tar::default().file("a", b"x").end());
    layer.diff_id = Digest::of(b"another");
    let error = refused_with(Config::default(), &[layer]).await;
    assert!(matches!(&error, Error::Digest { what, .. } if what.contains("unpacked")), "{error:?}");
}

#[tokio::test]
async fn more_layers_in_the_manifest_than_in_the_configuration() {
    let place = Place::new(Config::default());
    let mut content = Content::image(&[Layer::gzip(Tar::default().dir("a").end())]);
    let mut manifest: serde_json::Value = serde_json::from_slice(&content.blobs[&content.top]).unwrap();
    let layer = manifest["layers"][0].clone();
    manifest["layers"].as_array_mut().unwrap().push(layer);
    content.put_top(manifest, MANIFEST);
    let archive = content.archive(&place.dir.path().join("image.tar"), "bad:1");
    assert!(matches!(place.images.load(&archive).await, Err(Error::Archive { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn index_in_index_in_index() {
    let place = Place::new(Config::default());
    let mut content = Content::image(&[Layer::gzip(Tar::default().dir("a").end())]);
    for _ in 0..8 {
        content = content.index();
    }
    let archive = content.archive(&place.dir.path().join("image.tar"), "bad:1");
    assert!(matches!(place.images.load(&archive).await, Err(Error::TooLarge { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn thousand_layers() {
    let place = Place::new(Config::default());
    let layer = Layer::gzip(Tar::default().dir("a").end());
    let archive = Content::image(&vec![layer; 1000]).archive(&place.dir.path().join("image.tar"), "bad:1");
    assert!(matches!(place.images.load(&archive).await, Err(Error::TooLarge { .. })));
    place.assert_untouched();
}

#[tokio::test]
async fn wrong_platform_says_what_there_is() {
    let place = Place::new(Config::default());
    let mut content = Content::default();
    let entry = json!({"mediaType": MANIFEST, "digest": Digest::of(b"x").to_string(), "size": 1,
        "platform": {"os": "windows", "architecture": "amd64"}});
    content.put_top(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}), INDEX);
    let archive = content.archive(&place.dir.path().join("image.tar"), "bad:1");
    let error = place.images.load(&archive).await.unwrap_err();
    assert!(matches!(&error, Error::Platform { offered, .. } if offered == "windows/amd64"), "{error:?}");
}

#[tokio::test]
async fn archives_that_are_none() {
    let place = Place::new(Config::default());
    let path = place.dir.path().join("image.tar");
    for bytes in [
        &b""[..],
        b"nonsense",
        &[0; 4096],
        b"\x1f\x8bnonsense",
        b"\x28\xb5\x2f\xfdnonsense",
        &Tar::default().file("a", b"").end(),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(place.images.load(&path).await, Err(Error::Archive { .. })), "{bytes:?}");
    }
    assert!(place.images.load(place.dir.path()).await.is_err());
    place.assert_untouched();
}
