//! The network itself: ledger, links and packet filter put together.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};

use crate::{
    Attachment, Config, Error, Network, Request, Result,
    config::overlap,
    conntrack,
    forwarding::{self, Before},
    ledger::{Ledger, Record},
    link::{self, Veth},
    netlink::Socket,
    nft, policy,
};

/// The pod's end of the link, unless a CNI runtime says otherwise.
const INTERFACE: &str = "eth0";

/// Attachments made at the same time; the kernel makes links one after the other anyway.
const PARALLEL: usize = 4;

/// A routed network: an address for each pod, a /32 (or /128) to each veth.
///
/// Promises: no address is in use twice, whatever is killed; after `detach` the address rests until the range has been
/// walked. Any number of processes may have the same instance open.
/// Not promised: order between calls for the same sandbox that overlap.
#[derive(Clone)]
pub struct Routed {
    host: Arc<Host>,
    slots: Arc<Semaphore>,
    leaving: Arc<Mutex<Leaving>>,
}

/// Sandboxes to be detached together: the kernel waits once for all links that go in one request.
#[derive(Default)]
struct Leaving {
    queue: Vec<(String, oneshot::Sender<Result<()>>)>,
    /// Whether someone is at it.
    busy: bool,
}

impl Routed {
    /// Opens an instance and puts its rules in place. Forwarding is on from here to [`Network::teardown`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a configuration that cannot work on this host.
    pub async fn open(config: Config) -> Result<Self> {
        let host = blocking(move || Host::open(config)).await?;
        Ok(Self { host: Arc::new(host), slots: Arc::new(Semaphore::new(PARALLEL)), leaving: Arc::default() })
    }

    /// Detaches what waits, batch after batch. Spawned, so that a caller who gives up strands no one.
    async fn drain(self) {
        loop {
            let queue = {
                let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
                leaving.busy = !leaving.queue.is_empty();
                std::mem::take(&mut leaving.queue)
            };
            if queue.is_empty() {
                return;
            }
            let ids: Vec<String> = queue.iter().map(|(id, _)| id.clone()).collect();
            let host = self.host.clone();
            let mut results = match spawn_blocking(move || host.detach(&ids)).await {
                Ok(results) => results,
                // It panicked: the senders go, and their receivers say so.
                Err(_) => continue,
            };
            for (id, done) in queue {
                let _ = done.send(results.remove(&id).unwrap_or(Ok(())));
            }
        }
    }
}

#[async_trait]
impl Network for Routed {
    async fn attach(&self, request: &Request) -> Result<Attachment> {
        let _slot = self.slots.acquire().await.map_err(Error::io("wait for other attachments"))?;
        let (host, request) = (self.host.clone(), request.clone());
        blocking(move || host.attach(&request, INTERFACE)).await.map(|record| record.attachment)
    }

    async fn detach(&self, id: &str) -> Result<()> {
        let (done, result) = oneshot::channel();
        let first = {
            let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
            leaving.queue.push((id.to_owned(), done));
            !std::mem::replace(&mut leaving.busy, true)
        };
        if first {
            tokio::spawn(self.clone().drain());
        }
        result.await.map_err(Error::io(format!("detach {id}")))?
    }

    async fn attachments(&self) -> Result<Vec<Attachment>> {
        let host = self.host.clone();
        let records = blocking(move || host.records()).await?;
        Ok(records.into_values().map(|record| record.attachment).collect())
    }

    async fn collect(&self, live: &BTreeSet<String>) -> Result<()> {
        let (host, live) = (self.host.clone(), live.clone());
        blocking(move || host.collect(&live)).await
    }

    async fn teardown(&self) -> Result<()> {
        let host = self.host.clone();
        blocking(move || host.teardown()).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.map_err(Error::io("run on a thread of its own"))?
}

/// An instance, to be used from threads that may block.
pub(crate) struct Host {
    config: Config,
    ledger: Ledger,
}

impl Host {
    pub(crate) fn open(config: Config) -> Result<Self> {
        config.check()?;
        let host = Self { ledger: Ledger::open(&config.state_dir, &config.pod_ranges)?, config };
        host.unused()?;
        host.install()?;
        Ok(host)
    }

    pub(crate) fn records(&self) -> Result<BTreeMap<String, Record>> {
        Ok(self.ledger.lock()?.records().clone())
    }

    /// Whether one more pod could be attached.
    pub(crate) fn room(&self) -> Result<()> {
        self.ledger.lock()?.room()
    }

