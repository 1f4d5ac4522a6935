//! dm-verity's hash tree: version 1, BLAKE2b-512, no salt, no superblock. It follows the data it covers, its topmost
//! block first, so that what the tree hangs on is found by the root hash alone.

use std::{
    fmt, io,
    io::{Read, Write},
    str::FromStr,
};

use blake2::{Blake2b512, Digest as _};

/// Bytes in a block, of data and of hashes alike.
pub const BLOCK: usize = 4096;
const DIGEST: usize = 64;
/// The hash, as the kernel names it.
const ALGORITHM: &str = "blake2b-512";

/// What a root filesystem is known by: `HASH:BLOCKS` on the kernel's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// The hash of the tree's topmost block.
    pub hash: [u8; DIGEST],
    /// How many blocks of data the tree covers; the tree begins right after them.
    pub blocks: u64,
}

/// Text that is no `HASH:BLOCKS`.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not 128 hex digits, a colon and a number of blocks of 2 or more")]
pub struct BadRoot(String);

impl Root {
    /// The parameter on the kernel's command line.
    pub const PARAMETER: &str = "rastos.root";

    /// The kernel modules that its table's target and hash ask for.
    pub const MODULES: [&str; 2] = ["dm-verity", "crypto-blake2b-512"];

    /// The root that a kernel command line names.
    pub fn on(command_line: &str) -> Option<Result<Self, BadRoot>> {
        let mut words = command_line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == Self::PARAMETER).map(|(_, value)| value.parse())
    }

    /// Whether a block is the topmost one of this root's tree.
    pub fn tops(&self, block: &[u8; BLOCK]) -> bool {
        <[u8; DIGEST]>::from(Blake2b512::digest(block)) == self.hash
    }

    /// The table line of a device that lies on `device` and restarts the machine rather than give a wrong answer.
    pub fn table(&self, device: &str) -> String {
        let Self { blocks, .. } = self;
        let hash = hex::encode(self.hash);
        format!("1 {device} {device} {BLOCK} {BLOCK} {blocks} {blocks} {ALGORITHM} {hash} - 1 panic_on_corruption")
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", hex::encode(self.hash), self.blocks)
    }
}

impl FromStr for Root {
    type Err = BadRoot;

    fn from_str(text: &str) -> Result<Self, BadRoot> {
        let bad = || BadRoot(text.to_owned());
        let (digits, blocks) = text.split_once(':').ok_or_else(bad)?;
        let mut hash = [0; DIGEST];
        hex::decode_to_slice(digits, &mut hash).map_err(|_| bad())?;
        let blocks = blocks.parse().ok().filter(|blocks| *blocks >= 2).ok_or_else(bad)?;
        Ok(Self { hash, blocks })
    }
}

/// Reads data to its end and writes its tree; the last block is filled up with zeros, as it must be on the disk.
pub fn tree(data: &mut dyn Read, tree: &mut dyn Write) -> io::Result<Root> {
    let mut levels = vec![Vec::new()];
    let mut block = [0; BLOCK];
    let mut blocks = 0;
    while fill(data, &mut block)? {
        levels[0].extend_from_slice(&Blake2b512::digest(block));
        blocks += 1;
    }
    if blocks < 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a tree covers two blocks or more"));
    }
    while let Some(lowest) = levels.last_mut() {
        lowest.resize(lowest.len().next_multiple_of(BLOCK), 0);
        if lowest.len() == BLOCK {
            break;
        }
        let above = lowest.chunks(BLOCK).flat_map(|block| <[u8; DIGEST]>::from(Blake2b512::digest(block))).collect();
        levels.push(above);
    }
    for level in levels.iter().rev() {
        tree.write_all(level)?;
    }
    Ok(Root { hash: Blake2b512::digest(&levels[levels.len() - 1]).into(), blocks })
}

/// Reads one block; `false` at the end.
fn fill(data: &mut dyn Read, block: &mut [u8; BLOCK]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < BLOCK {
        match data.read(&mut block[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    block[filled..].fill(0);
    Ok(filled > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_reads_back_from_the_command_line() {
        let root = tree(&mut vec![7; 300 * BLOCK].as_slice(), &mut io::sink()).unwrap();
        let line = format!("console=ttyS0 {}={root} panic=-1", Root::PARAMETER);
        assert_eq!(Root::on(&line).unwrap().unwrap(), root);
        assert!(Root::on("rastos.rooted=1 quiet").is_none());
    }

    #[test]
    fn what_is_no_root_is_refused() {
        let hash = "0".repeat(128);
        for text in ["", ":", "12:3", &format!("{hash}:1"), &format!("{hash}:-4"), &format!("+{}:4", &hash[1..])] {
            assert!(text.parse::<Root>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_block_of_the_tree_is_its_top() {
        let mut written = Vec::new();
        let root = tree(&mut vec![7; 65 * BLOCK + 5].as_slice(), &mut written).unwrap();
        assert_eq!((root.blocks, written.len()), (66, 3 * BLOCK));
        assert!(root.tops(written[..BLOCK].try_into().unwrap()));
        assert!(!root.tops(written[BLOCK..2 * BLOCK].try_into().unwrap()));
    }
}
