//! What goes to standard output: tables, JSON, YAML, names.

use std::io::{self, Write as _};

use anyhow::Result;
use serde_json::Value;

/// The forms of `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `kind/name` only.
    Name,
}

/// Prints a line; a reader that has gone (`| head`) ends the program quietly.
pub fn line(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints an object.
pub fn object(value: &Value, form: Output) -> Result<()> {
    match form {
        Output::Yaml => line(serde_saphyr::to_string(value)?.trim_end()),
        _ => line(serde_json::to_string_pretty(value)?),
    }
}

/// Prints rows under their heading, each column as wide as its widest cell.
pub fn table(heading: &[String], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        rows.iter()
            .chain([&heading.to_vec()])
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    for row in std::iter::once(heading).chain(rows.iter().map(Vec::as_slice)) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("   ").trim_end())?;
    }
    Ok(())
}

/// The heading and rows of a `meta.k8s.io/v1` Table; columns of lower priority only when `wide`.
pub fn rows(table: &Value, wide: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let columns = table["columnDefinitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<usize> =
        (0..columns.len()).filter(|&i| wide || columns[i]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let heading = shown.iter().map(|&i| columns[i]["name"].as_str().unwrap_or("").to_uppercase()).collect();
    let rows = table["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cells = |row: &Value| shown.iter().map(|&i| cell(&row["cells"][i])).collect();
    (heading, rows.iter().map(cells).collect())
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
