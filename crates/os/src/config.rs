//! Where a machine learns what it is: the kernel's command line, NoCloud, OpenStack's config drive and metadata service,
//! in this order. The first that has user data decides.

pub mod drive;
pub mod metadata;
pub mod network;
pub mod openstack;

use std::fmt;

use api::rastos::MachineConfig;
use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE};

use network::Plan;
use openstack::Meta;

/// The word on the kernel's command line that a configuration follows, in base64.
pub const WORD: &str = "rastos.config=";

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The kernel's command line.
    CommandLine,
    /// A drive labelled `cidata`.
    NoCloud,
    /// A drive labelled `config-2`.
    ConfigDrive,
    /// OpenStack's metadata service.
    Metadata,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CommandLine => "kernel command line",
            Self::NoCloud => "NoCloud drive",
            Self::ConfigDrive => "config drive",
            Self::Metadata => "metadata service",
        })
    }
}

/// What one source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which it is.
    pub source: Source,
    /// The text that should be a [`MachineConfig`].
    pub user_data: Option<String>,
    /// `meta_data.json`.
    pub meta: Meta,
    /// `network_data.json`.
    pub network: Option<Plan>,
    /// What could not be read.
    pub trouble: Vec<String>,
}

impl Found {
    /// A source that has said nothing yet.
    pub fn at(source: Source) -> Self {
        Self { source, user_data: None, meta: Meta::default(), network: None, trouble: Vec::new() }
    }

    /// Reads a file of OpenStack's or NoCloud's into its place; what is wrong with it is noted.
    pub(crate) fn take(&mut self, name: &str, text: String) {
        let wrong = |e: String| format!("{}: {name}: {e}", self.source);
        match name {
            "user_data" | "user-data" => self.user_data = Some(text).filter(|t| !t.trim().is_empty()),
            "meta_data.json" | "meta-data" => match Meta::read(&text) {
                Ok(meta) => self.meta = meta,
                Err(e) => self.trouble.push(wrong(e)),
            },
            "network_data.json" => match Plan::read(&text) {
                Ok(plan) => self.network = Some(plan),
                Err(e) => self.trouble.push(wrong(e)),
            },
            _ => {}
        }
    }
}

/// What the command line says.
pub fn on_command_line(line: &str) -> Option<Found> {
    let word = line.split_whitespace().rev().find_map(|word| word.strip_prefix(WORD))?;
    let mut found = Found::at(Source::CommandLine);
    let bytes = BASE64_STANDARD.decode(word).or_else(|_| BASE64_URL_SAFE.decode(word));
    match bytes.map_err(|e| e.to_string()).and_then(|b| String::from_utf8(b).map_err(|e| e.to_string())) {
        Ok(text) => found.user_data = Some(text),
        Err(e) => found.trouble.push(format!("{}: {WORD} is not base64 of a text: {e}", found.source)),
    }
    Some(found)
}

/// Which network the sources ask for; DHCP everywhere when none says.
pub fn plan(found: &[Found]) -> Plan {
    found.iter().find_map(|f| f.network.clone()).unwrap_or_default()
}

/// The machine's configuration, by the first source that has user data.
///
/// # Errors
/// What the console is to say: everything that is wrong, a line each.
pub fn decide(found: &[Found]) -> Result<(Source, MachineConfig), Vec<String>> {
    let mut wrong: Vec<String> = found.iter().flat_map(|f| f.trouble.clone()).collect();
    for f in found {
        let Some(text) = &f.user_data else { continue };
        match MachineConfig::read(text) {
            Ok(config) => return Ok((f.source, config)),
            Err(faults) => {
                wrong.extend(faults.into_iter().map(|fault| format!("{}: {fault}", f.source)));
                // A later source must not overrule what was meant by an earlier one.
                return Err(wrong);
            }
        }
    }
    if wrong.is_empty() {
        let seen: Vec<String> = found.iter().map(|f| format!("{} has no user data", f.source)).collect();
        wrong.push(match seen.is_empty() {
            true => {
                "none found: no kernel command line, NoCloud or config drive, and no metadata service yet".to_owned()
            }
            false => seen.join(", "),
        });
    }
    Err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "apiVersion: rastos.io/v1alpha1\nkind: MachineConfig\nmetadata: {name: one}\n";

    fn with(source: Source, text: &str) -> Found {
        let mut found = Found::at(source);
        found.take("user_data", text.into());
        found
    }

    #[test]
    fn the_first_source_with_user_data_decides() {
        let line = format!("console=ttyS0 {WORD}{} quiet", BASE64_STANDARD.encode(ONE));
        let all = [on_command_line(&line).unwrap(), with(Source::ConfigDrive, &ONE.replace("one", "two"))];
        assert_eq!(decide(&all).unwrap().1.metadata.name, "one");
        let all = [Found::at(Source::NoCloud), with(Source::Metadata, ONE)];
        assert_eq!(decide(&all).unwrap().0, Source::Metadata);
    }

    #[test]
    fn a_wrong_one_is_not_overruled() {
        let all = [with(Source::ConfigDrive, &ONE.replace("one", "One")), with(Source::Metadata, ONE)];
        assert!(decide(&all).unwrap_err()[0].starts_with("config drive: line 3: metadata.name: "));
    }

    #[test]
    fn nothing_is_said_to_be_missing() {
        assert!(decide(&[]).unwrap_err()[0].starts_with("none found"));
        assert_eq!(decide(&[with(Source::Metadata, "\n")]).unwrap_err(), ["metadata service has no user data"]);
        let broken = on_command_line(&format!("{WORD}!!")).unwrap();
        assert!(decide(&[broken]).unwrap_err()[0].contains("is not base64"));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line: String) {
            on_command_line(&line);
            on_command_line(&format!("{WORD}{line}"));
        }
    }
}
