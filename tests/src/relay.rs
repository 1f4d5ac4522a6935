//! A way to the registry that can be closed.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, Sender},
    },
    thread,
};

use crate::registry;

/// Passes connections on to the registry, or answers them itself. Its threads stay in the network namespace in which
/// it was made, wherever the listener is.
pub struct Relay {
    listeners: Sender<TcpListener>,
    answer: Arc<Mutex<Option<String>>>,
    dam: Arc<Dam>,
}

/// What holds back the rest of long answers, while it is shut.
#[derive(Default)]
struct Dam {
    shut: Mutex<bool>,
    opened: Condvar,
}

/// What of an answer passes a dam that is shut.
const PASSES: u64 = 256 << 10;

impl Default for Relay {
    fn default() -> Self {
        let (listeners, waiting) = mpsc::channel::<TcpListener>();
        let answer: Arc<Mutex<Option<String>>> = Arc::default();
        let dam: Arc<Dam> = Arc::default();
        let (says, holds) = (answer.clone(), dam.clone());
        thread::spawn(move || {
            for listener in waiting {
                for stream in listener.incoming().map_while(Result::ok) {
                    let says = says.lock().expect("no test has panicked").clone();
                    let dam = holds.clone();
                    thread::spawn(move || match says {
                        Some(answer) => refuse(stream, &answer),
                        None => pass(stream, &dam),
                    });
                }
            }
        });
        Self { listeners, answer, dam }
    }
}

impl Relay {
    /// Serves this listener from now on.
    pub fn listen(&self, listener: TcpListener) {
        self.listeners.send(listener).expect("the relay runs");
    }

    /// Answers every request with this, or passes them on.
    pub fn answer(&self, answer: Option<String>) {
        *self.answer.lock().expect("no test has panicked") = answer;
    }

    /// Holds long answers back after their beginning, or lets all of them through.
    pub fn hold(&self, shut: bool) {
        *self.dam.shut.lock().expect("no test has panicked") = shut;
        self.dam.opened.notify_all();
    }
}

impl Dam {
    fn wait(&self) {
        let shut = self.shut.lock().expect("no test has panicked");
        drop(self.opened.wait_while(shut, |shut| *shut).expect("no test has panicked"));
    }
}

fn refuse(mut stream: TcpStream, answer: &str) {
    let _whatever_was_asked = stream.read(&mut [0; 4096]);
    let _client_gone = stream.write_all(answer.as_bytes());
    let _client_gone = stream.shutdown(Shutdown::Write);
    let _rest = io::copy(&mut stream, &mut io::sink());
}

fn pass(client: TcpStream, dam: &Arc<Dam>) {
    let server = TcpStream::connect(registry()).expect("the registry runs");
    let both = || (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let dam = dam.clone();
    let (mut to, mut from) = both();
    let back = thread::spawn(move || {
        let _either_gone = io::copy(&mut (&mut from).take(PASSES), &mut to);
        dam.wait();
        let _either_gone = io::copy(&mut from, &mut to);
        let _either_gone = to.shutdown(Shutdown::Write);
    });
    let (mut from, mut to) = both();
    let _either_gone = io::copy(&mut from, &mut to);
    let _either_gone = to.shutdown(Shutdown::Write);
    let _ended = back.join();
}
