//! Port-forward.

use std::collections::{BTreeMap, BTreeSet};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::{io::Join, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Reader, Result, Writer,
    channels::{self, Coding},
    pipe::{Out, inbox, outbox},
    spdy::{self, Spdy, Stream},
    tunnel::Tunnel,
    upgrade::{self, Agreed, Connection},
};

/// SPDY within a WebSocket, as clients from 1.31 on want it.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// WebSocket protocols of port-forward, best first; those of channels serve one connection a port.
const WEBSOCKET: [&str; 4] = [TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""];
/// SPDY protocols of port-forward.
const SPDY: [&str; 1] = ["portforward.k8s.io"];

/// Connections that wait to be taken.
const BACKLOG: usize = 16;
/// Halves of connections that wait for their other half.
const HALVES: usize = 64;

/// A connection that the client wants to have to a port of the pod.
#[derive(Debug)]
pub struct Forward {
    /// The port.
    pub port: u16,
    /// Its bytes, both ways.
    pub data: Join<Reader, Writer>,
    /// For a word on why it failed, to be written before it is dropped.
    pub error: Writer,
}

/// The connections that a client wants, as it wants them.
#[derive(Debug)]
pub struct Ports {
    forwards: mpsc::Receiver<Forward>,
    /// Cancelled when the client is gone.
    pub gone: CancellationToken,
}

impl Ports {
    /// The next one; none when the client is gone.
    pub async fn next(&mut self) -> Option<Forward> {
        self.forwards.recv().await
    }
}

/// Takes over the connection of a port-forward request. The response must be sent; the future, awaited on another task
/// than the one that sends it, gives what follows.
pub fn accept_ports(mut request: Request<Body>) -> (Response, impl Future<Output = Result<Ports>> + Send + 'static) {
    let asked = ports(request.uri().query().unwrap_or_default());
    let (agreed, response) = match (upgrade::negotiate(&request, &WEBSOCKET, &SPDY), asked) {
        ((Ok(Agreed::WebSocket(protocol)), _), Err(why)) if protocol != TUNNEL => {
            (Err(Error::Refused(why.clone())), upgrade::refuse(StatusCode::BAD_REQUEST, why))
        }
        ((agreed, response), asked) => (agreed.map(|agreed| (agreed, asked.unwrap_or_default())), response),
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let ports = async move {
        let (agreed, asked) = agreed?;
        let connection = upgrade::connection(upgrade).await?;
        Ok(match agreed {
            Agreed::Spdy(_) => over_spdy(spdy::serve(connection)),
            Agreed::WebSocket(TUNNEL) => over_spdy(spdy::serve(Tunnel::new(upgrade::websocket(connection).await))),
            Agreed::WebSocket(protocol) => over_channels(connection, protocol, &asked).await,
        })
    };
    (response, ports)
}

/// Pairs each connection's two streams: `error`, then `data`.
fn over_spdy(mut spdy: Spdy) -> Ports {
    let (sender, forwards) = mpsc::channel(BACKLOG);
    let ports = Ports { forwards, gone: spdy.gone };
    tokio::spawn(async move {
        let mut halves: BTreeMap<String, Stream> = BTreeMap::new();
        while let Some(stream) = spdy.streams.recv().await {
            let request = request_id(&stream);
            let forward = match halves.remove(&request) {
                Some(other) => pair(other, stream),
                None => {
                    if halves.len() >= HALVES {
                        // A client that opens halves only; dropping one closes it.
                        halves.pop_first();
                    }
                    halves.insert(request, stream);
                    None
                }
            };
            if let Some(forward) = forward
                && sender.send(forward).await.is_err()
            {
                break;
            }
        }
    });
    ports
}

/// Older clients send no id: their data stream is the one after the error stream.
fn request_id(stream: &Stream) -> String {
    match stream.header("requestid") {
        Some(id) => id.to_owned(),
        None if stream.header("streamtype") == Some("data") => stream.id().saturating_sub(2).to_string(),
        None => stream.id().to_string(),
    }
}

fn pair(first: Stream, second: Stream) -> Option<Forward> {
    let of_kind = |kind| [&first, &second].iter().position(|stream| stream.header("streamtype") == Some(kind));
    let (data, error) = (of_kind("data")?, of_kind("error")?);
    let port = |stream: &Stream| stream.header("port")?.parse().ok().filter(|port| *port > 0);
    let number: u16 = port(&first)?;
    if data == error || port(&second) != Some(number) {
        return None;
    }
    let (data, error) = if data == 0 { (first, second) } else { (second, first) };
    Some(Forward { port: number, data: tokio::io::join(data.reader, data.writer), error: error.writer })
}

/// One connection a port, on channels 2n (data) and 2n + 1 (error), each beginning with the port.
async fn over_channels(connection: Connection, protocol: &str, ports: &[u16]) -> Ports {
    let coding = Coding { base64: protocol.contains("base64"), closes: false };
    let (outbox, receiver) = outbox();
    let gone = CancellationToken::new();
    let (sender, forwards) = mpsc::channel(ports.len().max(1));
    let mut inboxes = BTreeMap::new();
    let mut first = Vec::new();
    for (channel, port) in (0..).step_by(2).zip(ports) {
        for channel in [channel, channel + 1] {
            first.push(Out::Piece { stream: channel, bytes: Bytes::copy_from_slice(&port.to_le_bytes()), end: false });
        }
        let (reader, inbox) = inbox();
        inboxes.insert(channel, inbox);
        let data = tokio::io::join(reader, Writer::new(channel, outbox.clone()));
        let _ = sender.try_send(Forward { port: *port, data, error: Writer::new(channel + 1, outbox.clone()) });
    }
    let websocket = upgrade::websocket(connection).await;
    // From here on only the forwards hold the outbox: when the last is dropped, the connection ends.
    tokio::spawn(channels::run(websocket, coding, inboxes, receiver, gone.clone()));
    for out in first {
        let _ = outbox.send(out).await;
    }
    Ports { forwards, gone }
}

/// The ports in the query of a request (`PodPortForwardOptions`).
pub(crate) fn ports(query: &str) -> std::result::Result<Vec<u16>, String> {
    /// A channel's number is a byte, or in base 64 a digit.
    const MOST: usize = 5;
    let values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == "ports" || *name == "port");
    // Several in one value are separated by commas, which may be escaped.
    let values: Vec<String> = values.map(|(_, value)| value.replace("%2C", ",").replace("%2c", ",")).collect();
    let mut ports = Vec::new();
    for value in values.iter().flat_map(|value| value.split(',')) {
        let port = value.parse().ok().filter(|port| *port > 0u16);
        ports.push(port.ok_or_else(|| format!("{value:?} is not a port"))?);
    }
    let distinct: BTreeSet<_> = ports.iter().collect();
    match ports.len() {
        0 => Err("at least one port is required".into()),
        n if n > MOST => Err(format!("more than {MOST} ports; use SPDY/3.1 or {TUNNEL}")),
        n if distinct.len() < n => Err("a port is asked for twice".into()),
        _ => Ok(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_each_once() {
        assert_eq!(ports("ports=80%2C443&ports=1"), Ok(vec![80, 443, 1]));
        for bad in ["", "ports=", "ports=0", "ports=65536", "ports=1,1", "ports=1,2,3,4,5,6"] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }
}
