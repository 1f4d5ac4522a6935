//! A pod's volumes: made from the spec and the API, and mounted into containers.

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccount, ServiceAccountTokenProjection, Volume,
    },
};
use kube::{Api, Client, api::PostParams};
use runtime::Mount;
use volumes::{File, HostKind, Medium, Projection, Volumes};

use crate::{
    env,
    fields::{self, Facts},
    objects::{Entries, Objects, Source},
    pod, security,
};

/// Tokens of projected volumes by volume and path, with the time to renew each.
pub type Tokens = Mutex<BTreeMap<(String, String), (Timestamp, String)>>;

/// What volumes are made from.
pub struct Maker<'a> {
    /// The API.
    pub client: &'a Client,
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// Where they are made.
    pub volumes: &'a Volumes,
    /// The CA for `kube-root-ca.crt` when there is no such ConfigMap.
    pub ca: Option<&'a str>,
    /// Tokens already had.
    pub tokens: &'a Tokens,
}

type Result<T> = std::result::Result<T, String>;

/// Whether a volume's files come from the API and may change.
pub fn is_projected(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

impl Maker<'_> {
    /// Makes all volumes of the pod up to the first that fails, or (`refresh`) brings those up to date that come from the
    /// API: each for itself.
    pub async fn make(&self, facts: &Facts<'_>, refresh: bool, now: Timestamp) -> Result<()> {
        let mut faults = vec![];
        for volume in pod::spec(facts.pod).volumes.iter().flatten().filter(|v| !refresh || is_projected(v)) {
            if let Err(e) = self.one(facts, volume, now).await {
                faults.push(format!("MountVolume.SetUp failed for volume \"{}\" : {e}", volume.name));
                if !refresh {
                    break;
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    async fn one(&self, facts: &Facts<'_>, volume: &Volume, now: Timestamp) -> Result<()> {
        let pod = facts.pod;
        let (uid, group) = (pod::uid(pod).to_string(), security::fs_group(pod));
        if let Some(dir) = &volume.empty_dir {
            let (volumes, name) = (self.volumes.clone(), volume.name.clone());
            let medium = medium(pod, dir.medium.as_deref(), dir.size_limit.as_ref());
            return blocking(move || volumes.empty_dir(&uid, &name, medium, group).map(drop)).await;
        }
        if let Some(host) = &volume.host_path {
            return host_path(host).map(drop);
        }
        let (files, secret) = self.files(facts, volume, now).await?;
        let (volumes, name) = (self.volumes.clone(), volume.name.clone());
        let how = Projection { fs_group: group, secret };
        blocking(move || volumes.project(&uid, &name, &files, how).map(drop)).await
    }

    async fn files(&self, facts: &Facts<'_>, volume: &Volume, now: Timestamp) -> Result<(Vec<File>, bool)> {
        let mode = |m: Option<i32>| m.and_then(|m| u32::try_from(m).ok()).unwrap_or(0o644);
        if let Some(v) = &volume.config_map {
            let files =
                self.object(facts, Source::ConfigMap, &v.name, v.items.as_deref(), v.optional, mode(v.default_mode));
            return Ok((files.await?, false));
        }
        if let Some(v) = &volume.secret {
            let name = v.secret_name.as_deref().unwrap_or_default();
            let files = self.object(facts, Source::Secret, name, v.items.as_deref(), v.optional, mode(v.default_mode));
            return Ok((files.await?, true));
        }
        if let Some(v) = &volume.downward_api {
            return Ok((downward(facts, v.items.as_deref().unwrap_or_default(), mode(v.default_mode))?, false));
        }
        let Some(v) = &volume.projected else { return Err("this kind of volume is not supported".into()) };
        let (mut files, mode, mut secret) = (Vec::new(), mode(v.default_mode), false);
        for source in v.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                files.extend(
                    self.object(facts, Source::ConfigMap, &s.name, s.items.as_deref(), s.optional, mode).await?,
                );
            } else if let Some(s) = &source.secret {
                secret = true;
                files.extend(self.object(facts, Source::Secret, &s.name, s.items.as_deref(), s.optional, mode).await?);
            } else if let Some(s) = &source.downward_api {
                files.extend(downward(facts, s.items.as_deref().unwrap_or_default(), mode)?);
            } else if let Some(s) = &source.service_account_token {
                secret = true;
                files.push(self.token(facts.pod, &volume.name, s, mode, now).await?);
            } else {
                return Err("this projected source is not supported".into());
            }
        }
        Ok((files, secret))
    }

    async fn object(
        &self,
        facts: &Facts<'_>,
        source: Source,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: u32,
    ) -> Result<Vec<File>> {
        let namespace = pod::namespace(facts.pod);
        let mut found = self.objects.get(source, namespace, name).await.map_err(|e| e.to_string())?;
        if found.is_none() && source == Source::ConfigMap && name == "kube-root-ca.crt" {
            found = self.ca.map(|ca| Entries::new([("ca.crt".to_string(), ca.as_bytes().to_vec())].into()));
        }
        let Some(entries) = found else {
            return match optional {
                Some(true) => Ok(vec![]),
                _ => Err(format!("{} \"{name}\" not found", source.noun())),
            };
        };
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            let file =
                |(path, bytes): (&String, &Vec<u8>)| File { path: path.clone(), bytes: bytes.clone(), mode, uid: None };
            return Ok(entries.iter().map(file).collect());
        };
        let mut files = Vec::with_capacity(items.len());
        for item in items {
            match entries.get(&item.key) {
                Some(bytes) => files.push(File {
                    path: item.path.clone(),
                    bytes: bytes.clone(),
                    mode: item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(mode),
                    uid: None,
                }),
                None if optional == Some(true) => {}
                None => return Err(format!("references non-existent {} key: {}", source.noun(), item.key)),
            }
        }
        Ok(files)
    }

    /// A token of the pod's service account, bound to the pod; a new one once four fifths of its life have passed.
    async fn token(
        &self,
        pod: &Pod,
        volume: &str,
        s: &ServiceAccountTokenProjection,
        mode: u32,
        now: Timestamp,
    ) -> Result<File> {
        let key = (volume.to_string(), s.path.clone());
        let kept = self.tokens.lock().map_err(|e| e.to_string())?.get(&key).cloned();
        let token = match kept {
            Some((renew, token)) if now < renew => token,
            _ => {
                let (renew, token) = self.request(pod, s, now).await?;
                self.tokens.lock().map_err(|e| e.to_string())?.insert(key, (renew, token.clone()));
                token
            }
        };
        let (uid, mode) = readers(pod, mode);
        Ok(File { path: s.path.clone(), bytes: token.into_bytes(), mode, uid })
    }

    async fn request(
        &self,
        pod: &Pod,
        s: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<(Timestamp, String)> {
        let account = pod::spec(pod).service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
        let seconds = s.expiration_seconds.unwrap_or(3600);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(s.audience.iter().filter(|a| !a.is_empty()).cloned().collect()),
                expiration_seconds: Some(seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Pod".into()),
                    name: Some(pod::name(pod).into()),
                    uid: Some(pod::uid(pod).into()),
                }),
            }),
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod::namespace(pod));
        let made = api.create_token_request(account, &PostParams::default(), &request).await;
        let status = made.map_err(|e| format!("token for service account {account}: {e}"))?.status;
        let (token, end) = status.map(|s| (s.token, s.expiration_timestamp)).unwrap_or_default();
        let token = token.ok_or("the API answered a token request without a token")?;
        let life = end.map_or(seconds, |end| end.0.as_second() - now.as_second());
        Ok((pod::after(now, pod::seconds(life.max(0) * 4 / 5)), token))
    }
}

