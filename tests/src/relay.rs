//! A way to the registry that can be closed.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
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
}

impl Default for Relay {
    fn default() -> Self {
        let (listeners, waiting) = mpsc::channel::<TcpListener>();
        let answer: Arc<Mutex<Option<String>>> = Arc::default();
        let says = answer.clone();
        thread::spawn(move || {
            for listener in waiting {
                for stream in listener.incoming().map_while(Result::ok) {
                    let says = says.lock().expect("no test has panicked").clone();
                    thread::spawn(move || match says {
                        Some(answer) => refuse(stream, &answer),
                        None => pass(stream),
                    });
                }
            }
        });
        Self { listeners, answer }
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
}

fn refuse(mut stream: TcpStream, answer: &str) {
    let _whatever_was_asked = stream.read(&mut [0; 4096]);
    let _client_gone = stream.write_all(answer.as_bytes());
    let _client_gone = stream.shutdown(Shutdown::Write);
    let _rest = io::copy(&mut stream, &mut io::sink());
}

fn pass(client: TcpStream) {
    let server = TcpStream::connect(registry()).expect("the registry runs");
    let copy = |from: &TcpStream, to: &TcpStream| {
        let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
        move || {
            let _either_gone = io::copy(&mut from, &mut to);
            let _either_gone = to.shutdown(Shutdown::Write);
        }
    };
    let back = thread::spawn(copy(&server, &client));
    copy(&client, &server)();
    let _ended = back.join();
}