    /// Whether an attachment is there as recorded.
    pub(crate) fn verify(&self, record: &Record, netns: &Path) -> Result<()> {
        let request = Request { netns: netns.to_owned(), ..record.attachment.request.clone() };
        let doing = Error::io(format!("check the link of {}", request.id));
        self.veth(record).verify(&open_netns(&request)?).map_err(doing)
    }

    /// Record, link, ports; on failure all of it is taken back, or left to `collect`.
    pub(crate) fn attach(&self, request: &Request, interface: &str) -> Result<Record> {
        check_id(&request.id)?;
        let netns = open_netns(request)?;
        let (record, new) = self.ledger.lock()?.enter(request, interface, &self.config.link_prefix())?;
        let done = self.connect(&record, &netns).and_then(|()| self.open_ports(&record.attachment));
        if let Err(e) = done {
            if new {
                for fault in self.detach(std::slice::from_ref(&request.id)).into_values().filter_map(Result::err) {
                    tracing::warn!(id = request.id, error = %fault, "an attachment that failed could not be undone");
                }
            }
            return Err(e);
        }
        Ok(record)
    }

    fn connect(&self, record: &Record, netns: &File) -> Result<()> {
        let request = &record.attachment.request;
        let doing = Error::io(format!("link {} to {}", request.id, request.netns.display()));
        self.veth(record).connect(&mut socket()?, netns).map_err(doing)
    }

