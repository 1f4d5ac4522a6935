//! Images made by hand, good and bad, and a registry that misbehaves on demand.
#![allow(dead_code)]

use images::{Config, Digest, Images};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// A tar written header by header, so that it can be as wrong as a test wants it.
#[derive(Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(name, b'0', "", 0o644, data)
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "", 0o755, b"")
    }

    pub fn symlink(self, name: &str, to: &str) -> Self {
        self.entry(name, b'2', to, 0o777, b"")
    }

    pub fn hardlink(self, name: &str, to: &str) -> Self {
        self.entry(name, b'1', to, 0o644, b"")
    }

    pub fn entry(self, name: &str, kind: u8, link: &str, mode: u32, data: &[u8]) -> Self {
        self.header(name, kind, |h| {
            h.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            h.set_mode(mode);
            h.set_size(data.len() as u64);
        })
        .data(data)
    }

    pub fn header(mut self, name: &str, kind: u8, set: impl FnOnce(&mut tar::Header)) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        for zero in [tar::Header::set_uid, tar::Header::set_gid, tar::Header::set_mtime, tar::Header::set_size] {
            zero(&mut header, 0);
        }
        header.set_mode(0o644);
        set(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.entry("pax", b'x', "", 0o644, &body)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A layer as a registry has it.
#[derive(Clone)]
pub struct Layer {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    pub diff_id: Digest,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Self {
        Self { kind: "application/vnd.oci.image.layer.v1.tar", diff_id: Digest::of(&tar), bytes: tar }
    }

    pub fn gzip(tar: Vec<u8>) -> Self {
        Self { kind: "application/vnd.oci.image.layer.v1.tar+gzip", diff_id: Digest::of(&tar), bytes: gzip(&tar) }
    }

    pub fn zstd(tar: Vec<u8>) -> Self {
        let bytes = zstd::encode_all(&tar[..], 3).unwrap();
        Self { kind: "application/vnd.oci.image.layer.v1.tar+zstd", diff_id: Digest::of(&tar), bytes }
    }
}

/// Blobs by digest, and the digest of the top manifest.
#[derive(Clone, Default)]
pub struct Content {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub top: String,
    pub kind: String,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Content {
    pub fn image(layers: &[Layer]) -> Self {
        let mut content = Content::default();
        let architecture = images::Platform::here().architecture;
        let config = json!({"architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.to_string()).collect::<Vec<_>>()}});
        let config = content.add(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = layers.iter().map(|l| content.add(l.bytes.clone(), l.kind)).collect();
        content
            .put_top(json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}), MANIFEST);
        content
    }

    pub fn add(&mut self, bytes: Vec<u8>, kind: &str) -> Value {
        let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len());
        self.blobs.insert(digest.clone(), bytes);
        json!({"mediaType": kind, "digest": digest, "size": size})
    }

    pub fn put_top(&mut self, document: Value, kind: &str) -> Value {
        let descriptor = self.add(document.to_string().into_bytes(), kind);
        self.top = descriptor["digest"].as_str().unwrap().into();
        self.kind = kind.into();
        descriptor
    }

    /// An index around the top, for this platform.
    pub fn index(mut self) -> Self {
        let here = images::Platform::here();
        let size = self.blobs[&self.top].len();
        let other = json!({"mediaType": MANIFEST, "digest": Digest::of(b"other").to_string(), "size": 5,
            "platform": {"os": "linux", "architecture": "s390x"}});
        let this = json!({"mediaType": self.kind, "digest": self.top, "size": size,
            "platform": {"os": here.os, "architecture": here.architecture}});
        self.put_top(json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, this]}), INDEX);
        self
    }

    /// An OCI layout archive of it.
    pub fn archive(&self, path: &Path, name: &str) -> PathBuf {
        let top = json!({"mediaType": self.kind, "digest": self.top, "size": self.blobs[&self.top].len(),
            "annotations": {"org.opencontainers.image.ref.name": name}});
        let mut tar = Tar::default()
            .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", json!({"schemaVersion": 2, "manifests": [top]}).to_string().as_bytes());
        for (digest, bytes) in &self.blobs {
            tar = tar.file(&format!("blobs/sha256/{}", &digest[7..]), bytes);
        }
        fs::write(path, tar.end()).unwrap();
        path.into()
    }
}

/// A temporary place with a store in it and something outside that nobody may touch.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub images: Images,
}

impl Place {
    pub fn new(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/kept"), "kept").unwrap();
        let images = Images::open(&dir.path().join("store"), config).unwrap();
        Self { dir, images }
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Nothing outside was touched, nothing was kept, nothing is left in staging.
    pub fn assert_untouched(&self) {
        let outside: Vec<_> =
            fs::read_dir(self.dir.path().join("outside")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(outside, ["kept"]);
        assert_eq!(fs::read(self.dir.path().join("outside/kept")).unwrap(), b"kept");
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(self.dir.path().join("outside/kept")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o7777, 0o644);
        for dir in ["layers/sha256", "images", "names", "l"] {
            assert_eq!(fs::read_dir(self.store().join(dir)).unwrap().count(), 0, "{dir} is not empty");
        }
        assert_eq!(self.staged(), [] as [PathBuf; 0]);
    }

    /// What lies in staging beside finished layers.
    pub fn staged(&self) -> Vec<PathBuf> {
        let mut staged = Vec::new();
        for process in
            fs::read_dir(self.store().join("staging")).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir())
        {
            staged.extend(
                fs::read_dir(process).unwrap().map(|e| e.unwrap().path()).filter(|p| p.file_name().unwrap() != "done"),
            );
        }
        staged
    }
}
