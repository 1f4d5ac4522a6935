//! The Container Network Interface, version 1.1: the built-in plugin, on the same records as calls in process.

mod plugin;
mod result;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Config;
pub use plugin::main;
#[cfg(fuzzing)]
pub use plugin::parse;

/// The environment of a plugin.
pub type Environment = BTreeMap<String, String>;

/// What a plugin leaves with: its exit code, and what it writes to its standard output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// 0 for done.
    pub code: u8,
    /// A result, an error, or nothing.
    pub stdout: String,
}

/// The network configuration list that makes a CNI runtime use this instance, for `/etc/cni/net.d/<name>.conflist`.
/// The plugin is found as `rast` in CNI_PATH.
pub fn conflist(name: &str, config: &Config) -> Value {
    let mut plugin = json!({"type": "rast", "capabilities": {"portMappings": true}});
    if let (Some(plugin), Ok(Value::Object(config))) = (plugin.as_object_mut(), serde_json::to_value(config)) {
        plugin.extend(config);
    }
    json!({"cniVersion": "1.1.0", "name": name, "plugins": [plugin]})
}
