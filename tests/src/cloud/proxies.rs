//! Proxies between the client and the cloud's services. They let requests that change something fail, each as it is
//! sent: nobody lists them.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::Child,
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::http::{Request, grown};

/// Where the APIs are in the test cloud's network.
const HOST: &str = "172.24.4.2";
/// What is started anew when a request has been made there.
const RESTARTED: [(&str, u16); 5] =
    [("nova", 8774), ("neutron", 9696), ("cinder", 8776), ("glance", 9292), ("heat", 8004)];
/// Heat, and what carries out what it is asked for.
const HEAT: (u16, &str) = (8004, "heat-engine");
/// How long an endpoint that comes back is gone.
const OUTAGE: Duration = Duration::from_secs(1);

/// What goes wrong with a request that changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client dies before the service hears of it.
    KilledBefore,
    /// The client dies once the service has acted, before it hears of that.
    KilledAfter,
    /// The service has done nothing and says this.
    Says(u16),
    /// The service has acted; what stands before it gave up waiting for its answer.
    TimesOut,
    /// The service has acted, and nothing more is heard, for as long as the client waits.
    Silent,
    /// The connection ends before the service hears of it.
    DropsBefore,
    /// The connection ends once the service has acted.
    DropsAfter,
    /// Nobody listens any more: for a moment when it happens once, else to the end of the run.
    Gone,
    /// The service has acted, and is started anew before its answer is passed on; once for each service.
    Restarts,
    /// Heat has begun what it was asked for, and its engine dies at once; another is started.
    LosesItsEngine,
    /// The service has acted, and its answer, like every other, has fields that nobody knows.
    Grows,
}

impl Fault {
    /// For how many seconds a client waits for an answer that would wait long in vain; a cloud that is busy needs some.
    pub fn patience(self) -> Option<u32> {
        match self {
            Self::Silent => Some(8),
            // Ten times as long is waited for news of a stack.
            Self::LosesItsEngine => Some(5),
            _ => None,
        }
    }
}

/// How often it goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With every request that changes something, once in a series of runs.
    Once,
    /// In every run with all such requests but the first that no run before has got through.
    Lasting,
}

/// A proxy before each service, and what they do.
#[derive(Default)]
pub struct Proxies {
    series: Mutex<Option<Series>>,
    client: Mutex<Option<Child>>,
    doors: Mutex<Vec<Door>>,
    /// Held while Heat has no engine: what it is asked for meanwhile would be lost with the next one.
    engine: Mutex<()>,
}

/// Runs of the client that meet one kind of fault.
struct Series {
    fault: Fault,
    when: When,
    /// Whether this run has got a change through that is new.
    begun: bool,
    /// The changes that have met the fault (once), or got through (lasting).
    met: BTreeSet<(String, Vec<u8>)>,
}

/// Where a proxy listens.
#[derive(Clone, Copy)]
struct Door {
    address: SocketAddr,
    port: u16,
    shut: bool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no proxy has panicked")
}

