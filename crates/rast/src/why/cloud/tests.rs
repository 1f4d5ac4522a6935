use ::cloud::{
    Cause as Why,
    heat::{Resource, Stack},
    seen::{Address, Seen, Volume},
};

use super::*;
use crate::why::tests::says;

fn made(name: &str, objects: &[(&str, &str)]) -> Made {
    let stack = Stack { name: name.into(), status: "CREATE_COMPLETE".into(), ..Stack::default() };
    let resource = |(name, object): &(&str, &str)| Resource {
        name: (*name).into(),
        object: (*object).into(),
        status: "CREATE_COMPLETE".into(),
        ..Resource::default()
    };
    Made { stack, resources: objects.iter().map(resource).collect() }
}

/// A cluster that is well; `change` makes it ill.
fn of(change: impl FnOnce(&mut Evidence)) -> Chain {
    let server = Server { id: "s1".into(), name: "demo-0".into(), status: "ACTIVE".into(), ..Server::default() };
    let volume = Volume { id: "v1".into(), status: "in-use".into(), gib: 10, servers: vec!["s1".into()] };
    let address = Address { id: "a1".into(), ip: "192.0.2.9".into(), port: Some("p1".into()) };
    let seen = Seen {
        state: Some(made("rastos-demo-state", &[("state", "v1"), ("address", "a1")])),
        machines: Some(made("rastos-demo", &[("server_0", "s1"), ("port_0", "p1")])),
        servers: vec![server],
        volumes: vec![volume],
        addresses: vec![address],
        ..Seen::default()
    };
    let account = Account { seen, ..Account::default() };
    let mut evidence = Evidence { name: "demo".into(), account, api: Api::Silent("timed out".into()) };
    change(&mut evidence);
    explain(&evidence)
}

/// The stack of machines failed at a resource with these words.
fn failed(resource: &str, why: &str, console: &[&str]) -> Chain {
    of(|e| {
        e.account.seen.machines.as_mut().unwrap().stack.status = "CREATE_FAILED".into();
        let console = console.iter().map(|l| (*l).to_owned()).collect();
        let cause = Why { resource: resource.into(), why: why.into(), console };
        e.account.failed =
            vec![Failed { stack: "rastos-demo".into(), status: "CREATE_FAILED".into(), causes: vec![cause] }];
    })
}

#[test]
fn well() {
    let chain = of(|e| e.api = Api::Answers { awaits_up: false });
    says(&chain, Cause::Fine, "cluster/demo is whole in the cloud, and its API answers");
}

#[test]
fn no_such_cluster() {
    let chain = of(|e| e.account = Account::default());
    assert_eq!(chain.cause, Cause::Absent);
}

#[test]
fn no_valid_host() {
    says(
        &failed("server_0", "No valid host was found. There are not enough hosts available.", &[]),
        Cause::NoHost,
        r#"
        cluster/demo is not whole
          because stack rastos-demo: CREATE_FAILED
            because server_0 could not be made
              because no compute host has room for its flavor in its zone
                | No valid host was found. There are not enough hosts available.
        to do: try another flavor or zone, or ask the cloud's operators; then `rast cloud up demo` tries again"#,
    );
}

#[test]
fn quota() {
    says(
        &failed("port_0", "Quota exceeded for resources: ['port'].", &[]),
        Cause::Quota,
        r#"
        cluster/demo is not whole
          because stack rastos-demo: CREATE_FAILED
            because port_0 could not be made
              because the project's quota is used up
                | Quota exceeded for resources: ['port'].
        to do: delete what is not needed (`rast cloud inventory` shows it), or ask for a larger quota; then `rast cloud up demo` tries again"#,
    );
}

#[test]
fn what_the_cloud_refused() {
    says(
        &failed("server_0", "Build of instance aborted: image is corrupt", &["Kernel panic"]),
        Cause::Refused,
        r#"
        cluster/demo is not whole
          because stack rastos-demo: CREATE_FAILED
            because server_0 could not be made
              because the cloud refused it
                | Build of instance aborted: image is corrupt
                | console: Kernel panic
        to do: `rast cloud up demo` tries again"#,
    );
}

#[test]
fn what_cannot_be_removed() {
    let chain = of(|e| {
        e.account.seen.machines.as_mut().unwrap().stack.status = "DELETE_FAILED".into();
        let why = "Unable to complete operation on subnet s: One or more ports have an IP allocation from this subnet.";
        let cause = Why::of("subnet", why.into());
        e.account.failed =
            vec![Failed { stack: "rastos-demo".into(), status: "DELETE_FAILED".into(), causes: vec![cause] }];
    });
    says(
        &chain,
        Cause::Refused,
        r#"
        cluster/demo is not whole
          because stack rastos-demo: DELETE_FAILED
            because subnet could not be removed
              because something that is not the cluster's is in its network
                | Unable to complete operation on subnet s: One or more ports have an IP allocation from this subnet.
        to do: take it out (`rast cloud inventory` shows ports and load balancers); then `rast cloud down demo` tries again"#,
    );
}

#[test]
fn heat_at_work() {
    let chain = of(|e| e.account.seen.machines.as_mut().unwrap().stack.status = "UPDATE_IN_PROGRESS".into());
    says(
        &chain,
        Cause::OnItsWay,
        r#"
        cluster/demo is not whole
          because stack rastos-demo: UPDATE_IN_PROGRESS
        to do: `rast cloud up demo` joins and waits"#,
    );
    let going = of(|e| e.account.seen.machines.as_mut().unwrap().stack.status = "DELETE_IN_PROGRESS".into());
    assert_eq!(going.cause, Cause::Leaving);
}

