use std::collections::BTreeSet;

use super::*;
use crate::{
    Service,
    heat::{Resource, Stack},
    quota::Room,
    rights::Right,
    seen::{Address, Image, Made, Network, Port, Server, Subnet, Volume},
    template,
    token::Restriction,
};

/// A project with room for everything and nothing in it.
pub(crate) fn empty_project() -> Seen {
    use Quota::*;
    let all = [
        Instances,
        Cores,
        Ram,
        Volumes,
        Gigabytes,
        Networks,
        Subnets,
        Routers,
        Ports,
        FloatingIps,
        SecurityGroups,
        Rules,
    ];
    let flavor = |name: &str, ram, disk| Flavor { id: format!("{name}-id"), name: name.into(), vcpus: 1, ram, disk };
    Seen {
        project: "p".into(),
        roles: vec!["member".into()],
        flavors: vec![flavor("nano", 128, 1), flavor("large", 2048, 20), flavor("small", 512, 5)],
        images: vec![image("i1", "rastos")],
        networks: vec![Network { id: "ext".into(), name: "public".into(), external: true }],
        subnets: vec![Subnet {
            id: "ext-sub".into(),
            name: "public-sub".into(),
            network: "ext".into(),
            cidr: "172.24.4.0/24".into(),
            own: false,
        }],
        zones: vec!["nova".into()],
        volume_types: vec!["ceph".into()],
        rooms: all.into_iter().map(|q| (q, Room { limit: Some(100_000), used: 0 })).collect(),
        ..Seen::default()
    }
}

fn image(id: &str, name: &str) -> Image {
    Image {
        id: id.into(),
        name: name.into(),
        status: "active".into(),
        sha512: Some("aa".repeat(64)),
        min_disk: 1,
        created: "2026-01-01".into(),
        ..Image::default()
    }
}

/// The same project with the cluster in it.
pub(crate) fn with_cluster(cluster: &Cluster) -> Seen {
    let mut seen = empty_project();
    let mark = Mark { name: cluster.name().into(), uid: "u".into() };
    let networks = Networks { external: "ext".into(), existing: None };
    let state = template::state(cluster, &mark, &networks);
    let resource = |name: &str, kind: &str, object: &str| Resource {
        name: name.into(),
        kind: kind.into(),
        object: object.into(),
        status: "CREATE_COMPLETE".into(),
        reason: String::new(),
    };
    let stack = |wanted: &crate::heat::Wanted, outputs: &[(&str, &str)]| Stack {
        name: wanted.name.clone(),
        id: "s".into(),
        status: "CREATE_COMPLETE".into(),
        reason: String::new(),
        tags: wanted.tags.clone(),
        outputs: outputs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect(),
        parameters: wanted.parameters.clone(),
    };
    let file = serde_json::to_string(cluster).unwrap();
    let outputs = [("volume", "vol"), ("address_id", "fip"), ("address", "172.24.4.9"), ("cluster", file.as_str())];
    seen.state = Some(Made {
        stack: stack(&state, &outputs),
        resources: vec![
            resource("state", "OS::Cinder::Volume", "vol"),
            resource("address", "OS::Neutron::FloatingIP", "fip"),
        ],
    });
    let made = template::State { volume: "vol".into(), address: "fip".into() };
    let machine = template::Machine {
        name: template::machine_name(cluster.name(), 0),
        flavor: "small-id".into(),
        birth: Some(template::Birth { image: "i1".into(), enrol: "k".into() }),
    };
    let machines = template::machines(cluster, &mark, &networks, &made, &[machine]);
    seen.machines = Some(Made {
        stack: stack(&machines, &[]),
        resources: vec![
            resource("network", "OS::Neutron::Net", "net"),
            resource("subnet", "OS::Neutron::Subnet", "sub"),
            resource("router", "OS::Neutron::Router", "rtr"),
            resource("router_interface", "OS::Neutron::RouterInterface", "rtr:subnet_id=sub"),
            resource("security_group", "OS::Neutron::SecurityGroup", "sg"),
            resource("port_0", "OS::Neutron::Port", "port"),
            resource("server_0", "OS::Nova::Server", "srv"),
            resource("association", "OS::Neutron::FloatingIPAssociation", "x"),
        ],
    });
    seen.others = ["vol", "net", "sub", "rtr", "sg"].into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    seen.addresses = vec![Address { id: "fip".into(), ip: "172.24.4.9".into(), port: Some("port".into()) }];
    let (id, status, servers) = ("vol".into(), "in-use".into(), vec!["srv".into()]);
    seen.volumes = vec![Volume { id, status, gib: cluster.state_gib(), servers }];
    let port = |id: &str, device: &str| Port {
        id: id.into(),
        device: device.into(),
        device_owner: String::new(),
        subnets: vec!["sub".into()],
    };
    seen.ports = vec![port("port", "srv"), port("rtr-port", "rtr")];
    seen.servers = vec![Server {
        id: "srv".into(),
        name: template::machine_name(cluster.name(), 0),
        status: "ACTIVE".into(),
        flavor: "small-id".into(),
        image: "i1".into(),
        uid: "u".into(),
        ..Server::default()
    }];
    seen
}

