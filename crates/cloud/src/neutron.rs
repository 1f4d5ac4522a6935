//! Neutron: the few things that are done beside Heat.

use reqwest::Method;
use serde_json::json;

use crate::{Error, Service, Session, error::optional, session::Call};

/// Lets a floating IP lead to a port.
pub async fn join(session: &Session, address: &str, port: &str) -> Result<(), Error> {
    let doing = format!("join floating IP {address} to port {port}");
    let call = Call::new(Method::PUT, Service::Network, format!("/floatingips/{address}"), doing);
    session.call(call.with(json!({"floatingip": {"port_id": port}}))).await.map(drop)
}

/// Takes a router out of its networks; before that it cannot be deleted.
pub async fn withdraw(session: &Session, router: &str) -> Result<(), Error> {
    let doing = format!("take router {router} out of its networks");
    let ports = session.list(Service::Network, &format!("/ports?device_id={router}"), "ports", &doing).await?;
    // The other ports of a router, its gateway's and those that make it highly available, go with it.
    let inner =
        ["network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface"];
    for port in ports.iter().filter(|p| p["device_owner"].as_str().is_some_and(|owner| inner.contains(&owner))) {
        let path = format!("/routers/{router}/remove_router_interface");
        let call = Call::new(Method::PUT, Service::Network, path, &doing).with(json!({"port_id": port["id"]}));
        optional(session.call(call).await)?;
    }
    Ok(())
}
