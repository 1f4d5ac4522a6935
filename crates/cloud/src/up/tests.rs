use super::*;
use crate::plan::{
    self,
    tests::{empty_project, with_cluster},
};

fn step(cluster: &Cluster, seen: &Seen, tried: Tried) -> Step {
    let mark = seen.mark().unwrap_or(Mark { name: cluster.name().into(), uid: "u".into() });
    let plan = plan::plan(cluster, None, seen);
    next(&Aim { cluster, mark: &mark, choices: &plan.choices, enrol: "k" }, seen, tried)
}

fn demo() -> (Cluster, Seen) {
    let cluster = Cluster::named("demo");
    let seen = with_cluster(&cluster);
    (cluster, seen)
}

fn status(made: &mut Option<Made>, status: &str) {
    made.as_mut().unwrap().stack.status = status.into();
}

const NEVER: Tried = Tried { state: 0, machines: 0, retired: 0, woken: 0 };
const BOTH: Tried = Tried { state: 1, machines: 1, ..NEVER };
const RETIRED: Tried = Tried { retired: 1, ..NEVER };

#[test]
fn the_journal_comes_first() {
    let cluster = Cluster::named("demo");
    let mut seen = empty_project();
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Create(Which::State, _)));
    let whole = with_cluster(&cluster);
    (seen.state, seen.others, seen.addresses) = (whole.state, whole.others, whole.addresses);
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Create(Which::Machines, _)));
}

#[test]
fn a_whole_cluster_needs_nothing() {
    let (cluster, seen) = demo();
    assert_eq!(step(&cluster, &seen, NEVER), Step::Done { server: "srv".into(), address: "172.24.4.9".into() });
}

#[test]
fn work_of_others_is_waited_for_and_failures_are_tried_once() {
    let (cluster, mut seen) = demo();
    status(&mut seen.machines, "UPDATE_IN_PROGRESS");
    assert_eq!(step(&cluster, &seen, NEVER), Step::Wait(Which::Machines));
    status(&mut seen.machines, "CREATE_FAILED");
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Update(Which::Machines, ..)));
    assert_eq!(step(&cluster, &seen, BOTH), Step::Explain(Which::Machines));
    let reason = &mut seen.machines.as_mut().unwrap().stack.reason;
    *reason = "Engine went down during stack CREATE".into();
    assert!(matches!(step(&cluster, &seen, BOTH), Step::Update(Which::Machines, ..)));
    assert_eq!(step(&cluster, &seen, Tried { machines: TRIES, ..NEVER }), Step::Explain(Which::Machines));
    status(&mut seen.state, "UPDATE_FAILED");
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Update(Which::State, ..)));
    assert_eq!(step(&cluster, &seen, BOTH), Step::Explain(Which::State));
}

#[test]
fn a_stack_is_complete_when_all_of_it_is() {
    let (cluster, whole) = demo();
    let with = |which: Which, resource: &str, status: &str| {
        let mut seen = whole.clone();
        let made = if which == Which::State { &mut seen.state } else { &mut seen.machines };
        let made = made.as_mut().unwrap();
        made.resources.iter_mut().find(|r| r.name == resource).unwrap().status = status.into();
        seen
    };
    for (which, resource) in [(Which::State, "state"), (Which::Machines, "port_0")] {
        for status in ["INIT_COMPLETE", "CREATE_IN_PROGRESS"] {
            assert_eq!(step(&cluster, &with(which, resource, status), NEVER), Step::Wait(which));
        }
        let seen = with(which, resource, "CREATE_FAILED");
        assert!(matches!(step(&cluster, &seen, BOTH), Step::Update(..)));
        let often = Tried { state: TRIES, machines: TRIES, ..NEVER };
        assert_eq!(step(&cluster, &seen, often), Step::Explain(which));
    }
}

#[test]
fn what_was_removed_is_made_again() {
    let (cluster, whole) = demo();
    let gone = |change: fn(&mut Seen)| {
        let mut seen = whole.clone();
        change(&mut seen);
        match step(&cluster, &seen, RETIRED) {
            Step::Update(_, wanted, gone) => (gone, wanted.parameters.contains_key("machine_0_image")),
            other => panic!("{other:?}"),
        }
    };
    // A new server is told what it is made of; a living one keeps what it was told.
    assert_eq!(gone(|s| s.servers.clear()), (vec!["server_0".into()], true));
    assert_eq!(gone(|s| s.addresses.clear()), (vec!["address".into()], false));
    assert_eq!(gone(|s| s.others.retain(|id| id != "sg")), (vec!["security_group".into()], false));
    assert_eq!(gone(|s| s.ports.retain(|p| p.id != "rtr-port")), (vec!["router_interface".into()], false));
}

