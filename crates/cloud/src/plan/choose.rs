//! What a cluster leaves to the project: image, flavor, networks.

use std::path::PathBuf;

use api::rastos::{
    Cluster,
    cluster::{POD_RANGE, meets_pods},
};

use super::Plan;
use crate::{
    Service, glance,
    seen::{Flavor, Image, Network, Seen},
    template::Networks,
};

/// The least memory, in MiB, that a flavor is chosen with when none is named.
const COMFORT: u64 = 512;
/// The least memory, in MiB, that the system and a pod fit into.
const LEAST: u64 = 256;
/// The name of the image that is used when the cluster names none.
const DEFAULT_IMAGE: &str = "rastos";

/// An image on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalImage {
    /// The file.
    pub path: PathBuf,
    /// SHA-512 of its bytes.
    pub sha512: String,
    /// Its length.
    pub bytes: u64,
    /// `qcow2` or `raw`.
    pub format: &'static str,
    /// The disk that it needs, in GiB.
    pub disk: u64,
}

impl LocalImage {
    /// Its name in Glance.
    pub fn name(&self) -> String {
        format!("rastos-{}", self.sha512.get(..12).unwrap_or_default())
    }
}

/// What machines boot from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ImageChoice {
    /// Nothing fits.
    #[default]
    Missing,
    /// An image that is there.
    Present {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
    /// A file that must be uploaded first.
    Upload(LocalImage),
}

/// The image: of several with the same bytes the oldest that can be used, so that two uploads at once agree.
pub(super) fn image(cluster: &Cluster, local: Option<&LocalImage>, seen: &Seen, plan: &mut Plan) -> ImageChoice {
    if let Some(local) = local {
        // A cloud may keep another digest; the name that we gave holds ours.
        let same = |i: &Image| match &i.sha512 {
            Some(sha512) => *sha512 == local.sha512,
            None => i.name == local.name() && glance::is_ours(i, seen),
        };
        return match oldest(seen, same) {
            Some(image) => present(image),
            None => ImageChoice::Upload(local.clone()),
        };
    }
    let named = cluster.spec.image.name.as_deref();
    let living = seen.servers.iter().find(|s| seen.mark().is_some_and(|m| m.uid == s.uid)).map(|s| s.image.as_str());
    // Without its file at hand: what the last machine was made of, or else the latest image that the cluster claims.
    let tag = seen.mark().map(|m| m.image_tag());
    let born = seen.machines.as_ref().and_then(|m| m.stack.parameter("machine_0_image"));
    let is_born = |i: &Image| Some(i.id.as_str()) == born;
    let known = |i: &&Image| i.status == "active" && (is_born(i) || tag.as_ref().is_some_and(|t| i.tags.contains(t)));
    let known = seen.images.iter().filter(known);
    let known = known.max_by(|a, b| (is_born(a), &a.created, &a.id).cmp(&(is_born(b), &b.created, &b.id)));
    let wanted = named.or(living).or(known.map(|i| i.id.as_str())).unwrap_or(DEFAULT_IMAGE);
    match oldest(seen, |i| i.id == wanted || i.name == wanted) {
        Some(image) => present(image),
        // What a living machine was made of may be gone; it needs it no more.
        None if named.is_none() && living.is_some() => ImageChoice::Present { id: wanted.into(), name: wanted.into() },
        None => {
            if seen.answers(Service::Image) {
                let advice = "name one that is there in spec.image.name, or a file to upload in spec.image.file \
                              (rast os build makes it)";
                plan.stop(format!("the project sees no active image {wanted:?}"), advice);
            }
            ImageChoice::Missing
        }
    }
}

fn oldest(seen: &Seen, fits: impl Fn(&Image) -> bool) -> Option<&Image> {
    let active = seen.images.iter().filter(|i| i.status == "active" && fits(i));
    active.min_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)))
}

fn present(image: &Image) -> ImageChoice {
    ImageChoice::Present { id: image.id.clone(), name: image.name.clone() }
}

