//! `rast up` as a child that may die: started again, slower each time, while its containers go on.

use std::{
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::Stdio,
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use std::os::unix::process::ExitStatusExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::{LOGS, Machine, console::Topic, log::Log, notify::Ear};

/// The longest wait before the next start.
pub const LONGEST: Duration = Duration::from_secs(30);
/// Who has run for so long did not fail at its start.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait after so many failures in a row.
fn delay(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(LONGEST)
}

/// The child as others see it.
#[derive(Default)]
pub struct Service {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    ready: bool,
    ending: bool,
}

impl Service {
    /// Waits, unless all is to end.
    pub fn pause(&self, at_most: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(state, at_most, |s| !s.ending));
    }

    /// Waits until the child has said that it is ready, unless all is to end; whether it has.
    pub fn ready(&self, at_most: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(state, at_most, |s| !s.ready && !s.ending);
        waited.unwrap_or_else(PoisonError::into_inner).0.ready
    }

    /// Whether all is to end.
    pub fn ending(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ending
    }

    /// Ends the child, by force after a while; it is not started again.
    pub fn end(&self, grace: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ending = true;
        self.changed.notify_all();
        for (signal, grace) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(5))] {
            let Some(pid) = state.pid else { return };
            let _gone = kill_process(pid, signal);
            let waited = self.changed.wait_timeout_while(state, grace, |s| s.pid.is_some());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Kills the child, to be started again.
    pub fn kill(&self) {
        if let Some(pid) = self.state.lock().unwrap_or_else(PoisonError::into_inner).pid {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }

    fn set(&self, pid: Option<Pid>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.pid, state.ready) = (pid, false);
        self.changed.notify_all();
    }

    fn said_ready(&self, pid: Option<Pid>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.ready = pid.is_some() && state.pid == pid;
        self.changed.notify_all();
    }
}

/// Keeps the child running until all is to end.
pub fn run(machine: &Arc<Machine>) {
    let mut failures = 0;
    while !machine.service.ending() {
        let begun = Instant::now();
        let why = match once(machine) {
            Ok(why) => why,
            Err(e) => format!("cannot be started: {e}"),
        };
        if machine.service.ending() {
            return;
        }
        failures = if begun.elapsed() > STEADY { 0 } else { failures + 1 };
        let wait = delay(failures);
        machine.console.set(Topic::Error, format!("rast {why}"));
        machine.console.say(&format!("rast is started again in {} s; containers go on", wait.as_secs()));
        machine.service.pause(wait);
    }
}

/// Runs the child to its end; says how it ended.
fn once(machine: &Arc<Machine>) -> std::io::Result<String> {
    let mut command = machine.node.command();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ear = Ear::open(&mut command)?;
    let (mut child, ended) = machine.children.spawn(&mut command)?;
    let pid = Pid::from_raw(child.id() as i32);
    machine.service.set(pid);
    let hearing = machine.clone();
    ear.hear(move || hearing.service.said_ready(pid));
    let last = Arc::new(Mutex::new(String::new()));
    // Not waited for: what the child has started may hold the other ends of the pipes, and outlive it.
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let console = machine.console.clone();
    thread::spawn(move || lines(out, |line| console.say(line)));
    let (shared, (finished, read)) = (last.clone(), channel::<()>());
    thread::spawn(move || {
        let _finished = finished;
        let path = Path::new(LOGS).join("rast.log");
        lines(err, |line| {
            // A full disk must not stop who might free it. Not held open: it would hold the state.
            let _lost = Log::open(&path).and_then(|mut log| log.line(line));
            line.clone_into(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
        });
    });
    let status = ended.recv().ok();
    machine.service.set(None);
    let _closed_or_held = read.recv_timeout(Duration::from_secs(1));
    let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let how = match status.map(|s| (s.code(), s.signal())) {
        Some((Some(code), _)) => format!("ended with code {code}"),
        Some((_, Some(signal))) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    };
    Ok(if last.is_empty() { how } else { format!("{how}: {}", last.trim_start_matches("rast: ")) })
}

/// Each line, however long or broken, until the other end is closed.
fn lines(from: Option<impl Read>, mut each: impl FnMut(&str)) {
    const LONGEST: u64 = 16 << 10;
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.by_ref().take(LONGEST).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        each(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let waits: Vec<u64> = (0..8).map(|n| delay(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn lines_of_any_length() {
        let mut seen = Vec::new();
        let text = [b"a\n\xff\n".as_slice(), &[b'x'; 20 << 10]].concat();
        lines(Some(text.as_slice()), |line| seen.push(line.chars().count()));
        assert_eq!(seen, [1, 1, 16 << 10, 4 << 10]);
    }
}