fn problems(cluster: &Cluster, seen: &Seen) -> Vec<String> {
    plan(cluster, None, seen).problems.iter().filter(|p| p.stops).map(|p| p.what.clone()).collect()
}

#[test]
fn an_empty_project_gets_everything() {
    let plan = plan(&Cluster::named("demo"), None, &empty_project());
    assert!(plan.holds(), "{:?}", plan.problems);
    assert_eq!(plan.choices.flavor.as_ref().unwrap().name, "small");
    let kinds: Vec<_> = plan.items.iter().map(|i| (i.kind, i.act)).collect();
    assert!(kinds.iter().all(|(kind, act)| *act == if *kind == "image" { Act::Keep } else { Act::Make }), "{kinds:?}");
    assert_eq!(kinds.len(), 12);
    let needs = plan.needs();
    assert_eq!((needs[&Quota::Ports], needs[&Quota::Ram], needs[&Quota::Rules]), (3, 512, 3));
}

#[test]
fn each_quota_that_is_too_small_is_predicted() {
    let need = plan(&Cluster::named("demo"), None, &empty_project()).needs();
    assert_eq!(need.len(), 12);
    for (quota, amount) in need {
        let mut seen = empty_project();
        seen.rooms.insert(quota, Room { limit: Some(amount + 6), used: 7 });
        let found = problems(&Cluster::named("demo"), &seen);
        assert_eq!(found, [format!("quota: {amount} {quota} are needed, {} of {} are free", amount - 1, amount + 6)]);
        seen.rooms.insert(quota, Room { limit: Some(amount + 7), used: 7 });
        assert_eq!(problems(&Cluster::named("demo"), &seen), Vec::<String>::new());
    }
}

#[test]
fn what_would_fail_is_said_before_anything_is_made() {
    type Change = fn(&mut Cluster, &mut Seen);
    let cases: &[(Change, &str)] = &[
        (|c, _| c.spec.flavor = Some("none".into()), "there is no flavor \"none\""),
        (|c, _| c.spec.flavor = Some("nano".into()), "flavor nano has 128 MiB of memory, the system needs 256"),
        (|_, s| s.images[0].min_disk = 30, "no flavor has 512 MiB of memory and a disk of 30 GiB"),
        (
            |c, s| (c.spec.flavor, s.images[0].min_disk) = (Some("small".into()), 9),
            "flavor small has a disk of 5 GiB, the image needs 9",
        ),
        (|_, s| s.images[0].status = "queued".into(), "the project sees no active image \"rastos\""),
        (|c, _| c.spec.image.name = Some("mine".into()), "the project sees no active image \"mine\""),
        (|_, s| s.networks.clear(), "the project sees no external network"),
        (
            |_, s| s.networks.push(Network { id: "e2".into(), name: "other".into(), external: true }),
            "there are several external networks: public, other",
        ),
        (|c, _| c.spec.external_network = Some("none".into()), "there is no external network \"none\""),
        (
            |c, _| c.spec.network.cidr = "172.24.4.0/25".parse().ok(),
            "the range 172.24.4.0/25 overlaps 172.24.4.0/24 of subnet public-sub in the external network",
        ),
        (|c, _| c.spec.network.existing = Some("none".into()), "the project sees no network \"none\""),
        (
            |c, s| {
                c.spec.network.existing = Some("theirs".into());
                s.networks.push(Network { id: "n".into(), name: "theirs".into(), external: false });
                s.subnets.push(Subnet { network: "n".into(), cidr: "10.42.8.0/24".into(), ..Subnet::default() });
            },
            "network theirs has the range 10.42.8.0/24, where pods get their addresses from",
        ),
        (|c, _| c.spec.zone = Some("mars".into()), "there is no available zone \"mars\""),
        (|c, _| c.spec.state.kind = Some("tape".into()), "there is no volume type \"tape\""),
        (|_, s| s.lacking.push((Service::Orchestration, "none".into())), "orchestration (Heat): none"),
        (|_, s| s.denied = vec![Right::Network], "you may make no networks in this project"),
        (|_, s| s.denied = vec![Right::Stack], "you may make no Heat stacks in this project"),
        (|_, s| s.roles = vec!["reader".into()], "the role reader lets you look and make nothing"),
    ];
    for (change, what) in cases {
        let (mut cluster, mut seen) = (Cluster::named("demo"), empty_project());
        change(&mut cluster, &mut seen);
        assert_eq!(problems(&cluster, &seen), [*what]);
    }
}

