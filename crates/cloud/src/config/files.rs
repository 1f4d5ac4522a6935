//! clouds.yaml, with secure.yaml and the profiles of clouds-public.yaml merged in.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{ConfigError, Environment};

/// The clouds of the first `clouds.yaml` that there is.
pub(super) fn read(environment: &Environment) -> Result<BTreeMap<String, Map<String, Value>>, ConfigError> {
    let named = |variable: &str| environment.get(variable).map(PathBuf::from);
    let clouds = first(environment, named("OS_CLIENT_CONFIG_FILE"), "clouds")?;
    let secure = first(environment, named("OS_CLIENT_SECURE_FILE"), "secure")?;
    let profiles = first(environment, None, "clouds-public")?;
    let mut all = BTreeMap::new();
    for (name, entry) in clouds["clouds"].as_object().into_iter().flatten() {
        let profile = entry["profile"].as_str().map(|p| &profiles["public-clouds"][p]);
        let mut merged = profile.cloned().unwrap_or_default();
        merge(&mut merged, entry);
        merge(&mut merged, &secure["clouds"][name]);
        if let Value::Object(entry) = merged {
            all.insert(name.clone(), entry);
        }
    }
    Ok(all)
}

fn first(environment: &Environment, named: Option<PathBuf>, stem: &str) -> Result<Value, ConfigError> {
    if let Some(path) = named {
        return parse(&path)?.ok_or_else(|| ConfigError::Read { path, source: io::ErrorKind::NotFound.into() });
    }
    for place in &environment.places {
        for ending in ["yaml", "yml", "json"] {
            if let Some(value) = parse(&place.join(format!("{stem}.{ending}")))? {
                return Ok(value);
            }
        }
    }
    Ok(Value::Null)
}

/// The file's only document; `None` when there is no such file.
fn parse(path: &Path) -> Result<Option<Value>, ConfigError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let wrong = |what: String| ConfigError::Wrong { origin: path.display().to_string(), what };
    let mut documents = api::read::manifest(&text).map_err(|e| wrong(e.to_string()))?;
    Ok(Some(if documents.is_empty() { Value::Null } else { documents.swap_remove(0).value }))
}

/// Lays `over` upon `under`, maps key by key.
fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
