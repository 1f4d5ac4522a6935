//! The helper alone.

fn main() -> std::process::ExitCode {
    runtime::helper::main(std::env::args().skip(1))
}