/// Who owns a pod's token, and its mode: it is read by the one user that all containers run as, where there is one, and by
/// the pod's group; where there is neither, by whom the volume says.
fn readers(pod: &Pod, mode: u32) -> (Option<u32>, u32) {
    let shared = pod::spec(pod).security_context.as_ref().and_then(|c| c.run_as_user);
    let mut users =
        pod::containers(pod).map(|(_, c)| c.security_context.as_ref().and_then(|c| c.run_as_user).or(shared));
    let first = users.next().flatten();
    let uid = first.filter(|f| users.all(|u| u == Some(*f))).and_then(|u| u32::try_from(u).ok());
    let own = uid.is_some() || security::fs_group(pod).is_some();
    (uid, if own { 0o600 } else { mode })
}

fn downward(facts: &Facts<'_>, items: &[DownwardAPIVolumeFile], mode: u32) -> Result<Vec<File>> {
    let file = |item: &DownwardAPIVolumeFile| {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(f), _) => fields::field(facts, &f.field_path),
            (None, Some(r)) => fields::resource(facts, None, r),
            (None, None) => None,
        };
        let text = text.ok_or_else(|| format!("{}: this field is not supported", item.path))?;
        let mode = item.mode.and_then(|m| u32::try_from(m).ok()).unwrap_or(mode);
        Ok(File { path: item.path.clone(), bytes: text.into_bytes(), mode, uid: None })
    };
    items.iter().map(file).collect()
}

/// What an emptyDir is kept in. Memory without a limit of its own is held by the pod's.
pub fn medium(
    pod: &Pod,
    medium: Option<&str>,
    limit: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>,
) -> Medium {
    if medium != Some("Memory") {
        return Medium::Disk;
    }
    let own = limit.and_then(pod::quantity).map(|q| q.units());
    let size = own.or(crate::resources::sandbox(pod, None).memory).filter(|n| *n > 0);
    Medium::Memory(size.and_then(|n| u64::try_from(n).ok()))
}

