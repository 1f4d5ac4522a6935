//! What a project holds, and to which cluster each object belongs.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde::Serialize;
use serde_json::Value;

use crate::{Error, Mark, Service, Session};

/// What a project holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Everything, by kind and name.
    pub items: Vec<Item>,
    /// What could not be listed, and why: services that the cloud lacks, lists that we may not see.
    pub unlisted: Vec<Unlisted>,
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is: `server`, `port` …
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Its name, or what tells it from others.
    pub name: String,
    /// Its state, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The names of the clusters that it belongs to.
    pub clusters: Vec<String>,
    /// The uids that it carries itself, in the same order; none on what only hangs on a cluster's object.
    pub uids: Vec<String>,
}

/// A kind that could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unlisted {
    /// The kind.
    pub kind: &'static str,
    /// Why.
    pub why: String,
    /// Whether the cloud has no such service, so that there can be none.
    pub lacking: bool,
    /// Whether the service is one that wants a role of its own and we do not have it: others may have made some, rastOS
    /// cannot have done so for us.
    pub denied: bool,
}

/// How a kind is listed.
pub(crate) struct Kind {
    name: &'static str,
    service: Service,
    /// `PROJECT` and `USER` stand for their ids.
    path: &'static str,
    pub(crate) key: &'static str,
    /// What shows it to a person: the first that there is.
    label: &'static [&'static str],
}

const fn kind(
    name: &'static str,
    service: Service,
    path: &'static str,
    key: &'static str,
    label: &'static [&'static str],
) -> Kind {
    Kind { name, service, path, key, label }
}

const NAME: &[&str] = &["name"];

/// All kinds, in the order in which they are shown. What is listed by `project_id` would else be everyone's, when
/// an administrator asks.
#[rustfmt::skip]
pub(crate) const KINDS: [Kind; 17] = [
    kind("stack", Service::Orchestration, "/stacks", "stacks", &["stack_name"]),
    kind("server", Service::Compute, "/servers/detail", "servers", NAME),
    kind("server group", Service::Compute, "/os-server-groups", "server_groups", NAME),
    kind("keypair", Service::Compute, "/os-keypairs", "keypairs", NAME),
    kind("network", Service::Network, "/networks?project_id=PROJECT", "networks", NAME),
    kind("subnet", Service::Network, "/subnets?project_id=PROJECT", "subnets", NAME),
    kind("router", Service::Network, "/routers?project_id=PROJECT", "routers", NAME),
    kind("security group", Service::Network, "/security-groups?project_id=PROJECT", "security_groups", NAME),
    kind("port", Service::Network, "/ports?project_id=PROJECT", "ports", &["name", "device_owner"]),
    kind("floating IP", Service::Network, "/floatingips?project_id=PROJECT", "floatingips", &["floating_ip_address"]),
    kind("volume", Service::BlockStorage, "/volumes/detail", "volumes", NAME),
    kind("volume snapshot", Service::BlockStorage, "/snapshots/detail", "snapshots", NAME),
    kind("image", Service::Image, "/images?owner=PROJECT&limit=200", "images", NAME),
    kind("load balancer", Service::LoadBalancer, "/lbaas/loadbalancers?project_id=PROJECT", "loadbalancers", NAME),
    kind("container", Service::ObjectStore, "?format=json", "containers", NAME),
    kind("application credential", Service::Identity, "/users/USER/application_credentials",
         "application_credentials", NAME),
    kind("trust", Service::Identity, "/OS-TRUST/trusts?trustor_user_id=USER", "trusts", &["trustee_user_id"]),
];

/// Lists everything, all kinds at once.
pub async fn read(session: &Session) -> Result<Inventory, Error> {
    let user = session.token().await?.user.clone();
    let lists = join_all(KINDS.iter().map(|kind| async {
        let path = kind.path.replace("PROJECT", session.project()).replace("USER", &user);
        session.list(kind.service, &path, kind.key, &format!("list {}s", kind.name)).await
    }))
    .await;
    let mut objects = Vec::new();
    let mut unlisted = Vec::new();
    for (kind, list) in KINDS.iter().zip(lists) {
        match list {
            Ok(list) => objects.extend(list.into_iter().map(|object| (kind, object))),
            Err(error) => {
                let lacking = matches!(error, Error::NoService { .. });
                let denied = kind.service == Service::LoadBalancer && error.status() == Some(403);
                unlisted.push(Unlisted { kind: kind.name, why: error.to_string(), lacking, denied });
            }
        }
    }
    Ok(Inventory { items: attribute(objects), unlisted })
}

/// Says of each object whose it is: by its own marks, else by what it hangs on.
pub(crate) fn attribute(objects: Vec<(&Kind, Value)>) -> Vec<Item> {
    let id = |object: &Value| {
        let object = object.get("keypair").unwrap_or(object);
        let found = ["id", "name"].iter().find_map(|k| object[*k].as_str());
        found.unwrap_or_default().to_owned()
    };
    let own: BTreeMap<String, Vec<Mark>> = objects.iter().map(|(_, o)| (id(o), Mark::on(o))).collect();
    let hangs_on = |object: &Value| {
        let holders = ["device_id", "port_id", "network_id", "volume_id"].iter().filter_map(|k| object[*k].as_str());
        holders.filter_map(|h| own.get(h)).find(|m| !m.is_empty()).cloned().unwrap_or_default()
    };
    let mut items: Vec<Item> = objects
        .iter()
        .map(|(kind, object)| {
            let carried = Mark::on(object);
            let uids = carried.iter().map(|m| m.uid.clone()).collect();
            let marks = if carried.is_empty() { hangs_on(object) } else { carried };
            let body = object.get("keypair").unwrap_or(object);
            let name = kind.label.iter().find_map(|k| body[*k].as_str().filter(|n| !n.is_empty()));
            let status = ["stack_status", "status", "provisioning_status"].iter().find_map(|k| body[*k].as_str());
            Item {
                kind: kind.name,
                id: id(object),
                name: name.unwrap_or("-").to_owned(),
                status: status.map(str::to_owned),
                clusters: marks.into_iter().map(|m| m.name).collect(),
                uids,
            }
        })
        .collect();
    let place = |item: &Item| KINDS.iter().position(|k| k.name == item.kind);
    items.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| (&a.name, &a.id).cmp(&(&b.name, &b.id))));
    items
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_hangs_on_a_cluster_s_object_is_the_cluster_s() {
        let mark = Mark { name: "demo".into(), uid: "u".into() };
        let kind = |name: &str| KINDS.iter().find(|k| k.name == name).unwrap();
        let items = attribute(vec![
            (kind("port"), json!({"id": "p1", "name": "", "device_owner": "network:distributed", "network_id": "n1"})),
            (kind("port"), json!({"id": "p2", "name": "mine", "network_id": "n2"})),
            (kind("network"), json!({"id": "n1", "name": "net", "tags": mark.tags(), "status": "ACTIVE"})),
            (kind("keypair"), json!({"keypair": {"name": "laptop"}})),
            (kind("stack"), json!({"id": "s", "stack_name": "rastos-demo", "tags": mark.tags().join(",")})),
        ]);
        let shown: Vec<_> = items.iter().map(|i| (i.kind, i.name.as_str(), i.clusters.join(","))).collect();
        assert_eq!(
            shown,
            [
                ("stack", "rastos-demo", "demo".to_owned()),
                ("keypair", "laptop", String::new()),
                ("network", "net", "demo".to_owned()),
                ("port", "mine", String::new()),
                ("port", "network:distributed", "demo".to_owned()),
            ]
        );
    }
}
