//! syslinux's auxiliary data vector: two equal sectors at the end of its file, kept by the loader over updates of
//! everything else. It holds which label to boot once, and how often rastOS has tried.

/// Bytes in a sector.
pub const SECTOR: usize = 512;
const HEAD: u32 = 0x5a2d_2fa5;
const SUM: u32 = 0xa304_1767;
const TAIL: u32 = 0xdd28_bf64;
/// Where the entries lie in a sector.
const ENTRIES: std::ops::Range<usize> = 8..SECTOR - 4;

const END: u8 = 0;
const BOOT_ONCE: u8 = 1;
/// Ours, out of the way of syslinux's own.
const TRIES: u8 = 0xa7;

/// What the sectors hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adv(Vec<(u8, Vec<u8>)>);

impl Adv {
    /// Where in a boot partition's first bytes the two sectors begin.
    pub fn find(bytes: &[u8]) -> Option<usize> {
        let mut sectors = bytes.chunks_exact(SECTOR).enumerate();
        sectors.find(|(_, sector)| is_whole(sector)).map(|(n, _)| n * SECTOR)
    }

    /// Reads one of the sectors; none if it is damaged.
    pub fn decode(sector: &[u8]) -> Option<Self> {
        if !is_whole(sector) {
            return None;
        }
        let (mut entries, mut rest) = (Vec::new(), &sector[ENTRIES]);
        while let [tag, length, following @ ..] = rest
            && *tag != END
        {
            let (value, next) = following.split_at_checked(usize::from(*length))?;
            entries.push((*tag, value.to_owned()));
            rest = next;
        }
        Some(Self(entries))
    }

    /// Both sectors.
    pub fn encode(&self) -> [u8; 2 * SECTOR] {
        let mut sector = [0; SECTOR];
        let mut at = ENTRIES.start;
        for (tag, value) in &self.0 {
            let end = at + 2 + value.len();
            // The label is a letter and the count a digit: there is always room.
            if end <= ENTRIES.end && value.len() <= usize::from(u8::MAX) {
                sector[at] = *tag;
                sector[at + 1] = value.len() as u8;
                sector[at + 2..end].copy_from_slice(value);
                at = end;
            }
        }
        sector[..4].copy_from_slice(&HEAD.to_le_bytes());
        let sum = sum(&sector);
        sector[4..8].copy_from_slice(&sum.to_le_bytes());
        sector[ENTRIES.end..].copy_from_slice(&TAIL.to_le_bytes());
        let mut both = [0; 2 * SECTOR];
        both[..SECTOR].copy_from_slice(&sector);
        both[SECTOR..].copy_from_slice(&sector);
        both
    }

    /// Boots a label next time, and that time only.
    pub fn boot_once(self, label: &str) -> Self {
        self.with(BOOT_ONCE, label.as_bytes())
    }

    /// Notes how often a slot was tried in vain.
    pub fn tried(self, times: u8) -> Self {
        self.with(TRIES, &[times])
    }

    /// How often a slot was tried in vain.
    pub fn tries(&self) -> u8 {
        let value = self.0.iter().find(|(tag, _)| *tag == TRIES);
        value.and_then(|(_, value)| value.first().copied()).unwrap_or_default()
    }

    fn with(mut self, tag: u8, value: &[u8]) -> Self {
        self.0.retain(|(other, _)| *other != tag);
        self.0.push((tag, value.to_owned()));
        self
    }
}

fn is_whole(sector: &[u8]) -> bool {
    sector.len() == SECTOR
        && word(sector, 0) == HEAD
        && word(sector, ENTRIES.end) == TAIL
        && word(sector, 4) == sum(sector)
}

fn sum(sector: &[u8]) -> u32 {
    ENTRIES.step_by(4).fold(SUM, |sum, at| sum.wrapping_sub(word(sector, at)))
}

fn word(sector: &[u8], at: usize) -> u32 {
    sector[at..at + 4].iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back() {
        let adv = Adv::default().boot_once("a").tried(2);
        let sectors = adv.encode();
        assert_eq!(Adv::decode(&sectors[..SECTOR]), Some(adv.clone()));
        assert_eq!(Adv::decode(&sectors[SECTOR..]).unwrap().tries(), 2);
        assert_eq!(adv.tried(0).tries(), 0);
    }

    #[test]
    fn a_damaged_sector_is_not_believed() {
        let mut sectors = Adv::default().boot_once("a").encode();
        for at in 0..SECTOR {
            sectors[at] ^= 1;
            assert_eq!(Adv::decode(&sectors[..SECTOR]), None, "byte {at}");
            sectors[at] ^= 1;
        }
    }

    #[test]
    fn it_is_found_where_it_lies() {
        let mut disk = vec![0x5a; 7 * SECTOR];
        disk[3 * SECTOR..5 * SECTOR].copy_from_slice(&Adv::default().encode());
        assert_eq!(Adv::find(&disk), Some(3 * SECTOR));
        assert_eq!(Adv::find(&disk[4 * SECTOR..]), Some(0));
        assert_eq!(Adv::find(b""), None);
    }
}
