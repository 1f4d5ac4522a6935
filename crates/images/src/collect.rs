//! Garbage collection: images nobody has used for long when the disk fills, and what belongs to no image at all.

use crate::{
    content::{Store, at, entries},
    digest::Digest,
    error::Result,
};
use std::{
    collections::HashSet,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// When unused images go. Kubernetes' defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Above this share of the disk, images are removed …
    pub high_percent: u8,
    /// … until it is below this one.
    pub low_percent: u8,
    /// An image used or pulled more lately than this is kept.
    pub min_age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Ids of images removed.
    pub images: Vec<String>,
    /// Layers removed.
    pub layers: usize,
    /// A pull was under way, so nothing was done.
    pub busy: bool,
}

/// An image as the choice sees it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Bytes it may free.
    pub size: u64,
    /// Age since its last use.
    pub unused: Duration,
    /// A container needs it.
    pub in_use: bool,
}

/// Which images go, longest unused first: pure. `used` and `total` are the disk's bytes.
///
/// Layers shared with images that stay free nothing, so one round may free less than it hopes for; the next goes on.
pub fn choose(images: &[Candidate], used: u64, total: u64, policy: &Policy) -> Vec<usize> {
    let share = |percent: u8| (u128::from(total) * u128::from(percent) / 100) as u64;
    if used <= share(policy.high_percent) {
        return vec![];
    }
    let mut excess = used - share(policy.low_percent.min(policy.high_percent));
    let mut order: Vec<usize> =
        (0..images.len()).filter(|i| !images[*i].in_use && images[*i].unused >= policy.min_age).collect();
    order.sort_by_key(|i| std::cmp::Reverse(images[*i].unused));
    order.retain(|i| {
        let goes = excess > 0;
        excess = excess.saturating_sub(images[*i].size);
        goes
    });
    order
}

impl Store {
    /// Collects. `in_use` holds ids of images that containers need; layers of snapshots stay in any case.
    pub fn collect(&self, policy: &Policy, in_use: &HashSet<String>, now: SystemTime) -> Result<Collected> {
        let Some(exclusive) = self.try_exclude()? else { return Ok(Collected { busy: true, ..Collected::default() }) };
        let mut collected = Collected::default();
        let records = self.records()?;
        let disk = rustix::fs::statvfs(self.root()).map_err(|e| at(self.root(), e))?;
        let candidates: Vec<_> = records
            .iter()
            .map(|(record, used)| Candidate {
                size: record.size,
                unused: now.duration_since(*used).unwrap_or_default(),
                in_use: in_use.contains(&record.id.to_string()),
            })
            .collect();
        let used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize;
        for victim in choose(&candidates, used, disk.f_blocks * disk.f_frsize, policy) {
            let (record, _) = &records[victim];
            self.forget(record)?;
            collected.images.push(record.id.to_string());
        }

        let trash = self.stage();
        fs::create_dir(&trash).map_err(|e| at(&trash, e))?;
        let kept = self.records()?;
        let mut layers = self.layers_in_use()?;
        layers.extend(kept.iter().flat_map(|(r, _)| r.layers.iter().cloned()));
        let blobs: HashSet<Digest> = kept.iter().flat_map(|(r, _)| r.blobs.iter().cloned()).collect();
        let ids: HashSet<Digest> = kept.iter().map(|(r, _)| r.id.clone()).collect();
        collected.layers = self.sweep("layers/sha256", &trash, |hex, _| keeps(&layers, hex))?;
        self.sweep("blobs/sha256", &trash, |hex, _| keeps(&blobs, hex))?;
        self.sweep("l", &trash, |_, link| link.exists())?;
        self.sweep("names", &trash, |_, name| {
            fs::read_to_string(name).is_ok_and(|id| id.parse().is_ok_and(|id: Digest| ids.contains(&id)))
        })?;
        self.drop_done(&trash)?;
        drop(exclusive);
        // Out of sight already; removing takes long, and others may work meanwhile.
        walk::remove_path(&trash).map_err(|e| at(&trash, e))?;
        Ok(collected)
    }

    /// Moves what `keep` does not want from `dir` into `trash`.
    fn sweep(&self, dir: &str, trash: &std::path::Path, keep: impl Fn(&str, &PathBuf) -> bool) -> Result<usize> {
        let mut swept = 0;
        for (name, path) in entries(&self.path(dir))? {
            if !keep(&name, &path) {
                let place = trash.join(format!("{}-{name}", dir.replace('/', "-")));
                fs::rename(&path, &place).map_err(|e| at(&path, e))?;
                swept += 1;
            }
        }
        Ok(swept)
    }
}

fn keeps(wanted: &HashSet<Digest>, hex: &str) -> bool {
    format!("sha256:{hex}").parse().is_ok_and(|digest: Digest| wanted.contains(&digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(size: u64, unused: u64, in_use: bool) -> Candidate {
        Candidate { size, unused: Duration::from_secs(unused), in_use }
    }

    #[test]
    fn longest_unused_goes_first_and_only_as_many_as_needed() {
        let images = [
            image(10, 1000, false),
            image(10, 3000, false),
            image(10, 9000, true),
            image(10, 2000, false),
            image(10, 1, false),
        ];
        let policy = Policy { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) };
        assert_eq!(choose(&images, 85, 100, &policy), [] as [usize; 0], "at the mark is not above it");
        assert_eq!(choose(&images, 86, 100, &policy), [1]);
        assert_eq!(choose(&images, 95, 100, &policy), [1, 3]);
        assert_eq!(choose(&images, 100, 100, &policy), [1, 3], "20 are enough");
        assert_eq!(choose(&images, 1000, 100, &policy), [1, 3, 0], "neither the used nor the fresh one");
    }

    proptest! {
        #[test]
        fn never_one_in_use(images in prop::collection::vec((any::<u64>(), any::<u32>(), any::<bool>()), 0..20), used: u64, total: u64) {
            let images: Vec<_> = images.into_iter().map(|(s, u, i)| image(s, u.into(), i)).collect();
            for chosen in choose(&images, used, total, &Policy::default()) {
                prop_assert!(!images[chosen].in_use && images[chosen].unused >= Duration::from_secs(120));
            }
        }
    }
}
