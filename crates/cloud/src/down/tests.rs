use super::*;
use crate::{heat::Stack, inventory::Item, plan::tests::with_cluster};

fn left() -> Left {
    let seen = with_cluster(&api::rastos::Cluster::named("demo"));
    Left { state: seen.state, machines: seen.machines, inventory: Inventory::default() }
}

fn item(kind: &'static str, id: &str, name: &str, uid: &str) -> Item {
    Item { kind, id: id.into(), name: id.into(), status: None, clusters: vec![name.into()], uids: vec![uid.into()] }
}

#[test]
fn machines_go_first_and_the_journal_last() {
    let mut left = left();
    left.inventory.items = vec![
        item("volume", "vol", "demo", "u"),
        item("image", "i", "demo", "u"),
        item("load balancer", "lb", "demo", "u"),
        item("volume", "other", "demo", "another-uid"),
        item("volume", "theirs", "else", "v"),
    ];
    let mut steps = Vec::new();
    for _ in 0..10 {
        let step = next("demo", &left, false, Tries::default());
        match &step {
            Step::Delete(Which::Machines) => left.machines = None,
            Step::Delete(Which::State) => {
                left.state = None;
                left.inventory.items.retain(|i| i.id != "vol");
            }
            Step::Remove { id, .. } => left.inventory.items.retain(|i| i.id != *id),
            Step::Release(_) => left.inventory.items.retain(|i| i.kind != "image"),
            Step::Explain(_) | Step::Unseen | Step::Done => {}
        }
        if step == Step::Done {
            break;
        }
        steps.push(step);
    }
    let remove = |kind, id: &str| Step::Remove { kind, id: id.into() };
    assert_eq!(
        steps[..4],
        [
            Step::Delete(Which::Machines),
            remove("load balancer", "lb"),
            Step::Release(Mark { name: "demo".into(), uid: "u".into() }),
            Step::Delete(Which::State),
        ]
    );
}

#[test]
fn state_that_is_kept_keeps_its_image_too() {
    let mut left = left();
    left.machines = None;
    left.inventory.items = vec![item("volume", "vol", "demo", "u"), item("image", "i", "demo", "u")];
    assert_eq!(next("demo", &left, true, Tries::default()), Step::Done);
}

#[test]
fn what_rastos_did_not_make_stays() {
    let stack = Stack { name: "rastos-demo".into(), status: "CREATE_COMPLETE".into(), ..Stack::default() };
    let left = Left { machines: Some(Made { stack, resources: Vec::new() }), ..Left::default() };
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Done);
}

#[test]
fn a_delete_that_fails_is_tried_again_and_then_explained() {
    let mut left = left();
    left.machines.as_mut().unwrap().stack.status = "DELETE_FAILED".into();
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Delete(Which::Machines));
    let tries = Tries { machines: TRIES, state: 0 };
    assert_eq!(next("demo", &left, false, tries), Step::Explain(Which::Machines));
}

#[test]
fn a_shared_image_is_released_by_this_cluster_alone() {
    let mut image = item("image", "i", "a", "u1");
    image.clusters.push("b".into());
    image.uids.push("u2".into());
    let inventory = Inventory { items: vec![image], ..Inventory::default() };
    let released = Step::Release(Mark { name: "b".into(), uid: "u2".into() });
    assert_eq!(next("b", &Left { inventory, ..Left::default() }, false, Tries::default()), released);
}

#[test]
fn somebody_s_snapshot_of_the_state_stays() {
    let mut left = left();
    left.machines = None;
    let mut snapshot = item("volume snapshot", "by-hand", "demo", "u");
    snapshot.uids.clear();
    left.inventory.items = vec![snapshot, item("volume", "restored", "demo", "u")];
    assert_eq!(next("demo", &left, true, Tries::default()), Step::Done);
    left.inventory.items.pop();
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Delete(Which::State));
}

#[test]
fn what_heat_forgot_goes_with_what_uses_it_first() {
    let kinds = ["network", "security group", "subnet", "port", "router"];
    let mut items: Vec<_> = kinds.iter().map(|kind| item(kind, kind, "demo", "u")).collect();
    items.push(item("network", "theirs", "else", "v"));
    let mut left = Left { inventory: Inventory { items, ..Inventory::default() }, ..Left::default() };
    let mut order = Vec::new();
    while let Step::Remove { kind, id } = next("demo", &left, false, Tries::default()) {
        left.inventory.items.retain(|i| i.id != id);
        order.push(kind);
    }
    assert_eq!(order, ["port", "router", "subnet", "network", "security group"]);
    assert_eq!(left.inventory.items.len(), 1);
}

#[test]
fn what_cannot_be_listed_is_not_said_to_be_gone() {
    let unlisted = |kind, lacking| inventory::Unlisted { kind, why: "503".into(), lacking, denied: false };
    let mut left = left();
    left.machines = None;
    left.inventory.unlisted = vec![unlisted("load balancer", true), unlisted("trust", false)];
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Delete(Which::State));
    // Octavia wants a role of its own, which most users do not have.
    left.inventory.unlisted.push(inventory::Unlisted { denied: true, ..unlisted("load balancer", false) });
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Delete(Which::State));
    left.inventory.unlisted.push(unlisted("port", false));
    for keep_state in [false, true] {
        assert_eq!(next("demo", &left, keep_state, Tries::default()), Step::Unseen);
    }
    left.state = None;
    assert_eq!(next("demo", &left, false, Tries::default()), Step::Unseen);
    let why = left.unseen("demo").unwrap().to_string();
    assert!(why.starts_with("demo is not known to be gone: its ports could not be listed (503)"), "{why}");
}
