//! The YAML files a user gives, object by object, each knowing where its fields stand.

use std::{
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result};
use api::{Cause, Faults, Registry, read};
use serde_json::Value;

use crate::{
    cluster::Refused,
    exit::{Exit, Failure},
};

/// One object of a file.
pub struct Object {
    /// The object.
    pub value: Value,
    /// What stands before its own paths: `items[3].` in a list.
    within: String,
    source: Rc<Source>,
}

/// One document of a file.
struct Source {
    file: PathBuf,
    lines: Vec<String>,
    spans: read::Spans,
}

impl Object {
    /// Its name.
    pub fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or("")
    }

    /// Its namespace, when it names one.
    pub fn namespace(&self) -> Option<&str> {
        self.value["metadata"]["namespace"].as_str()
    }

    /// What the kind's own rules say, before anything is sent. The server judges again.
    pub fn check(&self, registry: &Registry) -> Faults {
        let text = |field: &str| self.value[field].as_str().unwrap_or("");
        let mut faults = Faults::default();
        let Some(kind) = registry.object(text("apiVersion"), text("kind")) else {
            let message = format!("rastOS does not serve {:?} of {:?}", text("kind"), text("apiVersion"));
            faults.push(api::Path::root().field("kind"), Cause::NotSupported, message);
            return faults;
        };
        let mut decoded = match (kind.strategy.decode)(&self.value) {
            Ok(decoded) => decoded,
            Err(faults) => return faults,
        };
        for path in kind.unknown_fields(&self.value, &decoded) {
            faults.push(path, Cause::NotSupported, "unknown field");
        }
        (kind.strategy.default)(&mut decoded);
        (kind.strategy.validate)(&decoded, &mut faults);
        faults
    }

    /// Points at the lines that a refusal of the server is about.
    pub fn point(&self, error: anyhow::Error) -> anyhow::Error {
        let causes = error.downcast_ref::<Refused>().and_then(|r| r.status.details.as_ref()).map(|d| &d.causes);
        let mut places = String::new();
        for cause in causes.into_iter().flatten().filter(|c| !c.field.is_empty()) {
            places += &self.place(&cause.field, &cause.message);
        }
        match places.is_empty() {
            true => error,
            false => Failure::new(Exit::of(&error), places.trim_end().to_owned()).into(),
        }
    }

    /// `file:line:column: field: message`, with the line itself below.
    pub fn place(&self, field: &str, message: &str) -> String {
        let path = api::Path::root().field(&format!("{}{field}", self.within));
        let Some(at) = self.source.spans.find(&path) else {
            return format!("{}: {field}: {message}\n", self.source.file.display());
        };
        let mut text = format!("{}:{}:{}: {field}: {message}\n", self.source.file.display(), at.line, at.column);
        if let Some(line) = self.source.lines.get(at.line - 1) {
            let (line, column) = excerpt(line, at.column);
            let _infallible = writeln!(text, "{:5} | {line}\n      | {:>2$}", at.line, "^", column);
        }
        text
    }
}

/// How much of a long line is shown before and after the place it is about.
const BEFORE: usize = 30;
const AFTER: usize = 60;

/// What of a line to show, and which column of that the place is: a whole object in JSON may stand in one line.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    let length = line.chars().count();
    if length <= BEFORE + AFTER {
        return (line.to_owned(), column);
    }
    let at = (column - 1).min(length);
    let (from, to) = (at.saturating_sub(BEFORE), (at + AFTER).min(length));
    let (left, right) = (if from > 0 { "…" } else { "" }, if to < length { "…" } else { "" });
    let shown: String = line.chars().skip(from).take(to - from).collect();
    (format!("{left}{shown}{right}"), at - from + left.chars().count() + 1)
}

