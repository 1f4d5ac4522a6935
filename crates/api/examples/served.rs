//! Prints every served field with the test that goes red without it: `DEFINITION.FIELD TEST`, one a line.

use std::io::Write as _;

use api::support::{Support, tables};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (definition, fields) in tables() {
        for (field, support) in *fields {
            if let Support::Served(test) = support {
                writeln!(out, "{definition}.{field} {test}")?;
            }
        }
    }
    Ok(())
}
