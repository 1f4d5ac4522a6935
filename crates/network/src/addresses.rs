//! Which address comes next: a pure allocator over ranges.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// Addresses numbered over all ranges of a family; five base-32 digits name each.
const LIMIT: u64 = 1 << 25;

/// The addresses of some ranges, each free or in use.
///
/// Guarantees: an address in use is never handed out. Prefers: the one that has been free for longest (next fit).
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pools: Vec<Pool>,
}

/// A range had no free address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The ranges of the family that ran out.
    pub ranges: Vec<IpNet>,
    /// Addresses in use in them.
    pub used: usize,
}

/// One range; addresses are offsets from its network address.
#[derive(Clone, Debug)]
struct Pool {
    range: IpNet,
    /// Number of the address with offset 0.
    base: u64,
    /// Offsets that may be handed out: `first..end`.
    first: u64,
    end: u64,
    used: BTreeSet<u64>,
    /// Where the search for the next one begins.
    cursor: u64,
}

impl Addresses {
    /// All addresses of `ranges`, free. Network and broadcast addresses (IPv4), the routers' anycast address
    /// (IPv6), and what lies beyond 2^25 addresses of a family are left out.
    pub fn new(ranges: &[IpNet]) -> Self {
        let mut bases = [0, 0];
        let mut pools = Vec::new();
        for range in ranges {
            let bits = u32::from(range.max_prefix_len() - range.prefix_len());
            let size = if bits >= 25 { LIMIT } else { 1 << bits };
            let base = &mut bases[usize::from(range.addr().is_ipv6())];
            let end = size.min(LIMIT - *base);
            // A clipped range does not reach its broadcast address.
            let broadcast = matches!(range, IpNet::V4(_)) && bits > 1 && bits < 25 && end == size;
            let end = end - u64::from(broadcast);
            let first = u64::from(bits > 1).min(end);
            pools.push(Pool { range: range.trunc(), base: *base, first, end, used: BTreeSet::new(), cursor: first });
            *base = (*base + size).min(LIMIT);
        }
        Self { pools }
    }

    /// Takes one address of each family, in the order in which families first occur; all or none.
    pub fn take(&mut self) -> Result<Vec<IpAddr>, Exhausted> {
        let mut taken: Vec<IpAddr> = Vec::new();
        for i in 0..self.pools.len() {
            let family = self.pools[i].range.addr().is_ipv4();
            if taken.iter().any(|ip| ip.is_ipv4() == family) {
                continue;
            }
            let of_family = |pool: &&mut Pool| pool.range.addr().is_ipv4() == family;
            match self.pools.iter_mut().filter(of_family).find_map(Pool::take) {
                Some(ip) => taken.push(ip),
                None => {
                    let full: Vec<_> = self.pools.iter().filter(|p| p.range.addr().is_ipv4() == family).collect();
                    let exhausted = Exhausted {
                        ranges: full.iter().map(|p| p.range).collect(),
                        used: full.iter().map(|p| p.used.len()).sum(),
                    };
                    taken.into_iter().for_each(|ip| self.free(ip));
                    return Err(exhausted);
                }
            }
        }
        Ok(taken)
    }

    /// Marks an address as in use; false if it was, or lies in no range.
    pub fn occupy(&mut self, ip: IpAddr) -> bool {
        self.find(ip).is_some_and(|(pool, offset)| pool.used.insert(offset))
    }

    /// Marks an address as free.
    pub fn free(&mut self, ip: IpAddr) {
        if let Some((pool, offset)) = self.find(ip) {
            pool.used.remove(&offset);
        }
    }

    /// A number below 2^25 that no other address of its family has.
    pub fn number(&self, ip: IpAddr) -> Option<u64> {
        self.pools.iter().find_map(|pool| Some(pool.base + pool.offset(ip)?))
    }

    /// For each range, the number after that of the last address handed out.
    pub fn cursors(&self) -> Vec<u64> {
        self.pools.iter().map(|pool| pool.cursor).collect()
    }

    /// Goes on where `cursors` said; what fits no range is ignored.
    pub fn resume(&mut self, cursors: &[u64]) {
        for (pool, cursor) in self.pools.iter_mut().zip(cursors) {
            pool.cursor = (*cursor).clamp(pool.first, pool.end);
        }
    }

    fn find(&mut self, ip: IpAddr) -> Option<(&mut Pool, u64)> {
        self.pools.iter_mut().find_map(|pool| pool.offset(ip).map(|offset| (pool, offset)))
    }
}

impl Pool {
    fn take(&mut self) -> Option<IpAddr> {
        let offset = self.gap(self.cursor, self.end).or_else(|| self.gap(self.first, self.cursor))?;
        self.used.insert(offset);
        self.cursor = offset + 1;
        Some(self.address(offset))
    }

