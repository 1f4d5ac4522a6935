//! Glance: the system's image goes up once, is shared by clusters, and goes with the last of them.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::{
    Error, Mark, Service, Session,
    error::optional,
    plan::LocalImage,
    seen::{Image, Seen},
    session::Call,
};

/// The tag of every image that this program has uploaded; others are never deleted.
pub const TAG: &str = "rastos";
const GIB: u64 = 1 << 30;

/// What Nova must know of the system: its disk and network are virtio, and there is entropy from the host.
const PROPERTIES: [(&str, &str); 5] = [
    ("hw_disk_bus", "virtio"),
    ("hw_vif_model", "virtio"),
    ("hw_rng_model", "virtio"),
    ("os_type", "linux"),
    ("os_distro", "rastos"),
];

impl LocalImage {
    /// Reads a file's digest, format and size.
    pub async fn read(path: &Path) -> io::Result<Self> {
        let mut file = tokio::fs::File::open(path).await?;
        let (mut digest, mut bytes, mut buffer) = (Sha512::new(), 0, vec![0; 1 << 20]);
        let mut head = Vec::new();
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            if head.is_empty() {
                head.extend_from_slice(&buffer[..read.min(32)]);
            }
            digest.update(&buffer[..read]);
            bytes += read as u64;
        }
        let virtual_size = qcow2_size(&head);
        Ok(Self {
            path: path.to_owned(),
            sha512: hex::encode(digest.finalize()),
            bytes,
            format: if virtual_size.is_some() { "qcow2" } else { "raw" },
            disk: virtual_size.unwrap_or(bytes).div_ceil(GIB),
        })
    }
}

/// The disk's size from the head of a qcow2 file; `None` for another format.
pub(crate) fn qcow2_size(head: &[u8]) -> Option<u64> {
    let size = head.get(24..32).filter(|_| head.starts_with(b"QFI\xfb"))?;
    Some(u64::from_be_bytes(size.try_into().ok()?))
}

/// Uploads an image for a cluster. Of several uploads of the same bytes the oldest stays. What a failure
/// leaves is removed by the cluster's `down`, whose tag it carries.
pub async fn upload(
    session: &Session,
    local: &LocalImage,
    mark: &Mark,
    sent: impl Fn(u64) + Send + Sync + 'static,
) -> Result<(), Error> {
    let doing = format!("upload image {}", local.name());
    // What a run that was broken off has made and not filled is filled now.
    let path = format!("/images?name={}&status=queued&tag={}", local.name(), escaped(&mark.image_tag()));
    let empty = session.list(Service::Image, &path, "images", &doing).await?;
    let id = match empty.iter().find_map(|i| i["id"].as_str()) {
        Some(id) => id.to_owned(),
        None => create(session, local, mark, &doing).await?,
    };
    let result = send(session, local, &id, &doing, sent).await;
    // In a conflict another run of this cluster's fills it just now, or has filled it.
    if result.as_ref().is_err_and(|error| !error.is_conflict()) {
        let _the_cause_matters_more = delete(session, &id).await;
    }
    result
}

/// Makes an image without content; its id.
async fn create(session: &Session, local: &LocalImage, mark: &Mark, doing: &str) -> Result<String, Error> {
    // The id is ours, so that a create that timed out is the same image when it is tried again.
    let id = Uuid::new_v4().to_string();
    let mut body = json!({
        "id": id, "name": local.name(), "disk_format": local.format, "container_format": "bare",
        "visibility": "private", "min_disk": local.disk, "tags": [TAG, mark.image_tag()],
    });
    for (key, value) in PROPERTIES {
        body[key] = value.into();
    }
    let create = Call::new(Method::POST, Service::Image, "/images", doing).with(body).repeatable();
    match session.call(create).await {
        // Tried again, it was there already.
        Err(error) if error.is_conflict() && status(session, &id).await?.is_some() => {}
        other => drop(other?),
    }
    Ok(id)
}

