//! What a volume of a pod may say.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume};

use super::{
    container::{no_steps_back, quantity, relative},
    source,
};
use crate::{
    faults::{Cause, Faults, Path},
    names,
    typed::encode,
};

const HOST_PATH_TYPES: &[&str] =
    &["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
/// How long a projected token may live, in seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

/// Refuses what may not stand, and gives the names of those that do.
pub(super) fn validate_all<'a>(volumes: &'a [Volume], at: &Path, bad: &mut Faults) -> HashSet<&'a str> {
    let mut seen = HashSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let at = at.index(index);
        bad.named(at.field("name"), &volume.name, names::label);
        if !volume.name.is_empty() && !seen.insert(&*volume.name) {
            bad.duplicate(at.field("name"), format!("{:.80?}", volume.name));
        }
        validate(volume, &at, bad);
    }
    seen
}

fn validate(volume: &Volume, at: &Path, bad: &mut Faults) {
    // The name, and one source: whichever of thirty.
    if encode(volume).as_object().is_some_and(|fields| fields.len() > 2) {
        bad.forbidden(at.clone(), "must have only one source");
    }
    if let Some(source) = &volume.empty_dir {
        let at = at.field("emptyDir");
        bad.one_of(at.field("medium"), source.medium.as_deref(), &["", "Memory"]);
        if let Some(limit) = &source.size_limit {
            quantity(&limit.0, &at.field("sizeLimit"), bad);
        }
    }
    if let Some(source) = &volume.config_map {
        let at = at.field("configMap");
        bad.named(at.field("name"), &source.name, names::subdomain);
        mode(source.default_mode, at.field("defaultMode"), bad);
        items(source.items.as_deref(), &at, &mut HashSet::new(), bad);
    }
    if let Some(source) = &volume.secret {
        let at = at.field("secret");
        bad.named(at.field("secretName"), source.secret_name.as_deref().unwrap_or_default(), names::subdomain);
        mode(source.default_mode, at.field("defaultMode"), bad);
        items(source.items.as_deref(), &at, &mut HashSet::new(), bad);
    }
    if let Some(source) = &volume.downward_api {
        let at = at.field("downwardAPI");
        mode(source.default_mode, at.field("defaultMode"), bad);
        files(source.items.as_deref(), &at, &mut HashSet::new(), bad);
    }
    if let Some(source) = &volume.projected {
        projected(source, &at.field("projected"), bad);
    }
    if let Some(source) = &volume.host_path {
        let at = at.field("hostPath");
        if source.path.is_empty() {
            bad.required(at.field("path"), "must be given");
        } else {
            let absolute = source.path.starts_with('/') && !source.path.contains('\0');
            bad.unless(absolute, at.field("path"), format!("{:.80?} must begin with '/'", source.path));
            no_steps_back(&source.path, at.field("path"), bad);
        }
        bad.one_of(at.field("type"), source.type_.as_deref(), HOST_PATH_TYPES);
    }
}

fn mode(mode: Option<i32>, at: Path, bad: &mut Faults) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        bad.push(at, Cause::Invalid, format!("{mode} must be between 0 and 0777 (511)"));
    }
}

/// Keys that become files, each path once.
fn items(items: Option<&[KeyToPath]>, at: &Path, paths: &mut HashSet<String>, bad: &mut Faults) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let at = at.field("items").index(index);
        bad.named(at.field("key"), &item.key, names::config_key);
        mode(item.mode, at.field("mode"), bad);
        file(&item.path, &at, paths, bad);
    }
}

fn file(path: &str, at: &Path, paths: &mut HashSet<String>, bad: &mut Faults) {
    let at = at.field("path");
    if path.is_empty() {
        return bad.required(at, "must be given");
    }
    relative(path, at.clone(), bad);
    // `..data` is how a volume changes all of its files at once.
    bad.unless(!path.starts_with(".."), at.clone(), format!("{path:.80?} must not begin with '..'"));
    if !paths.insert(path.to_owned()) {
        bad.duplicate(at, format!("{path:.80?}"));
    }
}

fn files(files: Option<&[DownwardAPIVolumeFile]>, at: &Path, paths: &mut HashSet<String>, bad: &mut Faults) {
    for (index, item) in files.unwrap_or_default().iter().enumerate() {
        let at = at.field("items").index(index);
        file(&item.path, &at, paths, bad);
        mode(item.mode, at.field("mode"), bad);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), None) => source::field(field, source::FILE_FIELDS, &at.field("fieldRef"), bad),
            (None, Some(resource)) => {
                let at = at.field("resourceFieldRef");
                if resource.container_name.as_ref().is_none_or(String::is_empty) {
                    bad.required(at.field("containerName"), "must be given");
                }
                source::resource(resource, &at, bad);
            }
            _ => bad.push(at, Cause::Invalid, "must have either fieldRef or resourceFieldRef"),
        }
    }
}

fn projected(source: &ProjectedVolumeSource, at: &Path, bad: &mut Faults) {
    mode(source.default_mode, at.field("defaultMode"), bad);
    let mut paths = HashSet::new();
    for (index, source) in source.sources.iter().flatten().enumerate() {
        let at = at.field("sources").index(index);
        match encode(source).as_object().map_or(0, |fields| fields.values().filter(|v| !v.is_null()).count()) {
            1 => {}
            0 => bad.required(at.clone(), "must have a source"),
            _ => bad.forbidden(at.clone(), "must have only one source"),
        }
        if let Some(source) = &source.config_map {
            let at = at.field("configMap");
            bad.named(at.field("name"), &source.name, names::subdomain);
            items(source.items.as_deref(), &at, &mut paths, bad);
        }
        if let Some(source) = &source.secret {
            let at = at.field("secret");
            bad.named(at.field("name"), &source.name, names::subdomain);
            items(source.items.as_deref(), &at, &mut paths, bad);
        }
        if let Some(source) = &source.downward_api {
            files(source.items.as_deref(), &at.field("downwardAPI"), &mut paths, bad);
        }
        if let Some(token) = &source.service_account_token {
            let at = at.field("serviceAccountToken");
            file(&token.path, &at, &mut paths, bad);
            if let Some(seconds) = token.expiration_seconds {
                bad.ranged(at.field("expirationSeconds"), seconds, TOKEN_SECONDS);
            }
        }
    }
}
