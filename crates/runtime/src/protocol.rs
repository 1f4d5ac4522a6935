//! What `rast` and its helper say to each other, as JSON in [`crate::wire`] frames.
//!
//! The helper speaks first ([`Hello`]). A helper outlives the `rast` that started it, so both ends ignore
//! fields they do not know, and a helper answers a request it does not know with [`Fault::Unknown`].

use serde::{Deserialize, Serialize};

use crate::{Backend, Container, ContainerSpec, Error, ExecSpec, Exit, Resources, Sandbox, SandboxSpec, Stats};

/// The version this build speaks, as helper and as client. 2 added [`crate::ContainerSpec::backend`].
pub const VERSION: u32 = 2;
/// The oldest version of a helper that this build can adopt.
pub const OLDEST: u32 = 1;

/// The helper's first frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the helper speaks.
    pub version: u32,
    /// The oldest client it understands.
    pub oldest: u32,
    /// Its pid.
    pub pid: u32,
}

impl Hello {
    /// Whether this build and the helper understand each other.
    pub fn check(&self, backend: &Backend) -> Result<(), Error> {
        if self.version < 2 && *backend != Backend::Libcontainer {
            return Err(Error::Helper(format!(
                "pid {} is of an older rast and knows no backend but libcontainer: `rast down` ends it",
                self.pid
            )));
        }
        if self.version >= OLDEST && self.oldest <= VERSION {
            return Ok(());
        }
        Err(Error::Helper(format!(
            "pid {} speaks protocol {}..={}, this rast {OLDEST}..={VERSION}: run the rast that started it, or stop its containers",
            self.pid, self.oldest, self.version
        )))
    }
}

/// A frame from the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call<R> {
    /// Chosen by the client, repeated in the reply.
    pub call: u64,
    /// What is asked. A helper reads it as a plain value first, to answer even what it does not know.
    pub request: R,
}

/// What is asked of the helper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// [`crate::Runtime::make_sandbox`]; answered by [`Answer::Sandbox`].
    MakeSandbox(SandboxSpec),
    /// [`crate::Runtime::remove_sandbox`].
    RemoveSandbox(String),
    /// [`crate::Runtime::sandboxes`].
    Sandboxes,
    /// [`crate::Runtime::start`]; answered by [`Answer::Container`].
    Start(Box<ContainerSpec>),
    /// [`crate::Runtime::kill`].
    Kill {
        /// The container.
        id: String,
        /// The signal's number.
        signal: i32,
    },
    /// [`crate::Runtime::remove`].
    Remove(String),
    /// [`crate::Runtime::list`].
    List,
    /// [`crate::Runtime::exec`]; answered by [`Answer::Streams`], and [`Message::ExecExited`] later.
    Exec {
        /// The container.
        id: String,
        /// The process.
        spec: ExecSpec,
    },
    /// Kills a process started by the call of this number.
    KillExec(u64),
    /// [`crate::Runtime::attach`]; answered by [`Answer::Streams`].
    Attach(String),
    /// Ends the container's standard input once all duplicates of it are closed.
    CloseStdin(String),
    /// Asks for duplicates of the terminal's master or standard input, to be held in case the helper dies.
    Hold(String),
    /// Gives a new helper what its predecessor held.
    Restore(String),
    /// [`crate::Runtime::stats`].
    Stats(String),
    /// [`crate::Runtime::update`].
    Update {
        /// The container.
        id: String,
        /// Its new limits.
        resources: Resources,
    },
    /// [`crate::Runtime::reopen_log`].
    ReopenLog(String),
    /// Ends the helper; refused while a sandbox or container exists.
    Stop,
}

/// Which descriptors travel with a frame, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The writing end of standard input.
    pub stdin: bool,
    /// The reading end of standard output.
    pub stdout: bool,
    /// The reading end of standard error.
    pub stderr: bool,
    /// The master of the terminal.
    pub master: bool,
}

/// What the helper answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// One sandbox.
    Sandbox(Sandbox),
    /// All sandboxes.
    Sandboxes(Vec<Sandbox>),
    /// One container.
    Container(Box<Container>),
    /// All containers.
    Containers(Vec<Container>),
    /// The descriptors that travel with this frame.
    Streams(Streams),
    /// What a container uses.
    Stats(Stats),
}