async fn send(
    session: &Session,
    local: &LocalImage,
    id: &str,
    doing: &str,
    sent: impl Fn(u64) + Send + Sync + 'static,
) -> Result<(), Error> {
    let wrong = |why: String| Error::Answer { doing: doing.to_owned(), why, request_id: None };
    let (sent, moved) = (Arc::new(sent), Arc::new(AtomicU64::new(0)));
    let stream = || {
        let file = std::fs::File::open(&local.path);
        let file = file.map_err(|e| wrong(format!("read {}: {e}", local.path.display())))?;
        let (sent, moved, mut total) = (sent.clone(), moved.clone(), 0);
        let frames = ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 18).map(
            move |chunk: io::Result<Bytes>| {
                chunk.map(|bytes| {
                    total += bytes.len() as u64;
                    sent(total);
                    moved.store(total, Ordering::Relaxed);
                    Frame::data(bytes)
                })
            },
        );
        Ok(reqwest::Body::wrap(StreamBody::new(frames)))
    };
    let put = Call::new(Method::PUT, Service::Image, format!("/images/{id}/file"), doing);
    session.upload(put.of_kind("application/octet-stream"), local.bytes, &moved, stream).await?;
    let image = session.get(Service::Image, format!("/images/{id}"), doing).await?;
    let hash = image["os_hash_value"].as_str().unwrap_or_default();
    if image["os_hash_algo"] == "sha512" && hash != local.sha512 {
        return Err(wrong("what arrived is not what was sent (its checksum differs)".into()));
    }
    keep_oldest(session, local, id, doing).await
}

/// Removes the image that has just come up when somebody else's of the same bytes is older.
async fn keep_oldest(session: &Session, local: &LocalImage, id: &str, doing: &str) -> Result<(), Error> {
    let path = format!("/images?tag={TAG}&status=active&limit=200");
    let mut same = session.list(Service::Image, &path, "images", doing).await?;
    same.retain(|i| i["os_hash_value"] == local.sha512.as_str());
    let age =
        |i: &Value| (i["created_at"].as_str().unwrap_or_default().to_owned(), i["id"].as_str().map(str::to_owned));
    match same.iter().min_by_key(|i| age(i)) {
        Some(oldest) if oldest["id"] != id => delete(session, id).await,
        _ => Ok(()),
    }
}

/// Whether an image is one that this program uploaded into this project.
pub fn is_ours(image: &Image, seen: &Seen) -> bool {
    image.owner == seen.project && image.tags.iter().any(|t| t == TAG)
}

/// Notes on an image that a cluster uses it.
pub async fn claim(session: &Session, image: &str, mark: &Mark) -> Result<(), Error> {
    let path = format!("/images/{image}/tags/{}", escaped(&mark.image_tag()));
    session.call(Call::new(Method::PUT, Service::Image, path, format!("claim image {image}"))).await.map(drop)
}

/// Takes a cluster's claims on images back. An image that nobody else claims is deleted.
pub async fn release(session: &Session, mark: &Mark) -> Result<(), Error> {
    let doing = "list the cluster's images";
    let tag = mark.image_tag();
    let path = format!("/images?tag={}&limit=200", escaped(&tag));
    for image in session.list(Service::Image, &path, "images", doing).await? {
        let id = image["id"].as_str().unwrap_or_default();
        let others = Mark::on(&image).into_iter().filter(|m| m != mark).count();
        let ours = image["tags"].as_array().is_some_and(|tags| tags.iter().any(|t| t == TAG));
        if others == 0 && ours {
            delete(session, id).await?;
        } else {
            let path = format!("/images/{id}/tags/{}", escaped(&tag));
            session.delete(Service::Image, path, &format!("release image {id}")).await?;
        }
    }
    Ok(())
}

async fn delete(session: &Session, id: &str) -> Result<(), Error> {
    session.delete(Service::Image, format!("/images/{id}"), &format!("delete image {id}")).await
}

/// Whether an image can be used yet; `None` when it is gone.
pub async fn status(session: &Session, id: &str) -> Result<Option<String>, Error> {
    let found = optional(session.get(Service::Image, format!("/images/{id}"), &format!("read image {id}")).await)?;
    Ok(found.map(|i| i["status"].as_str().unwrap_or_default().to_owned()))
}

/// A tag as one segment of a path, or value of a query.
fn escaped(tag: &str) -> String {
    tag.replace('%', "%25").replace('/', "%2F").replace('=', "%3D")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_tells_its_digest_format_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.qcow2");
        let mut bytes = b"QFI\xfb\0\0\0\x03".to_vec();
        bytes.extend([0; 16]);
        bytes.extend((3 * GIB / 2).to_be_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let image = LocalImage::read(&path).await.unwrap();
        assert_eq!((image.format, image.disk, image.bytes), ("qcow2", 2, 32));
        assert_eq!(image.sha512, hex::encode(Sha512::digest(&bytes)));
        std::fs::write(&path, b"raw").unwrap();
        assert_eq!(LocalImage::read(&path).await.unwrap().format, "raw");
    }
}