fn host_path(host: &k8s_openapi::api::core::v1::HostPathVolumeSource) -> Result<PathBuf> {
    let kind: HostKind =
        host.type_.as_deref().unwrap_or_default().parse().map_err(|e: volumes::Error| e.to_string())?;
    volumes::host_path(&host.path, kind).map_err(|e| e.to_string())
}

/// The mounts of a container. Everything is at its place already: this only resolves subPaths.
pub fn mounts(
    volumes: &Volumes,
    pod: &Pod,
    c: &Container,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Mount>> {
    let uid = pod::uid(pod);
    let mut all = Vec::new();
    for (slot, m) in c.volume_mounts.iter().flatten().enumerate() {
        let volume = pod::spec(pod).volumes.iter().flatten().find(|v| v.name == m.name);
        let volume = volume.ok_or_else(|| format!("volume mount \"{}\" names no volume of the pod", m.name))?;
        let text = |e: volumes::Error| format!("mount \"{}\": {e}", m.name);
        let path = match (&volume.host_path, &volume.empty_dir) {
            (Some(host), _) => host_path(host)?,
            (_, Some(dir)) => {
                let medium = medium(pod, dir.medium.as_deref(), dir.size_limit.as_ref());
                volumes.empty_dir(uid, &volume.name, medium, security::fs_group(pod)).map_err(text)?
            }
            _ => volumes.projected(uid, &volume.name).map_err(text)?,
        };
        let projected = is_projected(volume);
        let sub = match (&m.sub_path, &m.sub_path_expr) {
            (Some(sub), _) if !sub.is_empty() => Some(sub.clone()),
            (_, Some(expr)) if !expr.is_empty() => Some(env::expand(expr, lookup)),
            _ => None,
        };
        let source = match sub {
            Some(sub) => volumes.sub_path(uid, &c.name, slot, &path, &sub, !projected).map_err(text)?,
            None => path,
        };
        all.push(Mount {
            source,
            destination: m.mount_path.clone().into(),
            read_only: projected || m.read_only.unwrap_or(false),
            receive_propagation: m.mount_propagation.as_deref() == Some("HostToContainer"),
        });
    }
    // Outer mounts first, or an inner one would be hidden.
    all.sort_by_key(|m| m.destination.components().count());
    Ok(all)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> volumes::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Capacity;

    /// An API that knows no objects.
    fn nothing() -> Client {
        let answer = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": "no"});
        let router =
            axum::Router::new().fallback(async move || (axum::http::StatusCode::NOT_FOUND, axum::Json(answer)));
        Client::new(router, "default")
    }

    #[test]
    fn a_token_is_for_those_who_run_in_the_pod() {
        let readers = |context: serde_json::Value, users: [Option<i64>; 2]| {
            let containers = users.map(|user| json!({"name": "c", "securityContext": {"runAsUser": user}}));
            let spec = json!({"securityContext": context, "containers": containers});
            super::readers(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap(), 0o644)
        };
        assert_eq!(readers(json!({}), [None, None]), (None, 0o644));
        assert_eq!(readers(json!({"runAsUser": 7}), [None, Some(7)]), (Some(7), 0o600));
        assert_eq!(readers(json!({"runAsUser": 7}), [None, Some(8)]), (None, 0o644));
        assert_eq!(readers(json!({"fsGroup": 9}), [None, None]), (None, 0o600));
        assert_eq!(readers(json!({"runAsUser": 7, "fsGroup": 9}), [None, None]), (Some(7), 0o600));
    }

    #[tokio::test]
    async fn a_refresh_goes_on_past_what_fails() {
        let tmp = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(&tmp.path().join("state"), &tmp.path().join("run")).unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u", "name": "p", "namespace": "n"},
            "spec": {"containers": [], "volumes": [{"name": "gone", "configMap": {"name": "m"}},
                {"name": "own", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}))
        .unwrap();
        let facts = Facts { pod: &pod, ips: &[], host_ips: &[], node: "x", capacity: Capacity::default() };
        let (client, tokens) = (nothing(), Tokens::default());
        let objects = Objects::new(client.clone());
        let maker = Maker { client: &client, objects: &objects, volumes: &volumes, ca: None, tokens: &tokens };
        let own = || std::fs::read_to_string(volumes.projected("u", "own").unwrap().join("name"));
        let error = maker.make(&facts, false, Timestamp::now()).await.unwrap_err();
        assert!(error.contains("\"gone\"") && own().is_err(), "{error}");
        assert!(maker.make(&facts, true, Timestamp::now()).await.is_err());
        assert_eq!(own().unwrap(), "p");
        volumes.close().unwrap();
    }
}
