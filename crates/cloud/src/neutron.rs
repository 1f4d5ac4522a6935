//! Neutron: the one thing that is done beside Heat.

use reqwest::Method;
use serde_json::json;

use crate::{Error, Service, Session, session::Call};

/// Lets a floating IP lead to a port.
pub async fn join(session: &Session, address: &str, port: &str) -> Result<(), Error> {
    let doing = format!("join floating IP {address} to port {port}");
    let call = Call::new(Method::PUT, Service::Network, format!("/floatingips/{address}"), doing);
    session.call(call.with(json!({"floatingip": {"port_id": port}}))).await.map(drop)
}
