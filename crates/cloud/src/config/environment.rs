//! The variables of the environment, as values.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

/// Variables that mean the same as a key of clouds.yaml under another name.
const OTHER_NAMES: [(&str, &str); 3] =
    [("OS_ENDPOINT_TYPE", "interface"), ("OS_DEFAULT_DOMAIN_NAME", "domain_name"), ("OS_TENANT", "project_name")];

/// What the environment says, taken once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Where `clouds.yaml` is looked for, first match counts.
    pub(super) places: Vec<PathBuf>,
    /// Where `~` leads.
    home: Option<PathBuf>,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        let home = env::var_os("HOME").map(PathBuf::from);
        let config = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or(home.as_ref().map(|h| h.join(".config")));
        let places = [Some(PathBuf::from(".")), config.map(|c| c.join("openstack")), Some("/etc/openstack".into())];
        let new = Self::new(env::vars(), places.into_iter().flatten());
        Self { home, ..new }
    }

    /// These variables, and these directories for the files.
    pub fn new(
        variables: impl IntoIterator<Item = (String, String)>,
        places: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        let variables = variables.into_iter().filter(|(k, v)| k.starts_with("OS_") && !v.is_empty()).collect();
        Self { variables, places: places.into_iter().collect(), home: None }
    }

    #[cfg(test)]
    pub(super) fn at_home(self, home: &str) -> Self {
        Self { home: Some(home.into()), ..self }
    }

    /// A path as OpenStack's own clients read it.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        match (text.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => Path::new(text).to_owned(),
        }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variables as an entry of clouds.yaml: `OS_PROJECT_ID` is `project_id`.
    pub(super) fn entry(&self) -> Map<String, Value> {
        let plain = self.variables.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix("OS_")?.to_ascii_lowercase(), Value::from(value.as_str())))
        });
        let mut entry: Map<String, Value> = plain.collect();
        for (name, key) in OTHER_NAMES {
            if let Some(value) = self.get(name) {
                entry.entry(key).or_insert_with(|| value.into());
            }
        }
        entry
    }
}