#[test]
fn what_is_only_worth_knowing_stops_nothing() {
    let mut seen = empty_project();
    (seen.credential, seen.denied) = (Some(Restriction::Restricted), vec![Right::Trust, Right::Image]);
    seen.subnets.push(Subnet { id: "s2".into(), cidr: "10.20.0.0/16".into(), own: true, ..Subnet::default() });
    let plan = plan(&Cluster::named("demo"), None, &seen);
    assert!(plan.holds() && plan.problems.len() == 2, "{:?}", plan.problems);
}

#[test]
fn an_image_goes_up_once_and_the_oldest_wins() {
    let local = LocalImage { sha512: "aa".repeat(64), disk: 1, ..LocalImage::default() };
    let mut seen = empty_project();
    let mut older = image("i0", "x");
    older.created = "2025-01-01".into();
    seen.images.push(older);
    let choice = |seen: &Seen| plan(&Cluster::named("demo"), Some(&local), seen).choices.image;
    assert!(matches!(choice(&seen), ImageChoice::Present { id, .. } if id == "i0"));
    seen.images.iter_mut().for_each(|i| i.status = "saving".into());
    assert_eq!(choice(&seen), ImageChoice::Upload(local.clone()));
    seen.denied = vec![Right::Image];
    let denied = plan(&Cluster::named("demo"), Some(&local), &seen).problems;
    assert_eq!(denied[0].what, "you may upload no images into this project");
    // Where Glance keeps another digest, what we uploaded is known by its name.
    seen.images.push(Image { name: local.name(), sha512: None, ..image("i2", "") });
    assert_eq!(choice(&seen), ImageChoice::Upload(local.clone()));
    let ours = seen.images.last_mut().unwrap();
    (ours.owner, ours.tags) = ("p".into(), vec!["rastos".into()]);
    assert!(matches!(choice(&seen), ImageChoice::Present { id, .. } if id == "i2"));
}

#[test]
fn a_whole_cluster_is_kept_and_a_broken_one_repaired() {
    let cluster = Cluster::named("demo");
    let seen = with_cluster(&cluster);
    let whole = plan(&cluster, None, &seen);
    assert!(whole.holds() && whole.items.iter().all(|i| i.act == Act::Keep), "{:?} {:?}", whole.items, whole.problems);
    let mut broken = seen.clone();
    broken.servers.clear();
    broken.ports.retain(|p| p.id != "port");
    broken.addresses[0].port = None;
    let repaired: Vec<_> = plan(&cluster, None, &broken).items.into_iter().filter(|i| i.act == Act::Repair).collect();
    assert_eq!(repaired.iter().map(|i| i.kind).collect::<Vec<_>>(), ["port", "server"]);
}

