//! The files of `rast cloud`: one Cluster, and the objects that are to run there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use api::rastos::Cluster;
use cloud::plan::LocalImage;

use crate::{
    exit::{Exit, Failure},
    manifest::{self, Object},
};

/// What the files say.
pub struct Files {
    /// The cluster; none when no file holds one.
    pub cluster: Option<Cluster>,
    /// What is to run there.
    pub app: Vec<Object>,
    /// Where the cluster's file lies: paths in it are meant from there.
    dir: PathBuf,
}

/// Reads and checks all files; refuses with every fault of every object, pointing at each.
pub fn read(files: &[PathBuf]) -> Result<Files> {
    let mut found = Files { cluster: None, app: Vec::new(), dir: PathBuf::new() };
    let mut faults = String::new();
    let registry = api::builtin();
    for file in files {
        for object in manifest::read_all(std::slice::from_ref(file))? {
            let bad = if Cluster::is(&object.value) {
                if found.cluster.is_some() {
                    let message = format!("{}: there is another Cluster; give one", file.display());
                    return Err(Failure::new(Exit::Invalid, message).into());
                }
                found.dir = file.parent().map(Path::to_owned).unwrap_or_default();
                match Cluster::read(&object.value) {
                    Ok(cluster) => {
                        found.cluster = Some(cluster);
                        continue;
                    }
                    Err(bad) => bad,
                }
            } else {
                object.check(&registry)
            };
            for fault in &bad.0 {
                faults += &object.place(&fault.path.to_string(), &fault.message);
            }
            found.app.push(object);
        }
    }
    match faults.is_empty() {
        true => Ok(found),
        false => Err(Failure::new(Exit::Invalid, format!("nothing was changed:\n{}", faults.trim_end())).into()),
    }
}

impl Files {
    /// The cluster, which must be there and alone.
    pub fn only_cluster(self) -> Result<(Cluster, PathBuf)> {
        match self.cluster {
            Some(cluster) => Ok((cluster, self.dir)),
            None => Err(no_cluster()),
        }
    }

    /// Where the cluster's file lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Nothing says which cluster.
pub fn no_cluster() -> anyhow::Error {
    Failure::new(Exit::Usage, "no file holds a Cluster: give one with -f (docs/openstack.md)").into()
}

/// The image file that a cluster names, as it lies here.
pub async fn local_image(cluster: &Cluster, dir: &Path) -> Result<Option<LocalImage>> {
    let Some(file) = &cluster.spec.image.file else { return Ok(None) };
    let path = dir.join(file);
    let image = LocalImage::read(&path).await.with_context(|| format!("read {} (spec.image.file)", path.display()))?;
    Ok(Some(image))
}