/// A frame from the helper, after [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a call.
    Reply {
        /// The call's number.
        call: u64,
        /// The answer.
        result: Result<Answer, Fault>,
    },
    /// A container ended.
    Exited {
        /// The container.
        id: String,
        /// How.
        exit: Exit,
    },
    /// Another client has taken over: this one is not answered any more.
    Replaced,
    /// A process started by [`Request::Exec`] ended.
    ExecExited {
        /// The call that started it.
        call: u64,
        /// How.
        exit: Exit,
    },
}

impl Message {
    /// Reads a frame. An answer that only a newer helper's client would understand is a fault of its call, so that
    /// nobody waits for another; anything else that is new is passed over.
    pub fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        enum New {
            Reply { call: u64 },
        }
        serde_json::from_slice(body).ok().or_else(|| {
            let New::Reply { call } = serde_json::from_slice(body).ok()?;
            let fault = Fault::Helper("a newer helper's answer is not understood".into());
            Some(Self::Reply { call, result: Err(fault) })
        })
    }
}

/// [`Error`] as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Fault {
    NotFound(String),
    Exists(String),
    NotRunning(String),
    Start { id: String, why: String },
    RunsAsRoot { id: String, user: String },
    Invalid { field: String, why: String },
    Helper(String),
    Io { doing: String, errno: Option<i32>, text: String },
    Unknown,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(id) => Self::NotFound(id),
            Error::Exists(id) => Self::Exists(id),
            Error::NotRunning(id) => Self::NotRunning(id),
            Error::Start { id, why } => Self::Start { id, why },
            Error::RunsAsRoot { id, user } => Self::RunsAsRoot { id, user },
            Error::Invalid { field, why } => Self::Invalid { field, why },
            Error::Helper(why) => Self::Helper(why),
            Error::Io { doing, source } => Self::Io { doing, errno: source.raw_os_error(), text: source.to_string() },
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotFound(id) => Self::NotFound(id),
            Fault::Exists(id) => Self::Exists(id),
            Fault::NotRunning(id) => Self::NotRunning(id),
            Fault::Start { id, why } => Self::Start { id, why },
            Fault::RunsAsRoot { id, user } => Self::RunsAsRoot { id, user },
            Fault::Invalid { field, why } => Self::Invalid { field, why },
            Fault::Helper(why) => Self::Helper(why),
            Fault::Io { doing, errno, text } => {
                let source = errno.map_or_else(|| std::io::Error::other(text), std::io::Error::from_raw_os_error);
                Self::Io { doing, source }
            }
            Fault::Unknown => Self::Helper("an older helper does not know this request".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from protocol 1; must be understood for ever.
    #[test]
    fn recorded_frames_of_version_1_are_understood() {
        let hello: Hello = serde_json::from_str(r#"{"version":1,"oldest":1,"pid":7,"later":{"x":1}}"#).unwrap();
        hello.check(&Backend::Libcontainer).unwrap();
        let error = hello.check(&Backend::Crun("/usr/bin/crun".into())).unwrap_err().to_string();
        assert!(error.contains("pid 7") && error.contains("rast down"), "{error}");
        let exited = r#"{"Exited":{"id":"c","exit":{"code":3,"signal":null,"oom":false,"at":{"secs_since_epoch":1,"nanos_since_epoch":2},"later":0},"later":1}}"#;
        assert!(matches!(serde_json::from_str(exited).unwrap(), Message::Exited { id, .. } if id == "c"));
        let fault: Message = serde_json::from_str(r#"{"Reply":{"call":9,"result":{"Err":{"NotFound":"x"}}}}"#).unwrap();
        assert_eq!(fault, Message::Reply { call: 9, result: Err(Fault::NotFound("x".into())) });
    }

    #[test]
    fn a_helper_of_the_future_is_refused_by_name() {
        let future = Hello { version: VERSION + 5, oldest: VERSION + 1, pid: 1 };
        assert!(future.check(&Backend::Libcontainer).unwrap_err().to_string().contains("speaks protocol"));
        let compatible = Hello { version: VERSION + 5, oldest: VERSION, pid: 1 };
        compatible.check(&Backend::Libcontainer).unwrap();
    }
}
