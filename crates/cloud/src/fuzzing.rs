//! Parsers of what a cloud answers, for `fuzz/`.

use api::rastos::Cluster;
use serde_json::Value;

use crate::{
    Mark, Secret, Token, cause, down, enrol, error, glance, heat, inventory, quota,
    seen::{Made, Seen},
    up::{self, Aim},
};

/// The body of an error; the head of an image; what a machine says of its authority on the way through the cloud.
pub fn words(bytes: &[u8]) {
    error::message(bytes);
    glance::qcow2_size(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _refused = (enrol::in_slot(&text), enrol::on_console(&text));
    cause::explain(&heat::Resource { reason: text.to_string(), ..Default::default() }, None, &text);
}

/// A project as its services show it, in one object: their lists by their keys, `nova`, `cinder`, `neutron`, `state`,
/// `machines`, `token`. Plans are made for it.
pub fn project(answers: &Value) {
    let token = Token::read(Secret::new("fuzz"), &answers["token"]);
    let mut seen = Seen { project: "p".into(), roles: token.map(|t| t.roles).unwrap_or_default(), ..Seen::default() };
    let made = |answer: &Value| Made {
        stack: heat::decode(&answer["stack"]),
        resources: answer["resources"].as_array().into_iter().flatten().map(heat::resource).collect(),
    };
    let mut objects = Vec::new();
    for (key, value) in answers.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("nova", value) => seen.rooms.extend(quota::of_nova(value)),
            ("cinder", value) => seen.rooms.extend(quota::of_cinder(value)),
            ("neutron", value) => seen.rooms.extend(quota::of_neutron(value)),
            ("state", value) => seen.state = Some(made(value)),
            ("machines", value) => seen.machines = Some(made(value)),
            (key, Value::Array(list)) => {
                seen.take(key, list);
                let kind = inventory::KINDS.iter().find(|kind| kind.key == key);
                objects.extend(kind.into_iter().flat_map(|kind| list.iter().map(move |o| (kind, o.clone()))));
            }
            _ => {}
        }
    }
    let items = inventory::attribute(objects);
    let (cluster, mark) = (Cluster::named("fuzz"), Mark { name: "fuzz".into(), uid: "u".into() });
    let plan = crate::plan::plan(&cluster, None, &seen);
    plan.needs();
    crate::plan::journaled(&seen);
    up::next(&Aim { cluster: &cluster, mark: &mark, choices: &plan.choices, enrol: "e" }, &seen, Default::default());
    let inventory = inventory::Inventory { items, unlisted: Vec::new() };
    let left = down::Left { state: seen.state, machines: seen.machines, inventory };
    down::next("fuzz", &left, false, Default::default());
}