    /// The first free offset in `from..to`.
    fn gap(&self, from: u64, to: u64) -> Option<u64> {
        let mut next = from;
        for &used in self.used.range(from..to) {
            if used != next {
                break;
            }
            next += 1;
        }
        (next < to).then_some(next)
    }

    fn address(&self, offset: u64) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) + offset as u32).into()),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) + u128::from(offset)).into()),
        }
    }

    fn offset(&self, ip: IpAddr) -> Option<u64> {
        let offset = match (self.range.network(), ip) {
            (IpAddr::V4(network), IpAddr::V4(ip)) => u32::from(ip).checked_sub(u32::from(network))?.into(),
            (IpAddr::V6(network), IpAddr::V6(ip)) => {
                u64::try_from(u128::from(ip).checked_sub(u128::from(network))?).ok()?
            }
            _ => return None,
        };
        (self.first..self.end).contains(&offset).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses(ranges: &[&str]) -> Addresses {
        Addresses::new(&ranges.iter().map(|r| r.parse().unwrap()).collect::<Vec<_>>())
    }

    fn all(addresses: &mut Addresses) -> Vec<String> {
        std::iter::from_fn(|| addresses.take().ok()).flatten().map(|ip| ip.to_string()).collect()
    }

    #[test]
    fn network_and_broadcast_address_are_left_out() {
        assert_eq!(all(&mut addresses(&["10.0.0.0/30"])), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(all(&mut addresses(&["10.0.0.4/31"])), ["10.0.0.4", "10.0.0.5"], "RFC 3021 has neither");
        assert_eq!(all(&mut addresses(&["10.0.0.4/32"])), ["10.0.0.4"]);
        assert_eq!(all(&mut addresses(&["fd00::/126"])), ["fd00::1", "fd00::2", "fd00::3"]);
    }

    #[test]
    fn one_address_of_each_family_or_none() {
        let mut both = addresses(&["10.0.0.0/29", "fd00::/127", "10.9.0.0/30"]);
        assert_eq!(both.take().unwrap().len(), 2);
        both.take().unwrap();
        let full = both.take().unwrap_err();
        assert_eq!((full.ranges.len(), full.used), (1, 2));
        assert_eq!(both.pools[0].used.len(), 2, "the IPv4 address of the failed attempt is free again");
    }

    #[test]
    fn a_freed_address_rests_until_the_range_has_been_walked() {
        let mut pool = addresses(&["10.0.0.0/29"]);
        let first = pool.take().unwrap()[0];
        pool.free(first);
        let next: Vec<_> = (0..6).map(|_| pool.take().unwrap()[0]).collect();
        assert_eq!(next.last(), Some(&first));
    }

    #[test]
    fn huge_ranges_are_clipped() {
        let mut huge = addresses(&["fd00::/64", "10.0.0.0/8", "fd01::/64"]);
        assert_eq!(huge.take().unwrap(), ["fd00::1".parse::<IpAddr>().unwrap(), "10.0.0.1".parse().unwrap()]);
        assert!(!huge.occupy("fd01::1".parse().unwrap()), "the first range used up the numbers");
        let mut v4 = addresses(&["10.0.0.0/8"]);
        assert!(v4.occupy("10.255.255.254".parse().unwrap()));
        assert!(!v4.occupy("10.255.255.255".parse().unwrap()), "a broadcast address");
    }

    proptest! {
        /// Against a slow judge: a plain set of what is out.
        #[test]
        fn never_twice(steps in prop::collection::vec((any::<bool>(), 0usize..64), 0..400), resumed in any::<u64>()) {
            let mut addresses = addresses(&["10.0.0.0/28", "fd00::/124", "10.0.1.0/29"]);
            addresses.resume(&[resumed]);
            let mut out: Vec<Vec<IpAddr>> = Vec::new();
            for (take, which) in steps {
                if take {
                    match addresses.take() {
                        Ok(ips) => {
                            for ip in &ips {
                                prop_assert!(!out.iter().flatten().any(|o| o == ip), "{ip} twice");
                                prop_assert!(!addresses.occupy(*ip));
                            }
                            out.push(ips);
                        }
                        Err(full) => prop_assert_eq!(full.used, out.len()),
                    }
                } else if !out.is_empty() {
                    let gone = out.swap_remove(which % out.len());
                    gone.into_iter().for_each(|ip| addresses.free(ip));
                }
            }
            let mut numbers: Vec<_> = out.iter().flatten().map(|ip| (ip.is_ipv4(), addresses.number(*ip))).collect();
            prop_assert!(numbers.iter().all(|(_, number)| number.is_some()));
            numbers.sort();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), out.iter().flatten().count());
        }
    }
}
