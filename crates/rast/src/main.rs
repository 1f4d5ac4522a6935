//! The rast program.
fn main() {}
