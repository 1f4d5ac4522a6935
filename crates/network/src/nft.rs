//! The `nft` tool: slow (it reads the whole ruleset for any change), so never on the way of a pod without host ports.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
};

use crate::{Error, Result};

/// A table of the packet filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// `inet`, `ip`, ….
    pub family: String,
    /// Its name.
    pub name: String,
    /// Its comment, if it has one.
    pub comment: Option<String>,
}

/// Carries out a script, all of it or none.
pub fn run(doing: &str, script: &str) -> Result<()> {
    let mut nft = Command::new("nft");
    nft.args(["-f", "-"]);
    output(nft, script).map(drop).map_err(Error::io(doing))
}

/// All tables of this network namespace.
pub fn tables() -> Result<Vec<Table>> {
    let mut nft = Command::new("nft");
    nft.args(["--terse", "list", "ruleset"]);
    Ok(parse(&output(nft, "").map_err(Error::io("list the packet filter's tables"))?))
}

/// Runs a tool with an input; its complaint is the error.
pub fn output(mut tool: Command, input: &str) -> io::Result<String> {
    let name = tool.get_program().to_string_lossy().into_owned();
    tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = tool.spawn().map_err(|e| io::Error::new(e.kind(), format!("run {name}: {e}")))?;
    // It may refuse before it has read all; its complaint says more than a broken pipe.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{name}: {}", complaint.trim_end())));
    }
    written?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tables and their comments: the JSON form of nft 1.0.6 leaves the comments out.
fn parse(ruleset: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in ruleset.lines() {
        let head = line.strip_prefix("table ").and_then(|rest| rest.strip_suffix(" {"));
        if let Some((family, name)) = head.and_then(|head| head.split_once(' ')) {
            tables.push(Table { family: family.to_owned(), name: name.to_owned(), comment: None });
        }
        // One tab: deeper ones are comments of something in the table.
        let comment = line.strip_prefix("\tcomment \"").and_then(|rest| rest.strip_suffix('"'));
        if let (Some(comment), Some(table)) = (comment, tables.last_mut()) {
            table.comment = Some(comment.to_owned());
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_has_its_own_comment_only() {
        let text =
            "table inet a {\n\tcomment \"mine\"\n\tmap m {\n\t\tcomment \"other\"\n\t}\n}\ntable ip filter {\n}\n";
        let table = |family: &str, name: &str, comment: Option<&str>| Table {
            family: family.into(),
            name: name.into(),
            comment: comment.map(Into::into),
        };
        assert_eq!(parse(text), [table("inet", "a", Some("mine")), table("ip", "filter", None)]);
    }

    proptest! {
        #[test]
        fn no_ruleset_panics(text in "(table |\tcomment \"|[ {}\n\"a]){0,40}") {
            parse(&text);
        }
    }
}
