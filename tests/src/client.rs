//! Programs that talk to an instance.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Seconds that a program may run: less than a test may.
const LONGEST: &str = "200";

/// A program with its first arguments and environment.
#[derive(Clone, Debug)]
pub struct Client {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    input: Vec<u8>,
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was run.
    pub command: String,
    /// Its exit code; 128 and more for a signal.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Client {
    /// A client.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), input: Vec::new() }
    }

    /// With an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With a variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// With this on standard input.
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// The command, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(args).envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs to the end, or is ended after [`LONGEST`] seconds (with the code 124): a test that hangs would be killed,
    /// and leave its instance behind.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Answer {
        let bounded = self.command(args);
        let mut command = Command::new("timeout");
        command.args(["--foreground", LONGEST]).arg(bounded.get_program()).args(bounded.get_args());
        command.envs(bounded.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        let mut stdin = child.stdin.take().expect("piped");
        let input = self.input.clone();
        let writer = std::thread::spawn(move || {
            let _reader_gone = stdin.write_all(&input);
        });
        let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
        writer.join().expect("the writer ends");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        Answer {
            command: format!("{command:?}"),
            code: status.code().unwrap_or(128 + signal),
            out: String::from_utf8_lossy(&stdout).into_owned(),
            err: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// Runs to the end, which must be a good one; gives standard output.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, 0, "{}\n{}{}", answer.command, answer.out, answer.err);
        answer.out
    }

    /// Runs to the end, which must have this code; gives standard error.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, code: i32, args: &[S]) -> String {
        let answer = self.run(args);
        assert_eq!(answer.code, code, "{}\n{}{}", answer.command, answer.out, answer.err);
        answer.err
    }
}
