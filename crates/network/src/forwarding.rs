//! Making the host forward for its pods, and leaving it as it was.
//!
//! What was before is kept in the comment of the instance's own table of the packet filter: there it lives exactly as
//! long as what was changed, and the other instances of the host can read it.

use std::{collections::BTreeMap, fs, process::Command};

use crate::{
    Error, Result,
    nft::{self, Table},
};

/// What every instance's comment begins with.
const MARK: &str = "rastos";

/// The switches, by the names the comment has for them.
const SWITCHES: [(&str, &str); 2] =
    [("ip_forward", "/proc/sys/net/ipv4/ip_forward"), ("ip6_forward", "/proc/sys/net/ipv6/conf/all/forwarding")];

/// The switches as they were before the first instance came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before(BTreeMap<&'static str, String>);

impl Before {
    /// As the instances' comments say; the present for what none mentions.
    pub fn read(tables: &[Table], v6: bool) -> Result<Self> {
        let mut before = BTreeMap::new();
        for (name, path) in SWITCHES.iter().take(if v6 { 2 } else { 1 }) {
            let value = match tables.iter().find_map(|table| remembered(table, name)) {
                Some(value) => value.to_owned(),
                None => fs::read_to_string(path).map_err(Error::io(format!("read {path}")))?.trim().to_owned(),
            };
            before.insert(*name, value);
        }
        Ok(Self(before))
    }

    /// The comment to be read again.
    pub fn comment(&self) -> String {
        self.0.iter().fold(MARK.to_owned(), |comment, (name, value)| format!("{comment} {name}={value}"))
    }

    /// Forwards from now on.
    pub fn enable(&self) -> Result<()> {
        self.set(|_| "1")
    }

    /// As it was.
    pub fn restore(&self) -> Result<()> {
        self.set(|before| before)
    }

    fn set<'a>(&'a self, value: impl Fn(&'a str) -> &'a str) -> Result<()> {
        for (name, path) in SWITCHES {
            let Some(value) = self.0.get(name).map(|before| value(before)) else { continue };
            let doing = || Error::io(format!("write {value} to {path}"));
            // Even an equal value would reset the switches of every single link.
            if fs::read_to_string(path).map_err(doing())?.trim() != value {
                fs::write(path, value).map_err(doing())?;
            }
        }
        Ok(())
    }
}

/// Whether the table is an instance's.
pub fn ours(table: &Table) -> bool {
    table.comment.as_deref().is_some_and(|comment| comment.split(' ').next() == Some(MARK))
}

fn remembered<'a>(table: &'a Table, name: &str) -> Option<&'a str> {
    let mut words = table.comment.as_deref()?.split(' ');
    (words.next()? == MARK).then_some(())?;
    words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Lets pods through a FORWARD chain of iptables whose policy is to drop, as Docker sets it: an accepting verdict in
/// one table is no help against a dropping one in another.
pub fn accept(tables: &[Table], prefix: &str) -> Result<()> {
    for tool in dropping_tools(tables) {
        if !iptables(tool, &["-S", "FORWARD"])?.lines().any(|line| line == "-P FORWARD DROP") {
            continue;
        }
        for direction in ["-i", "-o"] {
            let rule = accepting(direction, prefix);
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            if iptables(tool, &[&["-C", "FORWARD"], rule.as_slice()].concat()).is_err() {
                iptables(tool, &[&["-I", "FORWARD"], rule.as_slice()].concat())?;
            }
        }
    }
    Ok(())
}

/// Undoes [`accept`]; absent is done.
pub fn unaccept(tables: &[Table], prefix: &str) -> Result<()> {
    for tool in dropping_tools(tables) {
        for direction in ["-i", "-o"] {
            let rule = accepting(direction, prefix);
            let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
            if iptables(tool, &[&["-C", "FORWARD"], rule.as_slice()].concat()).is_ok() {
                iptables(tool, &[&["-D", "FORWARD"], rule.as_slice()].concat())?;
            }
        }
    }
    Ok(())
}

/// The tools whose filter table exists; asking one makes the legacy kind's table, so look before.
fn dropping_tools(tables: &[Table]) -> Vec<&'static str> {
    [("ip", "iptables", "ip_tables_names"), ("ip6", "ip6tables", "ip6_tables_names")]
        .into_iter()
        .filter(|(family, _, legacy)| {
            let named = fs::read_to_string(format!("/proc/thread-self/net/{legacy}")).unwrap_or_default();
            tables.iter().any(|t| t.family == *family && t.name == "filter") || named.lines().any(|n| n == "filter")
        })
        .map(|(_, tool, _)| tool)
        .collect()
}

fn accepting(direction: &str, prefix: &str) -> [String; 4] {
    // A trailing `+` is any rest of the name.
    [direction.to_owned(), format!("{prefix}+"), "-j".to_owned(), "ACCEPT".to_owned()]
}

fn iptables(tool: &'static str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(tool);
    command.arg("--wait").args(arguments);
    nft::output(command, "").map_err(Error::io(format!("{tool} {}", arguments.join(" "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(comment: &str) -> Table {
        Table { family: "inet".into(), name: "x".into(), comment: Some(comment.into()) }
    }

    #[test]
    fn the_first_instance_s_memory_is_inherited() {
        let before = Before::read(&[table("rast ip_forward=5"), table("rastos ip_forward=7")], false).unwrap();
        assert_eq!(before.comment(), "rastos ip_forward=7");
        assert!(!ours(&table("rastosx ip_forward=7")));
    }
}