/// Reads and checks the objects of all files; refuses with every fault of every object, pointing at each.
pub fn checked(files: &[PathBuf], registry: &Registry) -> Result<Vec<Object>> {
    let objects = read_all(files)?;
    let mut faults = String::new();
    for object in &objects {
        for fault in object.check(registry).0 {
            faults += &object.place(&fault.path.to_string(), &fault.message);
        }
    }
    match faults.is_empty() {
        true => Ok(objects),
        false => Err(Failure::new(Exit::Invalid, format!("nothing was changed:\n{}", faults.trim_end())).into()),
    }
}

/// The objects of all files, in order; `-` is standard input, a directory its `*.yaml`, `*.yml` and `*.json`.
pub fn read_all(files: &[PathBuf]) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    for file in files {
        for file in expand(file)? {
            read_one(&file, &mut objects)?;
        }
    }
    Ok(objects)
}

fn read_one(file: &Path, objects: &mut Vec<Object>) -> Result<()> {
    let text = text(file)?;
    let refuse = |at: read::Position, why: &str| {
        let place = format!("{}:{}:{}: {why}", file.display(), at.line, at.column);
        anyhow::Error::from(Failure::new(Exit::Invalid, place))
    };
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for document in read::manifest(&text).map_err(|e| refuse(e.at, &e.why))? {
        if let Some((path, at)) = document.duplicates.first() {
            return Err(refuse(*at, &format!("{path}: the key is given twice")));
        }
        if document.value.is_null() {
            continue;
        }
        let source = Rc::new(Source { file: file.to_owned(), lines: lines.clone(), spans: document.spans });
        if let Some(items) = document.value["items"].as_array() {
            objects.extend(items.iter().enumerate().map(|(i, value)| Object {
                value: value.clone(),
                within: format!("items[{i}]."),
                source: source.clone(),
            }));
        } else {
            objects.push(Object { value: document.value, within: String::new(), source });
        }
    }
    Ok(())
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

fn text(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, Vec<PathBuf>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.yaml");
        std::fs::write(&file, text).unwrap();
        (dir, vec![file])
    }

    #[test]
    fn a_fault_names_file_line_column_and_field() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: b\n    imagee: c\n";
        let (_dir, files) = written(text);
        let error = checked(&files, &api::builtin()).err().unwrap().to_string();
        assert!(error.contains("app.yaml:7:5: spec.containers[0].imagee: unknown field"), "{error}");
        assert!(error.contains("    7 |     imagee: c\n      |     ^"), "{error}");
    }

    #[test]
    fn an_item_of_a_list_points_into_the_list() {
        let text = "kind: List\nitems:\n- apiVersion: v1\n  kind: Nonsense\n";
        let (_dir, files) = written(text);
        let error = checked(&files, &api::builtin()).err().unwrap().to_string();
        assert!(error.contains("app.yaml:4:3: kind: rastOS does not serve"), "{error}");
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let spaces = " ".repeat(200);
        let text = format!(
            "{{\"apiVersion\": \"v1\",{spaces}\"kind\": \"Nonsense\",{spaces}\"metadata\": {{\"name\": \"a\"}}}}"
        );
        let (_dir, files) = written(&text);
        let error = checked(&files, &api::builtin()).err().unwrap().to_string();
        let [caret, line] = error.lines().rev().take(2).collect::<Vec<_>>()[..] else { panic!("{error}") };
        assert!(line.chars().count() < 110 && line.contains('…'), "{error}");
        let column = caret.chars().position(|c| c == '^').unwrap();
        let at: String = line.chars().skip(column).take(6).collect();
        assert_eq!(at, "\"kind\"", "{error}");
        assert_eq!(excerpt("short", 3), ("short".to_owned(), 3));
        assert_eq!(excerpt(&"é".repeat(100), 1000), (format!("…{}", "é".repeat(30)), 32));
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let (_dir, files) = written("kind: Pod\nkind: Pod\n");
        let error = read_all(&files).err().unwrap().to_string();
        assert!(error.ends_with("app.yaml:2:1: kind: the key is given twice"), "{error}");
    }
}