    fn veth<'a>(&self, record: &'a Record) -> Veth<'a> {
        let Attachment { addresses, link, .. } = &record.attachment;
        Veth { host: link, pod: &record.interface, addresses, mtu: self.config.mtu }
    }

    fn open_ports(&self, attachment: &Attachment) -> Result<()> {
        if attachment.request.host_ports.is_empty() {
            return Ok(());
        }
        let _still = self.ledger.lock()?;
        let doing = format!("open the host ports of {}", attachment.request.id);
        nft::run(&doing, &policy::open(&self.config, [attachment].into_iter()))
    }

    /// Links, tracked connections, ports and the record, in this order: who is killed in between finds the record.
    /// One result for each; those without a record are done.
    pub(crate) fn detach(&self, ids: &[String]) -> BTreeMap<String, Result<()>> {
        let records = match self.records() {
            Ok(records) => records,
            Err(e) => {
                let shared = format!("{e}: {:?}", std::error::Error::source(&e));
                return ids.iter().map(|id| (id.clone(), Err(Error::io("read the ledger")(shared.as_str())))).collect();
            }
        };
        let gone: Vec<&Record> = ids.iter().filter_map(|id| records.get(id)).collect();
        let mut results = BTreeMap::new();
        if gone.is_empty() {
            return results;
        }
        let unlinked = self.unlink(&gone);
        for record in &gone {
            let id = &record.attachment.request.id;
            let result = match &unlinked {
                Ok(()) => self.forget(record),
                // One fault, told to each of the batch.
                Err(_) => self.unlink(&[record]).and_then(|()| self.forget(record)),
            };
            results.insert(id.clone(), result);
        }
        results
    }

    fn unlink(&self, records: &[&Record]) -> Result<()> {
        let links: Vec<&str> = records.iter().map(|record| record.attachment.link.as_str()).collect();
        link::delete(&mut socket()?, &links).map_err(Error::io(format!("delete {}", links.join(", "))))?;
        let addresses: BTreeSet<&IpAddr> = records.iter().flat_map(|r| &r.attachment.addresses).collect();
        conntrack::flush(|ip| addresses.contains(&ip)).map_err(Error::io("flush the connections of removed pods"))
    }

    fn forget(&self, record: &Record) -> Result<()> {
        let request = &record.attachment.request;
        let mut ledger = self.ledger.lock()?;
        if !request.host_ports.is_empty() {
            let doing = format!("close the host ports of {}", request.id);
            nft::run(&doing, &policy::close(&self.config, [&record.attachment].into_iter()))?;
        }
        ledger.forget(&request.id)
    }

    /// Detaches all but `live`, deletes links that no record knows, puts back what live ones lack.
    pub(crate) fn collect(&self, live: &BTreeSet<String>) -> Result<()> {
        let swept = self.sweep(live);
        let mut first = self.install().and(swept);
        for record in self.records()?.into_values().filter(|record| live.contains(&record.attachment.request.id)) {
            let request = &record.attachment.request;
            let repaired = open_netns(request).and_then(|netns| match self.veth(&record).verify(&netns) {
                Ok(()) => Ok(()),
                Err(missing) => {
                    tracing::warn!(id = request.id, %missing, "a live pod was not wholly connected");
                    self.connect(&record, &netns)
                }
            });
            first = first.and(repaired);
        }
        first
    }

    /// Detaches all but `live`, and deletes links that no record knows.
    fn sweep(&self, live: &BTreeSet<String>) -> Result<()> {
        // Links first: one that comes up meanwhile has its record before it is made.
        let links = link::names(&self.config.link_prefix()).map_err(Error::io("list the host's links"))?;
        let records = self.records()?;
        let known: BTreeSet<&str> = records.values().map(|record| record.attachment.link.as_str()).collect();
        let orphans: Vec<&str> = links.iter().map(String::as_str).filter(|name| !known.contains(name)).collect();
        if !orphans.is_empty() {
            link::delete(&mut socket()?, &orphans).map_err(Error::io("delete links that nobody owns"))?;
        }
        let gone: Vec<String> = records.keys().filter(|id| !live.contains(*id)).cloned().collect();
        self.detach(&gone).into_values().collect()
    }

    /// Everything as it was before `open`. Goes on past a fault, and tells the first.
    pub(crate) fn teardown(&self) -> Result<()> {
        let mut first = self.sweep(&BTreeSet::new());
        for range in &self.config.pod_ranges {
            let released = socket().and_then(|mut socket| {
                link::unreserve(&mut socket, range).map_err(Error::io(format!("delete the route to {range}")))
            });
            first = first.and(released);
        }
        let pods = |ip: IpAddr| self.config.pod_ranges.iter().any(|range| range.contains(&ip));
        first = first.and(conntrack::flush(pods).map_err(Error::io("flush the connections of all pods")));
        first = first.and(self.uninstall());
        // The records stay if something is left for them to tell.
        first.and_then(|()| self.ledger.remove())
    }

    fn uninstall(&self) -> Result<()> {
        let tables = nft::tables()?;
        let (own, others): (Vec<_>, Vec<_>) =
            tables.iter().filter(|table| forwarding::ours(table)).partition(|table| table.name == self.config.instance);
        forwarding::unaccept(&tables, &self.config.link_prefix())?;
        if own.is_empty() {
            return Ok(());
        }
        if others.is_empty() {
            Before::read(&tables, self.v6())?.restore()?;
        }
        nft::run("delete the packet filter's table", &format!("delete table inet {}", self.config.instance))
    }

    /// Table, forwarding, routes to nowhere: all that does not depend on a single pod. Again is done.
    fn install(&self) -> Result<()> {
        let ledger = self.ledger.lock()?;
        let tables = nft::tables()?;
        let before = Before::read(&tables, self.v6())?;
        let attachments = ledger.records().values().map(|record| &record.attachment);
        let table = policy::table(&self.config, &before.comment(), attachments);
        nft::run("install the packet filter's table", &table)?;
        before.enable()?;
        forwarding::accept(&tables, &self.config.link_prefix())?;
        for range in &self.config.pod_ranges {
            link::reserve(&mut socket()?, range).map_err(Error::io(format!("route {range} to nowhere")))?;
        }
        Ok(())
    }

    /// Refuses pod ranges that hold an address of the host's.
    fn unused(&self) -> Result<()> {
        for entry in getifaddrs().map_err(Error::io("list the host's addresses"))? {
            let Some(network) = link::address_of(&entry).map(IpNet::from) else { continue };
            if let Some(i) = self.config.pod_ranges.iter().position(|range| overlap(range, &network)) {
                let why = format!(
                    "{} holds the address {} of {}",
                    self.config.pod_ranges[i],
                    network.addr(),
                    entry.interface_name
                );
                return Err(Error::invalid(format!("podRanges[{i}]"), why));
            }
        }
        Ok(())
    }

    fn v6(&self) -> bool {
        self.config.pod_ranges.iter().any(|range| range.addr().is_ipv6())
    }
}

fn open_netns(request: &Request) -> Result<File> {
    let path = request.netns.display();
    File::open(&request.netns).map_err(Error::io(format!("open the network namespace {path}")))
}

fn socket() -> Result<Socket> {
    Socket::route().map_err(Error::io("open a netlink socket"))
}

/// Ids become file names, and are CNI's container ids (CNI 1.1, "Parameters").
fn check_id(id: &str) -> Result<()> {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if id.len() > 200 || !id.bytes().all(valid) || !id.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Error::invalid(
            "id",
            format!("{id:?} is not a letter or digit and up to 199 of these, _, . and -"),
        ));
    }
    Ok(())
}
