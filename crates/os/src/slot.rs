//! The two places on a disk that a system may lie in.

use std::fmt;

/// A slot. One runs; the other is for what is to run next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `slot-a`, booted from /a of the boot partition.
    A,
    /// `slot-b`, booted from /b.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];
    const PARAMETER: &str = "rastos.slot";

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Its partition's name.
    pub fn partition(self) -> &'static str {
        match self {
            Self::A => "slot-a",
            Self::B => "slot-b",
        }
    }

    /// A command line that says which slot it is of.
    pub fn command_line(self, words: &str) -> String {
        format!("{words} {}={self}", Self::PARAMETER)
    }

    /// The slot that a kernel command line is of; none on a machine that was started without a boot partition.
    pub fn on(command_line: &str) -> Option<Self> {
        let mut words = command_line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        let (_, name) = words.find(|(name, _)| *name == Self::PARAMETER)?;
        Self::ALL.into_iter().find(|slot| slot.name() == name)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_reads_back_from_the_command_line() {
        assert_eq!(Slot::on(&Slot::B.command_line("panic=-1")), Some(Slot::B));
        assert_eq!(Slot::on("panic=-1 rastos.slot=c"), None);
    }
}