impl Proxies {
    /// A proxy before the service at `port`; its address.
    pub fn before(self: &Arc<Self>, port: u16) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        locked(&self.doors).push(Door { address, port, shut: false });
        self.listen(listener, port);
        address
    }

    /// Begins a series of runs that meet a fault, or ends it. How many changes have met the fault of the one before.
    pub fn series(&self, fault: Option<(Fault, When)>) -> usize {
        let new = fault.map(|(fault, when)| Series { fault, when, begun: false, met: BTreeSet::new() });
        std::mem::replace(&mut *locked(&self.series), new).map_or(0, |s| s.met.len())
    }

    /// Begins a run.
    pub fn begin(self: &Arc<Self>, client: Child) {
        let shut: Vec<Door> = locked(&self.doors).iter().copied().filter(|d| d.shut).collect();
        for door in shut {
            self.open(door);
        }
        if let Some(series) = &mut *locked(&self.series) {
            series.begun = false;
        }
        *locked(&self.client) = Some(client);
    }

    /// The client that runs.
    pub fn client(&self) -> MutexGuard<'_, Option<Child>> {
        locked(&self.client)
    }

    fn listen(self: &Arc<Self>, listener: TcpListener, port: u16) {
        let proxies = self.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if locked(&proxies.doors).iter().any(|d| d.port == port && d.shut) {
                    return;
                }
                let proxies = proxies.clone();
                thread::spawn(move || proxies.pass(client, port));
            }
        });
    }

    /// Passes one request and its answer on.
    fn pass(self: &Arc<Self>, mut client: TcpStream, port: u16) -> io::Result<()> {
        let request = Request::read(&mut client)?;
        let fault = self.fault_of(&request, port);
        match fault {
            Some(Fault::Says(status)) => return refuse(&mut client, status),
            Some(Fault::DropsBefore) => return Ok(()),
            Some(Fault::KilledBefore) => return self.kill(),
            Some(Fault::Gone) => return self.lose(client, port),
            _ => {}
        }
        let engine = self.may_lose_its_engine(port).then(|| locked(&self.engine));
        let mut answer = request.ask((HOST, port))?;
        match fault {
            Some(Fault::TimesOut) => return refuse(&mut client, 504),
            Some(Fault::DropsAfter) => return Ok(()),
            Some(Fault::Silent) => return io::copy(&mut client, &mut io::sink()).map(drop),
            Some(Fault::KilledAfter) => return self.kill(),
            Some(Fault::Restarts) => restart(port),
            Some(Fault::LosesItsEngine) => super::operate(&["kill", HEAT.1]),
            Some(Fault::Grows) => answer = grown(&answer).unwrap_or(answer),
            _ => {}
        }
        let passed = client.write_all(&answer).and_then(|()| client.shutdown(Shutdown::Both));
        if fault == Some(Fault::LosesItsEngine) {
            super::operate(&["up"]);
        }
        drop(engine);
        passed
    }

    fn may_lose_its_engine(&self, port: u16) -> bool {
        port == HEAT.0 && locked(&self.series).as_ref().is_some_and(|s| s.fault == Fault::LosesItsEngine)
    }

    /// What goes wrong with a request.
    fn fault_of(&self, request: &Request, port: u16) -> Option<Fault> {
        let mut series = locked(&self.series);
        let series = series.as_mut()?;
        if series.fault == Fault::Grows {
            series.met.insert(request.key());
            return Some(Fault::Grows);
        }
        if request.reads() {
            return None;
        }
        // Who has no token yet asks for one: in each run, before all else, so that it counts for nothing.
        let login = request.header("x-auth-token").is_none();
        let survivable = !matches!(series.fault, Fault::KilledBefore | Fault::KilledAfter | Fault::Says(401 | 409));
        if login && (series.when == When::Lasting || !survivable) {
            return None;
        }
        let meets = match series.when {
            When::Once if series.fault == Fault::Restarts => series.met.insert((port.to_string(), Vec::new())),
            When::Once if series.fault == Fault::LosesItsEngine && port != HEAT.0 => false,
            When::Once => series.met.insert(request.key()),
            When::Lasting if series.met.contains(&request.key()) => false,
            When::Lasting if series.begun => true,
            When::Lasting => {
                series.begun = true;
                series.met.insert(request.key());
                false
            }
        };
        meets.then_some(series.fault)
    }

    fn kill(&self) -> io::Result<()> {
        locked(&self.client).as_mut().map_or(Ok(()), Child::kill)
    }

    /// Ends listening, then the connection on which the fault was met.
    fn lose(self: &Arc<Self>, client: TcpStream, port: u16) -> io::Result<()> {
        let door = {
            let mut doors = locked(&self.doors);
            let Some(door) = doors.iter_mut().find(|d| d.port == port) else { return Ok(()) };
            door.shut = true;
            *door
        };
        // The listener leaves when it hears of the next client.
        while TcpStream::connect(door.address).is_ok() {
            crate::pause();
        }
        drop(client);
        if locked(&self.series).as_ref().is_some_and(|s| s.when == When::Once) {
            let begun = Instant::now();
            while begun.elapsed() < OUTAGE {
                crate::pause();
            }
            self.open(door);
        }
        Ok(())
    }

    fn open(self: &Arc<Self>, door: Door) {
        let listener = TcpListener::bind(door.address).expect("its address is free");
        if let Some(door) = locked(&self.doors).iter_mut().find(|d| d.port == door.port) {
            door.shut = false;
        }
        self.listen(listener, door.port);
    }
}

/// Ends the service at a port and starts it again, as its operators would.
fn restart(port: u16) {
    let Some((service, _)) = RESTARTED.iter().find(|(_, at)| *at == port) else { return };
    super::operate(&["stop", service]);
    super::operate(&["up"]);
}

/// The answer of a service, or of what stands before it, that does not want; its request id tells that it is ours.
fn refuse(client: &mut TcpStream, status: u16) -> io::Result<()> {
    let body = json!({"error": {"code": status, "message": "injected"}}).to_string();
    let again = if status == 429 { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} Injected\r\nx-openstack-request-id: req-injected\r\n{again}content-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(head.as_bytes())?;
    client.shutdown(Shutdown::Both)
}
