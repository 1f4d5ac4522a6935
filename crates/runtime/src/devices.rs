//! Which devices a container may open: as v1 rules, and as the BPF program that v2 takes instead.

/// A device that is harmless to open.
struct Rule {
    major: u32,
    minor: Option<u32>,
}

const fn one(major: u32, minor: u32) -> Rule {
    Rule { major, minor: Some(minor) }
}

/// Character devices: null, zero, full, random, urandom, tty, ptmx, and terminals. Making a node of any device is
/// harmless too, where opening it is not allowed.
const ALLOWED: [Rule; 8] =
    [one(1, 3), one(1, 5), one(1, 7), one(1, 8), one(1, 9), one(5, 0), one(5, 2), Rule { major: 136, minor: None }];

/// The rules as `devices.allow` takes them.
pub fn v1() -> Vec<String> {
    let minor = |rule: &Rule| rule.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
    let allowed = ALLOWED.iter().map(|rule| format!("c {}:{} rwm", rule.major, minor(rule)));
    ["c *:* m".to_owned(), "b *:* m".to_owned()].into_iter().chain(allowed).collect()
}

/// One instruction, as the kernel's `struct bpf_insn`.
pub type Instruction = [u8; 8];

fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: u32) -> Instruction {
    let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
    [code, source << 4 | destination, o0, o1, v0, v1, v2, v3]
}

/// The same rules as a program over `struct bpf_cgroup_dev_ctx`: access and type, major, minor, 32 bits each.
pub fn program() -> Vec<Instruction> {
    const ANSWER: u8 = 0;
    const CONTEXT: u8 = 1;
    const KIND: u8 = 2;
    const ACCESS: u8 = 3;
    const MAJOR: u8 = 4;
    const MINOR: u8 = 5;
    const MKNOD: u32 = 1;
    const CHARACTER: u32 = 2;
    let load = |into, at| instruction(0x61, into, CONTEXT, at, 0);
    let answer = |allowed| [instruction(0xb7, ANSWER, 0, 0, allowed), instruction(0x95, 0, 0, 0, 0)];
    let unless = |register, is, skip| instruction(0x55, register, 0, skip, is);
    let mut program = vec![
        load(KIND, 0),
        instruction(0xbf, ACCESS, KIND, 0, 0),
        instruction(0x74, ACCESS, 0, 0, 16), // the upper half
        instruction(0x54, KIND, 0, 0, 0xffff),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    program.push(unless(ACCESS, MKNOD, 2));
    program.extend(answer(1));
    program.push(instruction(0x15, KIND, 0, 2, CHARACTER));
    program.extend(answer(0));
    for rule in &ALLOWED {
        match rule.minor {
            Some(minor) => program.extend([unless(MAJOR, rule.major, 3), unless(MINOR, minor, 2)]),
            None => program.push(unless(MAJOR, rule.major, 2)),
        }
        program.extend(answer(1));
    }
    program.extend(answer(0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of it.
    fn run(kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let (program, mut registers, mut at) = (program(), [0u64; 6], 0usize);
        loop {
            let [code, registers_of, o0, o1, v @ ..] = program[at];
            let (to, from) = (usize::from(registers_of & 15), usize::from(registers_of >> 4));
            let (offset, value) = (i16::from_ne_bytes([o0, o1]), u32::from_ne_bytes(v));
            at += 1;
            let mut jump = |taken: bool| at = at.wrapping_add_signed(if taken { offset.into() } else { 0 });
            match code {
                0x61 => registers[to] = context[offset as usize / 4].into(),
                0xbf => registers[to] = registers[from],
                0xb7 => registers[to] = value.into(),
                0x74 => registers[to] = u64::from(registers[to] as u32 >> value),
                0x54 => registers[to] &= u64::from(value),
                0x15 => jump(registers[to] == u64::from(value)),
                0x55 => jump(registers[to] != u64::from(value)),
                0x95 => return registers[0],
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn only_harmless_devices_may_be_opened() {
        const BLOCK: u32 = 1;
        const CHARACTER: u32 = 2;
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 0), (136, 77)] {
            for access in [1, 2, 4, 6] {
                assert_eq!(run(CHARACTER, access, major, minor), 1, "{major}:{minor}");
            }
            assert_eq!(run(BLOCK, 2, major, minor), 0, "block {major}:{minor}");
        }
        for (major, minor) in [(1, 1), (1, 2), (1, 4), (1, 11), (5, 1), (5, 3), (10, 200), (135, 0), (137, 0), (0, 0)] {
            for access in [2, 4, 6] {
                assert_eq!(run(CHARACTER, access, major, minor), 0, "{major}:{minor}");
            }
            assert_eq!((run(CHARACTER, 1, major, minor), run(BLOCK, 1, major, minor)), (1, 1));
        }
    }

    #[test]
    fn both_forms_say_the_same() {
        assert_eq!(v1().len(), ALLOWED.len() + 2);
        assert!(v1().contains(&"c 136:* rwm".to_owned()) && v1().contains(&"c 1:3 rwm".to_owned()));
    }
}