#[test]
fn a_server_goes_before_another_takes_its_volume() {
    let (cluster, whole) = demo();
    let mut seen = whole.clone();
    seen.servers[0].status = "ERROR".into();
    assert_eq!(step(&cluster, &seen, NEVER), Step::Retire("srv".into()));
    let mut seen = whole.clone();
    seen.ports.retain(|p| p.id != "port");
    assert_eq!(step(&cluster, &seen, NEVER), Step::Retire("srv".into()));
    let mut moved = cluster.clone();
    moved.spec.zone = Some("nova".into());
    seen = whole;
    seen.state.as_mut().unwrap().stack.tags =
        template::state(&moved, &seen.mark().unwrap(), &plan::plan(&moved, None, &seen).choices.networks).tags;
    assert_eq!(step(&moved, &seen, NEVER), Step::Retire("srv".into()));
}

#[test]
fn what_cannot_be_seen_counts_as_there() {
    let (cluster, mut seen) = demo();
    seen.servers.clear();
    seen.lacking.push((crate::Service::Compute, "503".into()));
    let made = seen.machines.clone().unwrap();
    assert!(repair::gone(&made, &seen).is_empty());
    let _ = cluster;
}

#[test]
fn an_address_that_leads_elsewhere_is_joined_again_by_hand() {
    let (cluster, mut seen) = demo();
    seen.addresses[0].port = None;
    assert_eq!(step(&cluster, &seen, NEVER), Step::Join { address: "fip".into(), port: "port".into() });
}

#[test]
fn what_somebody_keeps_removing_is_not_made_for_ever() {
    let (cluster, mut seen) = demo();
    seen.others.remove("sg");
    let often = Tried { machines: TRIES, ..NEVER };
    assert_eq!(step(&cluster, &seen, often), Step::Explain(Which::Machines));
}

#[test]
fn a_server_that_rests_is_woken_and_not_for_ever() {
    let (cluster, mut seen) = demo();
    for (status, by) in [("SHUTOFF", "os-start"), ("PAUSED", "unpause"), ("SHELVED_OFFLOADED", "unshelve")] {
        seen.servers[0].status = status.into();
        assert_eq!(step(&cluster, &seen, NEVER), Step::Wake { server: "srv".into(), by });
    }
    let often = Tried { woken: TRIES, ..NEVER };
    assert_eq!(step(&cluster, &seen, often), Step::Restless("srv".into()));
}

#[test]
fn a_server_that_is_gone_lets_go_of_its_port_and_volume_first() {
    let (cluster, mut seen) = demo();
    seen.servers.clear();
    assert_eq!(step(&cluster, &seen, NEVER), Step::Retire("srv".into()));
    assert!(matches!(step(&cluster, &seen, RETIRED), Step::Update(..)));
}

#[test]
fn a_server_that_heat_forgot_makes_room_first() {
    let (cluster, mut seen) = demo();
    let stray = Server { id: "stray".into(), ..seen.servers[0].clone() };
    assert_eq!((stray.uid.clone(), &*stray.name), (seen.mark().unwrap().uid, "demo-0"));
    seen.servers.push(Server { id: "other".into(), uid: "another".into(), ..stray.clone() });
    seen.servers.push(Server { id: "later".into(), name: "demo-pool-1".into(), ..stray.clone() });
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Done { .. }), "neither is this machine");
    seen.servers.push(stray);
    assert_eq!(step(&cluster, &seen, NEVER), Step::Retire("stray".into()));
    status(&mut seen.machines, "UPDATE_IN_PROGRESS");
    assert_eq!(step(&cluster, &seen, NEVER), Step::Wait(Which::Machines), "Heat may be about to note it");
}

#[test]
fn what_heat_would_replace_makes_room_first() {
    for resource in ["server_0", "port_0"] {
        let (cluster, mut seen) = demo();
        let made = seen.machines.as_mut().unwrap();
        made.stack.status = "CHECK_FAILED".into();
        made.resources.iter_mut().find(|r| r.name == resource).unwrap().status = "CHECK_FAILED".into();
        assert_eq!(step(&cluster, &seen, NEVER), Step::Retire("srv".into()), "{resource}");
        assert!(matches!(step(&cluster, &seen, Tried { retired: TRIES, ..NEVER }), Step::Update(..)));
    }
}

#[test]
fn an_image_of_ours_is_claimed_and_others_are_not() {
    let (cluster, mut seen) = demo();
    seen.images[0].owner = "p".into();
    assert!(matches!(step(&cluster, &seen, NEVER), Step::Done { .. }));
    seen.images[0].tags = vec!["rastos".into()];
    assert_eq!(step(&cluster, &seen, NEVER), Step::Claim("i1".into()));
}

#[test]
fn a_machine_is_made_again_without_its_image_s_file() {
    let (cluster, mut seen) = demo();
    seen.images[0].name = "rastos-0123456789ab".into();
    seen.servers.clear();
    match step(&cluster, &seen, RETIRED) {
        Step::Update(_, wanted, _) => assert_eq!(wanted.parameters["machine_0_image"], "i1"),
        other => panic!("{other:?}"),
    }
}
