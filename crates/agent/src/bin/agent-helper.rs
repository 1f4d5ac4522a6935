//! The runtime's helper, for this crate's own tests.

fn main() -> std::process::ExitCode {
    runtime::helper::main(std::env::args().skip(1))
}
