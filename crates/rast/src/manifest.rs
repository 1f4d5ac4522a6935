//! The YAML files a user gives, object by object.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// One object of a file.
pub struct Object {
    /// The object.
    pub value: Value,
}

impl Object {
    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or("")
    }

    /// Points at the lines that a refusal is about.
    pub fn point(&self, error: anyhow::Error) -> anyhow::Error {
        error
    }

    /// Its namespace, when it names one.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }
}

/// The objects of all files, in order; `-` is standard input, a directory its `*.yaml`, `*.yml` and `*.json`.
pub fn read_all(files: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for file in files {
        for file in expand(file)? {
            let text = read(&file)?;
            for value in serde_saphyr::from_multiple::<Value>(&text)
                .map_err(|e| Failure::new(Exit::Invalid, format!("{}: {e}", file.display())))?
            {
                match value {
                    Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                        let Some(Value::Array(items)) = list.remove("items") else { continue };
                        objects.extend(items.into_iter().map(|value| Object { value }));
                    }
                    value => objects.push(Object { value }),
                }
            }
        }
    }
    Ok(objects)
}

fn expand(file: &Path) -> Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let entries = std::fs::read_dir(file).with_context(|| format!("read {}", file.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}
