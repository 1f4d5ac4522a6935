//! Parsers of what registries and archives send, for `fuzz/`.

use crate::{
    Digest, Limits, Platform,
    layer::{Expected, unpack},
    manifest::{Compression, Manifest, choose},
    pull::plan,
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
pub fn layer(bytes: &[u8], dir: &std::path::Path) {
    let into = dir.join("fs");
    std::fs::create_dir(&into).expect("the last run left nothing");
    let limits = Limits { bytes: 1 << 20, ratio: 200, free: 64 << 10, entries: 1000 };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let expected = Expected { digest: None, size: bytes.len() as u64, diff_id: Digest::of(bytes), compression };
        let _refused = unpack(bytes, &expected, &limits, &into);
    }
    let found = std::fs::read_dir(dir).expect("it is there").count();
    assert_eq!(found, 1, "something outside the layer");
    crate::walk::remove_path(&into).expect("it can be removed");
}