/// The flavor: the named one, else what the server has, else the smallest in which there is room.
pub(super) fn flavor(cluster: &Cluster, local: Option<&LocalImage>, seen: &Seen, plan: &mut Plan) -> Option<Flavor> {
    let image = match &plan.choices.image {
        ImageChoice::Present { id, .. } => seen.images.iter().find(|i| &i.id == id),
        _ => None,
    };
    let disk = image.map_or(local.map_or(0, |l| l.disk), |i| i.min_disk);
    let ram = image.map_or(0, |i| i.min_ram).max(LEAST);
    // A root disk of 0 is as large as the image.
    let enough = |f: &Flavor| f.disk == 0 || f.disk >= disk;
    if let Some(wanted) = &cluster.spec.flavor {
        let found = seen.flavors.iter().find(|f| &f.id == wanted || &f.name == wanted);
        match found {
            None if seen.answers(Service::Compute) => {
                let known = seen.flavors.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", ");
                plan.stop(format!("there is no flavor {wanted:?}"), format!("choose in spec.flavor from {known}"));
            }
            Some(f) if !enough(f) => plan.stop(
                format!("flavor {} has a disk of {} GiB, the image needs {disk}", f.name, f.disk),
                "choose a larger one in spec.flavor",
            ),
            Some(f) if f.ram < ram => plan.stop(
                format!("flavor {} has {} MiB of memory, the system needs {ram}", f.name, f.ram),
                "choose a larger one in spec.flavor",
            ),
            _ => {}
        }
        return found.cloned();
    }
    let living = seen.servers.iter().find(|s| seen.mark().is_some_and(|m| m.uid == s.uid));
    if let Some(flavor) = living.and_then(|s| seen.flavors.iter().find(|f| f.id == s.flavor)) {
        return Some(flavor.clone());
    }
    let fits = seen.flavors.iter().filter(|f| enough(f) && f.ram >= ram.max(COMFORT));
    let smallest = fits.min_by(|a, b| (a.ram, a.vcpus, a.disk, &a.name).cmp(&(b.ram, b.vcpus, b.disk, &b.name)));
    if smallest.is_none() && seen.answers(Service::Compute) {
        let what = format!("no flavor has {} MiB of memory and a disk of {disk} GiB", ram.max(COMFORT));
        plan.stop(what, "ask the cloud's operators for one, or name a smaller one in spec.flavor");
    }
    smallest.cloned()
}

/// The external network, and the one for the machines when it is there already.
pub(super) fn networks(cluster: &Cluster, seen: &Seen, plan: &mut Plan) -> Networks {
    if !seen.answers(Service::Network) {
        return Networks::default();
    }
    let external = external(cluster, seen, plan).map(|n| n.id.clone()).unwrap_or_default();
    let Some(wanted) = &cluster.spec.network.existing else { return Networks { external, existing: None } };
    let Some(network) = seen.networks.iter().find(|n| &n.id == wanted || &n.name == wanted) else {
        plan.stop(
            format!("the project sees no network {wanted:?}"),
            "name one that is there in spec.network.existing, or leave it out for a new one",
        );
        return Networks { external, existing: Some(wanted.clone()) };
    };
    for taken in seen.subnets.iter().filter(|s| s.network == network.id).filter_map(|s| s.cidr.parse().ok()) {
        if meets_pods(&taken) {
            let what = format!("network {} has the range {taken}, where pods get their addresses from", network.name);
            plan.stop(what, format!("choose a network outside {POD_RANGE}"));
        }
    }
    let subnets: Vec<&str> = seen.subnets.iter().filter(|s| s.network == network.id).map(|s| s.id.as_str()).collect();
    let leads_out = seen.ports.iter().any(|p| {
        let router = seen.routers.iter().find(|(id, _)| *id == p.device);
        p.subnets.iter().any(|s| subnets.contains(&s.as_str()))
            && router.is_some_and(|(_, g)| g.as_ref() == Some(&external))
    });
    if subnets.is_empty() {
        plan.stop(format!("network {} has no subnet", network.name), "give it one, or choose another network");
    } else if !leads_out {
        let what = format!("no router of this project joins network {} to the external network", network.name);
        plan.note(what, "floating IPs work only if somebody else's router does");
    }
    Networks { external, existing: Some(network.id.clone()) }
}

fn external<'a>(cluster: &Cluster, seen: &'a Seen, plan: &mut Plan) -> Option<&'a Network> {
    let all: Vec<&Network> = seen.networks.iter().filter(|n| n.external).collect();
    let names = || all.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
    match (&cluster.spec.external_network, all.as_slice()) {
        (Some(wanted), all) => {
            let found = all.iter().find(|n| &n.id == wanted || &n.name == wanted).copied();
            if found.is_none() {
                let advice = match all.is_empty() {
                    true => "the project sees none at all; ask the cloud's operators".to_owned(),
                    false => format!("choose in spec.externalNetwork from {}", names()),
                };
                plan.stop(format!("there is no external network {wanted:?}"), advice);
            }
            found
        }
        (None, [only]) => Some(only),
        (None, []) => {
            let advice = "floating IPs need one; ask the cloud's operators to share it with the project";
            plan.stop("the project sees no external network", advice);
            None
        }
        (None, _) => {
            plan.stop(format!("there are several external networks: {}", names()), "choose in spec.externalNetwork");
            None
        }
    }
}
