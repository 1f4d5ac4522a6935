//! Parsers of what registries and archives send, for `fuzz/`.

use std::path::Path;

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};

use crate::{
    Digest, Limits, Platform, archive,
    layer::{Expected, unpack},
    manifest::{Compression, Manifest, choose},
    pull::plan,
    registry::{asked, said},
};

/// A manifest or index, and the configuration that goes with it.
pub fn manifest(bytes: &[u8]) {
    for media in ["", "application/vnd.oci.image.index.v1+json"] {
        match Manifest::parse(bytes, media) {
            Ok(Manifest::Index(entries)) => drop(choose(&entries, &Platform::here(), "fuzz")),
            Ok(Manifest::Image { layers, .. }) => drop(plan(bytes, &layers, &Platform::here(), "fuzz")),
            Err(_) => {}
        }
    }
}

/// A layer, unpacked below `dir`, in which nothing else may appear.
pub fn layer(bytes: &[u8], dir: &Path) {
    let into = dir.join("fs");
    std::fs::create_dir(&into).expect("the last run left nothing");
    let limits = Limits { bytes: 1 << 20, ratio: 200, free: 64 << 10, entries: 1000 };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let expected = Expected { digest: None, size: bytes.len() as u64, diff_id: Digest::of(bytes), compression };
        let _refused = unpack(bytes, &expected, &limits, &into);
    }
    let found = std::fs::read_dir(dir).expect("it is there").count();
    assert_eq!(found, 1, "something outside the layer");
    walk::remove_path(&into).expect("it can be removed");
}

/// An archive of images, as far as it is read before its layers; `dir` takes the file.
pub fn archive(bytes: &[u8], dir: &Path) {
    let file = dir.join("archive");
    std::fs::write(&file, bytes).expect("there is room");
    archive::parse(&file, &dir.join("stage"));
    assert!(!dir.join("stage").exists(), "staging is left");
}

/// A registry's refusal: its challenge, a line each, and its words.
pub fn refusal(bytes: &[u8]) {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok());
    asked(&lines.map(|line| (WWW_AUTHENTICATE, line)).collect::<HeaderMap>());
    said(reqwest::StatusCode::FORBIDDEN, bytes);
}
