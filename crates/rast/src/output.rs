//! What goes to standard output: tables, JSON, YAML, names. What others have named or said reaches no terminal as it is:
//! what would move the cursor or change the order of letters is shown, not done.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _, Write as _},
};

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
    raw(plain(&text.to_string()))
}

/// Says something on standard error, beside what was asked for.
pub fn note(text: impl std::fmt::Display) {
    eprintln!("{}", plain(&text.to_string()));
}

/// A text whose control characters, but for ends of lines and tabs, and changes of writing direction are written out,
/// as JSON writes them.
pub fn plain(text: &str) -> Cow<'_, str> {
    escaped(text, |c| (c.is_control() && c != '\n' && c != '\t') || is_turn(c))
}

/// The same for what stays in one line.
fn in_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() || is_turn(c))
}

/// Marks, embeddings, overrides and isolates of writing direction.
fn is_turn(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, harmful: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&harmful) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        match char {
            '\n' if harmful(char) => safe.push_str("\\n"),
            _ if harmful(char) => safe += &format!("\\u{:04x}", u32::from(char)),
            _ => safe.push(char),
        }
    }
    safe.into()
}

fn raw(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints an object.
pub fn object(value: &Value, form: Output) -> Result<()> {
    match form {
        // YAML knows these escapes in quotes only: what a program reads must be what was written.
        Output::Yaml if !io::stdout().is_terminal() => raw(serde_saphyr::to_string(value)?.trim_end()),
        Output::Yaml => line(serde_saphyr::to_string(value)?.trim_end()),
        _ => line(serde_json::to_string_pretty(value)?),
    }
}

/// Prints rows under their heading, each column as wide as its widest cell.
pub fn table(heading: &[String], rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|c| in_one_line(c.trim_end())).collect()).collect();
    let heading: Vec<Cow<'_, str>> = heading.iter().map(|cell| cell.as_str().into()).collect();
    let width = |column: usize| {
        rows.iter().chain([&heading]).filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    for row in std::iter::once(&heading).chain(&rows) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_s_words_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2J\u{9b}1m\rb\u{202e}c\nd\te"), "a\\u001b[2J\\u009b1m\\u000db\\u202ec\nd\te");
        assert_eq!(in_one_line("a\nb\u{7f}"), "a\\nb\\u007f");
        let text = serde_json::json!({"a": "\u{1b}\u{9b}\u{7f}é"}).to_string();
        let read: Value = serde_json::from_str(&plain(&text)).unwrap();
        assert_eq!(read["a"], "\u{1b}\u{9b}\u{7f}é", "still the same JSON");
    }

    proptest::proptest! {
        #[test]
        fn only_what_harms_is_written_out(text: String) {
            let safe = plain(&text);
            proptest::prop_assert!(safe.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
            proptest::prop_assert_eq!(plain(&safe), safe.clone());
        }
    }
}
