//! The container by libcontainer, in this process.

use std::{fs, io::Read, os::fd::OwnedFd, rc::Rc};

use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    notify_socket::NotifySocket,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};

use super::{Bundle, CONFIG, CONSOLE, Process, STATE, pipe, streams};
use crate::{
    ContainerSpec, Error, Result,
    finish::{self, Payload},
    sys,
};

/// Makes the container and starts its program.
pub fn start(bundle: Bundle<'_>) -> Result<Process> {
    let (job, spec) = (bundle.job, bundle.job.spec);
    let config = job.dir.join(CONFIG);
    fs::write(&config, bundle.config.to_string()).map_err(Error::io(format!("write {}", config.display())))?;
    let (mut failure, tell) = pipe()?;
    let last = Last { payload: Rc::new(bundle.payload), tell: Rc::new(tell) };
    let builder = ContainerBuilder::new(STATE.into(), SyscallType::default())
        .with_executor(last)
        .with_root_path(job.dir)
        .map_err(|e| failed(spec, &e))?;
    let builder = if spec.terminal {
        builder.with_console_socket(Some(job.dir.join(CONSOLE)))
    } else {
        let [stdin, stdout, stderr] = streams(job)?;
        builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr)
    };
    let container = builder.as_init(job.dir).with_systemd(false).build().map_err(|e| failed(spec, &e))?;

    NotifySocket::new(job.dir.join(STATE).join("notify.sock"))
        .notify_container_start()
        .map_err(|e| Error::Start { id: spec.id.clone(), why: e.to_string() })?;
    // Ends when the program replaces the process (the pipe is close-on-exec), or with the reason why not.
    let mut why = String::new();
    failure.read_to_string(&mut why).map_err(Error::io("read the start's outcome"))?;
    if !why.is_empty() {
        return Err(Error::Start { id: spec.id.clone(), why });
    }
    Process::find(spec, container.pid().map_or(0, |pid| pid.as_raw()))
}

fn failed(spec: &ContainerSpec, error: &LibcontainerError) -> Error {
    let mut why = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = cause.source();
    }
    Error::Start { id: spec.id.clone(), why }
}

/// libcontainer's last call inside the container: our own last steps.
#[derive(Clone)]
struct Last {
    payload: Rc<Payload>,
    tell: Rc<OwnedFd>,
}

impl Executor for Last {
    fn exec(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorError> {
        let why = finish::exec(&self.payload);
        let _ = rustix::io::write(&*self.tell, why.as_bytes());
        sys::exit_now(127)
    }

    fn validate(&self, _: &libcontainer::oci_spec::runtime::Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(()) // the payload carries its own
    }
}