#[test]
fn changes_of_a_cluster_are_named_first() {
    let before = Cluster::named("demo");
    let seen = with_cluster(&before);
    let server = |cluster: &Cluster| plan(cluster, None, &seen).items.pop().unwrap().act;
    let mut after = before.clone();
    after.spec.flavor = Some("large".into());
    assert_eq!(server(&after), Act::Resize);
    let mut tight = seen.clone();
    tight.rooms.insert(Quota::Ram, Room { limit: Some(2000), used: 512 });
    assert_eq!(problems(&after, &tight), ["quota: 1536 RAM (MiB) are needed, 1488 of 2000 are free"]);
    tight.rooms.insert(Quota::Ram, Room { limit: Some(2048), used: 512 });
    tight.rooms.insert(Quota::Instances, Room { limit: Some(1), used: 1 });
    assert_eq!(problems(&after, &tight), Vec::<String>::new());
    let mut after = before.clone();
    after.spec.zone = Some("nova".into());
    assert_eq!(server(&after), Act::Replace);
    for (change, what) in [
        ((|c| c.spec.state.size = Some("5Gi".into())) as fn(&mut Cluster), "a volume cannot shrink"),
        (|c| c.spec.network.cidr = "10.9.0.0/24".parse().ok(), "the network of machines that run cannot change"),
        (|c| c.spec.state.kind = Some("ceph".into()), "the state volume's type cannot change"),
    ] {
        let mut after = before.clone();
        change(&mut after);
        assert_eq!(problems(&after, &seen), [what]);
    }
}

#[test]
fn a_volume_that_is_kept_counts_what_it_grows_by() {
    let before = Cluster::named("demo");
    let sized = |gib: u64| {
        let mut cluster = before.clone();
        cluster.spec.state.size = Some(format!("{gib}Gi"));
        cluster
    };
    let mut kept = with_cluster(&before);
    assert_eq!(
        problems(&sized(15), &kept),
        ["the state volume is in use, and not every cloud lets such a volume grow"]
    );
    (kept.machines, kept.servers) = (None, Vec::new());
    kept.rooms.insert(Quota::Gigabytes, Room { limit: Some(14), used: 10 });
    kept.rooms.insert(Quota::Volumes, Room { limit: Some(1), used: 1 });
    let act = |gib| plan(&sized(gib), None, &kept).items[1].act;
    assert_eq!((act(10), act(14)), (Act::Keep, Act::Grow));
    assert_eq!(problems(&sized(14), &kept), Vec::<String>::new());
    assert_eq!(problems(&sized(15), &kept), ["quota: 5 volume gigabytes are needed, 4 of 14 are free"]);
    // Growing has failed: what the file says is not what there is.
    let mut failed = kept.clone();
    failed.volumes[0].gib = 2;
    assert_eq!(problems(&sized(5), &failed), Vec::<String>::new());
    assert_eq!(problems(&sized(1), &failed), ["a volume cannot shrink"]);
    // Somebody has made it larger than the file says, which stays as it was.
    failed.volumes[0].gib = 20;
    assert_eq!(problems(&before, &failed), Vec::<String>::new());
    assert_eq!(problems(&sized(15), &failed), ["a volume cannot shrink"]);
}

#[test]
fn other_people_s_stacks_and_lost_data_stop_it() {
    let cluster = Cluster::named("demo");
    let mut seen = with_cluster(&cluster);
    seen.others.remove("vol");
    assert_eq!(problems(&cluster, &seen), ["somebody has deleted the state volume"]);
    let mut seen = with_cluster(&cluster);
    seen.volumes[0].status = "error".into();
    assert_eq!(problems(&cluster, &seen), ["the state volume vol is in error"]);
    seen.state.as_mut().unwrap().resources[0].status = "CREATE_FAILED".into();
    assert_eq!(problems(&cluster, &seen), Vec::<String>::new());
    let mut seen = empty_project();
    let stack = Stack { name: "rastos-demo".into(), status: "CREATE_COMPLETE".into(), ..Stack::default() };
    seen.machines = Some(Made { stack, resources: Vec::new() });
    assert_eq!(problems(&cluster, &seen), ["stack rastos-demo is there and not rastOS's"]);
}

#[test]
fn another_image_is_told_and_replaces_nothing() {
    let cluster = Cluster::named("demo");
    let mut seen = with_cluster(&cluster);
    seen.images.push(image("i2", "newer"));
    let mut other = cluster.clone();
    other.spec.image.name = Some("newer".into());
    let local = LocalImage { sha512: "bb".repeat(64), ..LocalImage::default() };
    for plan in [plan(&other, None, &seen), plan(&cluster, Some(&local), &seen)] {
        assert!(plan.holds() && !plan.items.iter().any(|i| i.act == Act::Replace), "{:?}", plan.items);
        let told: Vec<&str> = plan.problems.iter().map(|p| p.what.as_str()).collect();
        assert!(told.iter().any(|t| t.contains("demo-0 was made of another")), "{told:?}");
    }
    assert_eq!(plan(&cluster, None, &seen).problems, []);
}