/// A service that is silent has nothing deleted, and what others say counts before it.
#[test]
fn a_silent_service() {
    use Service::{BlockStorage, Compute, Network, Orchestration};
    type Hide = fn(&mut Seen);
    let hides: [(Service, Hide); 4] = [
        (Orchestration, |s| (s.state, s.machines) = (None, None)),
        (Compute, |s| s.servers.clear()),
        (BlockStorage, |s| s.volumes.clear()),
        (Network, |s| s.addresses.clear()),
    ];
    for (service, hide) in hides {
        for api in [Api::Unasked, Api::Silent("timed out".into()), Api::Answers { awaits_up: false }] {
            let chain = of(|e| {
                hide(&mut e.account.seen);
                e.account.seen.lacking = vec![(service, "list things: no answer from 192.0.2.1".into())];
                e.api = api;
            });
            let said = format!(
                "cluster/demo is not known to be whole\n  \
                 because the cloud's {service} does not answer: list things: no answer from 192.0.2.1\n\
                 to do: ask again when it answers, or ask the cloud's operators"
            );
            says(&chain, Cause::Silent, &said);
        }
    }
    let chain = of(|e| {
        e.account.seen.lacking = vec![(BlockStorage, "503".into())];
        e.account.seen.servers.clear();
    });
    assert_eq!(chain.cause, Cause::Lost);
    // Glance has no part in a cluster that is there.
    let chain = of(|e| {
        e.account.seen.lacking = vec![(Service::Image, "503".into())];
        e.api = Api::Unasked;
    });
    assert_eq!(chain.cause, Cause::Fine);
}

#[test]
fn server_deleted() {
    says(
        &of(|e| e.account.seen.servers.clear()),
        Cause::Lost,
        r#"
        cluster/demo is not whole
          because its server demo-0 was deleted behind rastOS's back
        to do: `rast cloud up demo` makes it again; its state volume is still there"#,
    );
}

#[test]
fn server_in_error() {
    let chain = of(|e| {
        let server = &mut e.account.seen.servers[0];
        (server.status, server.fault) = ("ERROR".into(), "internal error: process exited".into());
        e.account.console = "one\n\ntwo\n".into();
    });
    says(
        &chain,
        Cause::ServerDown,
        r#"
        cluster/demo is not whole
          because its server demo-0 is in state ERROR
            because Nova could not keep it running
              | internal error: process exited
              | console: one
              | console: two
        to do: `rast cloud up demo`"#,
    );
}

#[test]
fn server_stopped() {
    says(
        &of(|e| e.account.seen.servers[0].status = "SHUTOFF".into()),
        Cause::ServerDown,
        r#"
        cluster/demo is not whole
          because its server demo-0 is stopped
        to do: `rast cloud up demo`"#,
    );
}

#[test]
fn parts_that_are_lost_or_apart() {
    let lost: [fn(&mut Evidence); 3] =
        [|e| e.account.seen.volumes.clear(), |e| e.account.seen.state = None, |e| e.account.seen.addresses.clear()];
    lost.into_iter().for_each(|change| assert_eq!(of(change).cause, Cause::Lost));
    let apart: [fn(&mut Evidence); 2] =
        [|e| e.account.seen.volumes[0].status = "available".into(), |e| e.account.seen.addresses[0].port = None];
    apart.into_iter().for_each(|change| assert_eq!(of(change).cause, Cause::Apart));
    assert_eq!(of(|e| e.account.seen.machines = None).cause, Cause::Held);
    let chain = of(|e| e.account.seen.addresses[0].port = None);
    assert_eq!(chain.links[1], "its floating IP 192.0.2.9 does not lead to demo-0");
}

#[test]
fn a_machine_that_is_silent_is_quoted() {
    let chain = of(|e| e.account.console = "rastos: rastOS 1\nrastos: last error: the state volume is full\n".into());
    says(
        &chain,
        Cause::Silent,
        r#"
        cluster/demo does not answer
          because its server demo-0 runs, and the API there is silent: timed out
            because the machine says on its console: the state volume is full
              | console: rastos: rastOS 1
              | console: rastos: last error: the state volume is full
        to do: the console says more each minute: `openstack console log show demo-0`; a hard reboot of the server loses nothing: the state is on its volume"#,
    );
}

#[test]
fn changed_in_the_api_and_not_made() {
    let chain = of(|e| e.api = Api::Answers { awaits_up: true });
    says(
        &chain,
        Cause::Held,
        r#"
        cluster/demo is not as it is wanted
          because its spec was changed in the API and is not made yet
        to do: `rast cloud up demo`"#,
    );
}

#[test]
fn a_pod_s_chain_goes_on_into_the_cloud() {
    let pod = Chain::new(Cause::NodeDown, "its node demo-0 does not answer").because_of("pod/web is Running");
    let chain = pod.because(of(|e| e.account.seen.servers.clear()));
    says(
        &chain,
        Cause::Lost,
        r#"
        pod/web is Running
          because its node demo-0 does not answer
            because cluster/demo is not whole
              because its server demo-0 was deleted behind rastOS's back
        to do: `rast cloud up demo` makes it again; its state volume is still there"#,
    );
}
