//! Memory of all processes whose program is `rast`.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// Proportional set size of them all, in KiB, and how many they are.
pub fn of_rast() -> Result<(u64, usize)> {
    let sizes: Vec<_> = processes()?.iter().filter_map(|process| pss(process)).collect();
    Ok((sizes.iter().sum(), sizes.len()))
}

/// What follows `flag` on the command line of one of them.
pub fn argument(flag: &str) -> Result<Option<String>> {
    Ok(processes()?.iter().find_map(|process| {
        let line = fs::read_to_string(process.join("cmdline")).ok()?;
        line.split('\0').skip_while(|word| *word != flag).nth(1).map(str::to_owned)
    }))
}

/// Their directories in `/proc`. One may end while we look.
fn processes() -> Result<Vec<PathBuf>> {
    let program = std::env::var_os("RAST_PROGRAM").context("RAST_PROGRAM is set by scripts/bench")?;
    let program = fs::metadata(program)?;
    // By file and not by path: the helper runs from a mount of its own.
    let same = |process: &PathBuf| {
        fs::metadata(process.join("exe")).is_ok_and(|exe| (exe.dev(), exe.ino()) == (program.dev(), program.ino()))
    };
    Ok(fs::read_dir("/proc")?.flatten().map(|entry| entry.path()).filter(same).collect())
}

fn pss(process: &Path) -> Option<u64> {
    let rollup = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
}
