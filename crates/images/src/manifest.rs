//! Manifests and indexes, OCI's and Docker's (v2 schema 2), and the choice of a platform.

use crate::{
    digest::Digest,
    error::{Error, Result, printable},
};
use serde::Deserialize;

/// The most bytes a manifest or image configuration may have; the distribution spec asks for 4 MiB.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The most layers: what fits into one page of overlay mount options, and what Docker allows.
pub const LAYER_LIMIT: usize = 127;
/// How deep indexes may nest. An index cannot contain itself (it would have to hold its own digest), but a chain can be long.
pub const INDEX_DEPTH: usize = 3;

/// What we ask a registry for, best first.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A pointer to content, with the size and digest it must have.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// For whom, in an index.
    pub platform: Option<Platform>,
    /// Notes, such as the image's name in an archive.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// Operating system and architecture, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(format!("{}/{}", self.os, self.architecture).as_bytes(), 40))
    }
}

/// How a layer's tar is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl Descriptor {
    /// How to unpack it, by its media type.
    ///
    /// Foreign ("non-distributable") layers are refused: their URLs lead anywhere (CVE-2020-15157).
    pub fn compression(&self) -> Result<Compression> {
        let kind = match self.media_type.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Some(Compression::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar" => Some(Compression::None),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(Compression::Zstd),
            oci => match oci.strip_prefix("application/vnd.oci.image.layer.v1.tar") {
                Some("") => Some(Compression::None),
                Some("+gzip") => Some(Compression::Gzip),
                Some("+zstd") => Some(Compression::Zstd),
                _ => None,
            },
        };
        kind.ok_or_else(|| Error::Unsupported {
            what: format!("layer of type {:?}", printable(self.media_type.as_bytes(), 100)),
        })
    }
}

/// What a reference leads to.
#[derive(Clone, Debug)]
pub enum Manifest {
    /// One image.
    Image {
        /// Its configuration.
        config: Descriptor,
        /// Its layers, bottom first.
        layers: Vec<Descriptor>,
    },
    /// Images for several platforms.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: String,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Reads a manifest. `media_type` is what the registry or index called it; empty if unknown.
    ///
    /// Content that could be read as both image and index is refused (CVE-2021-41190).
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self> {
        let broken = |reason: String| Error::Archive { what: "manifest".into(), entry: String::new(), reason };
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(Error::TooLarge { what: "manifest bytes".into(), limit: MANIFEST_LIMIT });
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|e| broken(printable(e.to_string().as_bytes(), 200)))?;
        if raw.schema_version != Some(2) {
            return Err(Error::Unsupported { what: "manifest whose schemaVersion is not 2".into() });
        }
        let is_index = |t: &str| t.ends_with("image.index.v1+json") || t.ends_with("manifest.list.v2+json");
        let is_image = |t: &str| t.ends_with("image.manifest.v1+json") || t.ends_with("manifest.v2+json");
        let called = [media_type, &raw.media_type];
        match raw {
            Raw { config: Some(config), layers: Some(layers), manifests: None, .. }
                if !called.into_iter().any(is_index) =>
            {
                if layers.len() > LAYER_LIMIT {
                    return Err(Error::TooLarge { what: "layers of an image".into(), limit: LAYER_LIMIT as u64 });
                }
                if config.size > MANIFEST_LIMIT {
                    return Err(Error::TooLarge { what: "image configuration bytes".into(), limit: MANIFEST_LIMIT });
                }
                Ok(Manifest::Image { config, layers })
            }
            Raw { config: None, layers: None, manifests: Some(manifests), .. } if !called.into_iter().any(is_image) => {
                Ok(Manifest::Index(manifests))
            }
            _ => Err(broken("neither plainly an image nor plainly an index".into())),
        }
    }
}

/// The entry of an index for `wanted`; the first, as everyone does. An index of indexes has entries without a platform.
pub fn choose<'a>(index: &'a [Descriptor], wanted: &Platform, reference: &str) -> Result<&'a Descriptor> {
    let fits = |d: &&Descriptor| d.platform.as_ref() == Some(wanted);
    index.iter().find(fits).or_else(|| index.iter().find(|d| d.platform.is_none())).ok_or_else(|| {
        let offered: Vec<_> =
            index.iter().filter_map(|d| d.platform.as_ref()).take(20).map(|p| p.to_string()).collect();
        Error::Platform { reference: reference.into(), wanted: wanted.to_string(), offered: offered.join(", ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn descriptor() -> serde_json::Value {
        json!({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(b"x").to_string(), "size": 1})
    }

    #[test]
    fn image_and_index_at_once_is_refused() {
        let both = json!({"schemaVersion": 2, "config": descriptor(), "layers": [], "manifests": []});
        assert!(matches!(Manifest::parse(both.to_string().as_bytes(), ""), Err(Error::Archive { .. })));
        let image = json!({"schemaVersion": 2, "config": descriptor(), "layers": []}).to_string();
        let index = "application/vnd.oci.image.index.v1+json";
        assert!(matches!(Manifest::parse(image.as_bytes(), index), Err(Error::Archive { .. })));
        assert!(matches!(Manifest::parse(image.as_bytes(), ""), Ok(Manifest::Image { .. })));
    }

    #[test]
    fn thousand_layers_and_ten_megabytes_are_too_large() {
        let many = json!({"schemaVersion": 2, "config": descriptor(), "layers": vec![descriptor(); 1000]});
        assert!(matches!(Manifest::parse(many.to_string().as_bytes(), ""), Err(Error::TooLarge { .. })));
        assert!(matches!(Manifest::parse(&vec![b' '; 10 << 20], ""), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn foreign_layers_are_not_supported() {
        let mut foreign = descriptor();
        foreign["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        let foreign: Descriptor = serde_json::from_value(foreign).unwrap();
        assert!(matches!(foreign.compression(), Err(Error::Unsupported { .. })));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}") {
            let _ = Manifest::parse(&bytes, "");
            let _ = Manifest::parse(text.as_bytes(), "");
            let _ = Manifest::parse(format!("{{\"schemaVersion\":2,\"layers\":[{text}]}}").as_bytes(), &text);
        }
    }
}
