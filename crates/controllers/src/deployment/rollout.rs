//! The numbers of a rollout: which ReplicaSet gets which size next. Pure arithmetic, no objects.

use k8s_openapi::{api::apps::v1::DeploymentStrategy, apimachinery::pkg::util::intstr::IntOrString};

use crate::replicaset::ReplicaSet;

/// How pods of an old template are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// All old ones go before the first new one comes.
    Recreate,
    /// Never more than `surge` too many, never more than `unavailable` too few.
    Rolling { surge: i64, unavailable: i64 },
}

/// A ReplicaSet's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// How many pods it shall have.
    pub replicas: i64,
    /// How many of these are surely available.
    pub available: i64,
    /// How many there are that are not on their way out: more than `replicas` while it is made smaller.
    pub live: i64,
}

impl Set {
    pub fn of(set: &ReplicaSet, live: usize) -> Self {
        // The status may still count pods that a smaller size has doomed.
        let available = i64::from(set.status.available_replicas.unwrap_or(0)).min(set.replicas);
        Self { replicas: set.replicas, available, live: live as i64 }
    }
}

/// The next move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The new ReplicaSet gets this size.
    New(i64),
    /// The old ones get these sizes.
    Old(Vec<i64>),
    /// Nothing can be done, or need be.
    Stay,
}

impl Strategy {
    /// From the spec, for so many replicas. Percentages of surge round up, those of unavailability down; were both
    /// to come out as nothing, one pod may be unavailable, or no rollout would ever move.
    pub fn of(strategy: Option<&DeploymentStrategy>, replicas: i64) -> Self {
        if strategy.is_some_and(|s| s.type_.as_deref() == Some("Recreate")) {
            return Self::Recreate;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let surge = amount(rolling.and_then(|r| r.max_surge.as_ref()), replicas, true);
        let unavailable = amount(rolling.and_then(|r| r.max_unavailable.as_ref()), replicas, false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self::Rolling { surge, unavailable: unavailable.min(replicas.max(1)) }
    }

    pub fn surge(self) -> i64 {
        match self {
            Self::Rolling { surge, .. } => surge,
            Self::Recreate => 0,
        }
    }

    /// The next move towards `replicas` pods of the new template and none of the old ones. `lingering`: pods of old
    /// templates still exist, though they may be on their way out.
    pub fn next(self, replicas: i64, new: &Set, old: &[Set], lingering: bool) -> Move {
        let old_total: i64 = old.iter().map(|s| s.replicas).sum();
        if new.replicas > replicas {
            return Move::New(replicas);
        }
        let (surge, unavailable) = match self {
            Self::Recreate if old_total > 0 => return Move::Old(vec![0; old.len()]),
            Self::Recreate if lingering || new.replicas == replicas => return Move::Stay,
            Self::Recreate => return Move::New(replicas),
            Self::Rolling { surge, unavailable } => (surge, unavailable),
        };
        // Kubernetes counts sizes only, and has too many pods until the smaller ones are real.
        let present: i64 = old.iter().chain([new]).map(|s| s.replicas.max(s.live)).sum();
        let room = replicas + surge - present;
        let up = room.min(replicas - new.replicas);
        if up > 0 {
            return Move::New(new.replicas + up);
        }
        let (least, total) = (replicas - unavailable, old_total + new.replicas);
        let down = total - least - (new.replicas - new.available);
        if old_total == 0 || down <= 0 {
            return Move::Stay;
        }
        // Old pods that are not available go first: nobody misses them.
        let mut sizes: Vec<_> = old.iter().map(|s| s.replicas).collect();
        let mut left = down;
        for (size, set) in sizes.iter_mut().zip(old) {
            let unhealthy = (set.replicas - set.available).min(left);
            *size -= unhealthy;
            left -= unhealthy;
        }
        let available: i64 = old.iter().map(|s| s.available).sum::<i64>() + new.available;
        let mut left = left.min(available - least).max(0);
        for (size, set) in sizes.iter_mut().zip(old) {
            let healthy = set.available.min(*size).min(left);
            *size -= healthy;
            left -= healthy;
        }
        if sizes.iter().zip(old).all(|(size, set)| *size == set.replicas) { Move::Stay } else { Move::Old(sizes) }
    }
}

fn amount(value: Option<&IntOrString>, of: i64, up: bool) -> i64 {
    let percent = |text: &str| text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok());
    let share = |percent: i64| if up { (of * percent + 99).div_euclid(100) } else { (of * percent).div_euclid(100) };
    match value {
        Some(IntOrString::Int(n)) => i64::from(*n).max(0),
        Some(IntOrString::String(text)) => percent(text).map_or(0, share).max(0),
        None => share(25),
    }
}

/// Sizes after the number of replicas changed, or while a rollout is paused: of all old ReplicaSets, then the new one.
///
/// Each keeps its share. `most`: how many pods there could be in all when each was last scaled.
pub fn resize(old: &[Set], new: Option<&Set>, most: &[Option<i64>], replicas: i64, now_most: i64) -> Vec<i64> {
    let sets: Vec<Set> = old.iter().chain(new).copied().collect();
    let mut sizes: Vec<_> = sets.iter().map(|s| s.replicas).collect();
    let active: Vec<_> = (0..sets.len()).filter(|i| sets[*i].replicas > 0).collect();
    let only = match active[..] {
        [one] => Some(one),
        [] if new.is_some() => Some(sets.len() - 1),
        [] => sets.len().checked_sub(1),
        _ => None,
    };
    if let Some(only) = only {
        sizes[only] = replicas;
        return sizes;
    }
    // A new set that has all it needs, available, is the only one that matters.
    if new.is_some_and(|n| n.replicas == replicas && n.available == replicas) {
        sizes[..old.len()].fill(0);
        return sizes;
    }
    let total: i64 = sizes.iter().sum();
    let allowed = if replicas > 0 { now_most } else { 0 };
    let mut left = allowed - total;
    let mut order = active;
    order.sort_by_key(|i| (std::cmp::Reverse(sets[*i].replicas), std::cmp::Reverse(*i)));
    for i in &order {
        let was = most.get(*i).copied().flatten().filter(|m| *m > 0).unwrap_or(total.max(1));
        let fair = (2 * sets[*i].replicas * allowed + was) / (2 * was) - sets[*i].replicas;
        let share = if left > 0 { fair.clamp(0, left) } else { fair.clamp(left, 0).max(-sizes[*i]) };
        sizes[*i] += share;
        left -= share;
    }
    for i in order {
        let share = left.max(-sizes[i]);
        sizes[i] += share;
        left -= share;
    }
    sizes
}
