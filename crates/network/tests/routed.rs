//! The network on real hosts: what pods reach, what they do not, and what is left behind.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, UdpSocket},
    time::Instant,
};

use common::*;
use network::{Error, HostPort, Network, Protocol, Request, Routed};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn pods_reach_each_other_and_the_host() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, a_ip) = pod(&network, "a", &[]).await;
        let (b, b_ip) = pod(&network, "b", &[]).await;
        b.serve("0.0.0.0:80");
        assert_eq!(a.ask(&format!("{b_ip}:80")).unwrap(), a_ip.to_string(), "pods see each other's own address");
        assert_eq!(ask(&format!("{b_ip}:80")).unwrap(), NODE, "the host reaches a pod");
        let this = Namespace::here();
        this.serve("0.0.0.0:8000");
        assert_eq!(a.ask(&format!("{NODE}:8000")).unwrap(), a_ip.to_string(), "a pod reaches the host");
        assert_eq!(b.ask("127.0.0.1:80").unwrap(), "127.0.0.1", "a pod has its own loopback");
    });
}

#[test]
fn the_world_sees_the_node_s_address() {
    host(async |world| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, _) = pod(&network, "a", &[]).await;
        world.serve("0.0.0.0:80");
        assert_eq!(a.ask(&format!("{WORLD}:80")).unwrap(), NODE);
    });
}

#[test]
fn unmasqueraded_destinations_see_the_pod() {
    host(async |world| {
        let dir = temp();
        let mut config = config(dir.path(), "t", "10.77.0.0/16");
        config.unmasqueraded.push("192.0.2.0/24".parse().unwrap());
        let network = Routed::open(config).await.unwrap();
        let (a, a_ip) = pod(&network, "a", &[]).await;
        world.within(|| ip(&format!("route add 10.77.0.0/16 via {NODE}")));
        world.serve("0.0.0.0:80");
        assert_eq!(a.ask(&format!("{WORLD}:80")).unwrap(), a_ip.to_string());
    });
}

#[test]
fn metadata_closed_ports_and_loopback_are_out_of_reach() {
    host(async |world| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, _) = pod(&network, "a", &[]).await;
        // Once as an address of the host, once beyond it.
        let this = Namespace::here();
        ip("addr add 169.254.169.254/32 dev lo");
        this.serve("0.0.0.0:80");
        this.serve("0.0.0.0:10250");
        assert_eq!(ask("169.254.169.254:80").unwrap(), "169.254.169.254", "the host itself may");
        assert_eq!(a.ask("169.254.169.254:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        ip("addr del 169.254.169.254/32 dev lo");
        ip(&format!("route add 169.254.169.254 via {WORLD}"));
        world.within(|| ip("addr add 169.254.169.254/32 dev lo"));
        world.serve("0.0.0.0:80");
        assert_eq!(ask("169.254.169.254:80").unwrap(), NODE);
        assert_eq!(a.ask("169.254.169.254:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);

        assert_eq!(a.ask(&format!("{NODE}:80")).unwrap().split('.').next(), Some("10"), "an open port of the host");
        assert_eq!(a.ask(&format!("{NODE}:10250")).unwrap_err().kind(), ErrorKind::ConnectionRefused);

        // Somebody else's route_localnet does not open the host's loopback.
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        let listener = UdpSocket::bind("127.0.0.1:53").unwrap();
        listener.set_read_timeout(Some(BRIEFLY)).unwrap();
        a.within(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            ip("addr del 127.0.0.1/8 dev lo");
            ip("rule add pref 1 lookup main");
            ip("route add 127.0.0.1 via 169.254.1.1 dev eth0 onlink");
            let _ = UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"in", "127.0.0.1:53");
        });
        assert!(listener.recv(&mut [0; 8]).is_err(), "a pod spoke to the host's loopback");
    });
}

#[test]
fn a_foreign_source_is_dropped() {
    host(async |world| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, a_ip) = pod(&network, "a", &[]).await;
        let (_b, b_ip) = pod(&network, "b", &[]).await;
        let listener = world.within(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        a.within(|| {
            ip(&format!("addr add {b_ip}/32 dev eth0"));
            ip("addr add 198.51.100.7/32 dev eth0");
            for (source, word) in [(b_ip.to_string(), "b"), ("198.51.100.7".into(), "any"), (a_ip.to_string(), "own")] {
                let socket = UdpSocket::bind(format!("{source}:0")).unwrap();
                socket.send_to(word.as_bytes(), format!("{WORLD}:53")).unwrap();
            }
        });
        let mut first = [0; 8];
        let length = listener.recv(&mut first).unwrap();
        assert_eq!(
            &first[..length],
            b"own",
            "datagrams of one pod stay in order: the first to arrive was to be the last"
        );
    });
}

#[test]
fn host_ports_lead_to_the_pod() {
    host(async |world| {
        let dir = temp();
        let network = open(dir.path()).await;
        let udp = HostPort { protocol: Protocol::Udp, ..tcp(5353, 53) };
        let own = HostPort { address: NODE.parse().unwrap(), ..tcp(8081, 80) };
        let (a, a_ip) = pod(&network, "a", &[tcp(8080, 80), udp, own]).await;
        let (b, _) = pod(&network, "b", &[]).await;
        a.serve("0.0.0.0:80");
        assert_eq!(world.ask(&format!("{NODE}:8080")).unwrap(), WORLD, "the client's address is kept");
        assert_eq!(world.ask(&format!("{NODE}:8081")).unwrap(), WORLD, "a port of one address");
        assert_eq!(ask(&format!("{NODE}:8080")).unwrap(), NODE, "from the host by the node's address");
        assert_eq!(ask("127.0.0.1:8080").unwrap_err().kind(), ErrorKind::ConnectionRefused, "not by loopback");
        b.ask(&format!("{NODE}:8080")).expect("from another pod");
        a.ask(&format!("{NODE}:8080")).expect("from the pod itself");

        let server = a.within(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        world.within(|| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hello", format!("{NODE}:5353")).unwrap());
        assert_eq!(server.recv(&mut [0; 16]).unwrap(), 5);

        let tracked = run("conntrack", "-L");
        assert!(tracked.contains(&a_ip.to_string()), "{tracked}");
        network.detach("a").await.unwrap();
        let tracked = run("conntrack", "-L");
        assert!(!tracked.contains(&a_ip.to_string()), "{tracked}");
        assert_eq!(world.ask(&format!("{NODE}:8080")).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_taken_port_names_its_holder() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let _a = pod(&network, "a", &[tcp(8080, 80)]).await;
        let b = Namespace::new();
        let taken = network.attach(&request("b", &b, &[tcp(8080, 80)])).await.unwrap_err();
        assert_eq!(taken.to_string(), "host port 8080/Tcp is taken by sandbox a");
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let taken = network.attach(&request("b", &b, &[tcp(port, 80)])).await.unwrap_err();
        assert!(taken.to_string().ends_with(&format!("(pid {})", std::process::id())), "{taken}");
        assert_eq!(network.attachments().await.unwrap().len(), 1, "a refused pod leaves no record");
        network.detach("a").await.unwrap();
        network.attach(&request("b", &b, &[tcp(8080, 80)])).await.expect("the port is free again");
    });
}

#[test]
fn attach_again_is_the_same_answer() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let a = Namespace::new();
        let first = network.attach(&request("a", &a, &[])).await.unwrap();
        assert_eq!(network.attach(&request("a", &a, &[])).await.unwrap(), first);
        assert_eq!(open(dir.path()).await.attach(&request("a", &a, &[])).await.unwrap(), first, "by another process");
        let other = network.attach(&request("a", &a, &[tcp(1, 1)])).await.unwrap_err();
        assert!(matches!(other, Error::Invalid { .. }), "{other}");
        network.detach("a").await.unwrap();
        network.detach("a").await.expect("absent is done");
        assert_ne!(network.attach(&request("a", &a, &[])).await.unwrap().addresses, first.addresses, "it rests");
    });
}

#[test]
fn a_pod_that_has_the_link_already_is_refused_and_left_alone() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let a = Namespace::new();
        a.within(|| ip("link add eth0 type veth peer name other"));
        let refused = network.attach(&request("a", &a, &[])).await.unwrap_err();
        assert!(format!("{:?}", refused).contains("has a link eth0 already"), "{refused:?}");
        assert!(network.attachments().await.unwrap().is_empty());
        a.within(|| ip("link show eth0"));
    });
}

#[test]
fn an_exhausted_range_says_so() {
    host(async |_| {
        let dir = temp();
        let network = Routed::open(config(dir.path(), "t", "10.77.0.0/30")).await.unwrap();
        let _a = pod(&network, "a", &[]).await;
        let _b = pod(&network, "b", &[]).await;
        let full = network.attach(&request("c", &Namespace::new(), &[])).await.unwrap_err();
        assert!(matches!(&full, Error::Exhausted { range, used: 2 } if range == "10.77.0.0/30"), "{full}");
    });
}

#[test]
fn both_families() {
    host(async |world| {
        let dir = temp();
        let mut config = config(dir.path(), "t", "10.77.0.0/16");
        config.pod_ranges.push("fd77::/64".parse().unwrap());
        ip("addr add fd00:2::1/64 dev up0 nodad");
        world.within(|| ip("addr add fd00:2::2/64 dev eth0 nodad"));
        // The kernel routes to a new IPv6 address a moment after it has it.
        while !run("ip", "-6 route show table local").contains("fd00:2::1") {}
        let before = host_state();
        let network = Routed::open(config).await.unwrap();
        let a = Namespace::new();
        let b = Namespace::new();
        let a_ips = network.attach(&request("a", &a, &[tcp(8080, 80)])).await.unwrap().addresses;
        network.attach(&request("b", &b, &[])).await.unwrap();
        a.serve("[::]:80");
        world.serve("[::]:80");
        assert_eq!(a_ips[1].to_string(), "fd77::1");
        assert_eq!(b.ask("[fd77::1]:80").unwrap(), "fd77::2");
        assert_eq!(b.ask("[fd00:2::2]:80").unwrap(), "fd00:2::1");
        assert_eq!(world.ask("[fd00:2::1]:8080").unwrap(), "fd00:2::2");
        network.teardown().await.unwrap();
        assert_as_before(&before);
    });
}

#[test]
fn the_ipv6_metadata_address_is_out_of_reach() {
    host(async |_| {
        let dir = temp();
        let mut config = config(dir.path(), "t", "10.77.0.0/16");
        config.pod_ranges.push("fd77::/64".parse().unwrap());
        ip("addr add fd00:2::1/64 dev up0 nodad");
        ip("addr add fd00:ec2::254/128 dev lo nodad");
        // The kernel routes to a new IPv6 address a moment after it has it.
        while !["fd00:2::1", "fd00:ec2::254"].iter().all(|ip| run("ip", "-6 route show table local").contains(ip)) {}
        let network = Routed::open(config).await.unwrap();
        let a = Namespace::new();
        network.attach(&request("a", &a, &[])).await.unwrap();
        Namespace::here().serve("[::]:81");
        assert_eq!(ask("[fd00:ec2::254]:81").unwrap(), "fd00:ec2::254", "the host itself may");
        assert_eq!(a.ask("[fd00:2::1]:81").unwrap(), "fd77::1", "an open port of the host");
        assert_eq!(a.ask("[fd00:ec2::254]:81").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn teardown_leaves_the_host_as_it_was() {
    host(async |world| {
        run("iptables", "-P FORWARD DROP");
        let before = host_state();
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, _) = pod(&network, "a", &[tcp(8080, 80)]).await;
        a.serve("0.0.0.0:80");
        world.serve("0.0.0.0:80");
        world.ask(&format!("{NODE}:8080")).expect("Docker's FORWARD policy is no obstacle");
        a.ask(&format!("{WORLD}:80")).unwrap();
        assert_ne!(host_state(), before);
        network.teardown().await.unwrap();
        assert_as_before(&before);
        assert!(!dir.path().join("network").exists());
        network.teardown().await.expect("absent is done");
        open(dir.path()).await.teardown().await.unwrap();
        assert_as_before(&before);
    });
}

#[test]
fn the_last_instance_restores_what_the_first_found() {
    host(async |_| {
        let before = host_state();
        let dir = temp();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let first = Routed::open(config(&one, "rast", "10.77.0.0/16")).await.unwrap();
        let second = Routed::open(config(&two, "rast-3fa2", "10.78.0.0/16")).await.unwrap();
        let (_a, a_ip) = pod(&first, "a", &[]).await;
        let (b, b_ip) = pod(&second, "b", &[]).await;
        b.serve("0.0.0.0:80");
        first.teardown().await.unwrap();
        assert_eq!(ask(&format!("{b_ip}:80")).unwrap(), NODE, "the other instance's pods live on after {a_ip} is gone");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
        second.teardown().await.unwrap();
        assert_as_before(&before);
    });
}

#[test]
fn collect_detaches_the_dead_and_repairs_the_living() {
    host(async |world| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, a_ip) = pod(&network, "a", &[tcp(8080, 80)]).await;
        let _b = pod(&network, "b", &[tcp(8081, 80)]).await;
        let (c, c_ip) = pod(&network, "c", &[tcp(8082, 80)]).await;
        a.serve("0.0.0.0:80");
        c.serve("0.0.0.0:80");
        // What a kill between steps leaves: a record without a link, a link without a record, a table that is gone.
        let link = network.attachments().await.unwrap()[0].link.clone();
        ip(&format!("link del {link}"));
        ip(&format!("route del {c_ip}"));
        ip("link add t_zzzzz type veth peer name zz");
        run("nft", "delete table inet t");
        let again = open(dir.path()).await;
        again.collect(&BTreeSet::from(["a".to_owned(), "c".to_owned()])).await.unwrap();
        assert_eq!(again.attachments().await.unwrap().len(), 2);
        let links = run("ip", "-o link");
        assert_eq!(links.matches("t_").count(), 2, "{links}");
        assert_eq!(world.ask(&format!("{NODE}:8082")).unwrap(), WORLD, "{c_ip} answers again");
        assert_eq!(world.ask(&format!("{NODE}:8080")).unwrap(), WORLD, "{a_ip} answers again");
        assert_eq!(again.attach(&request("a", &a, &[tcp(8080, 80)])).await.unwrap().addresses, [a_ip]);
        assert!(!run("nft", "list table inet t").contains("8081"));
    });
}

/// Every prefix of an attachment's steps, as a kill would leave it.
#[test]
fn attach_completes_what_was_begun() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let (a, a_ip) = pod(&network, "a", &[tcp(8080, 80)]).await;
        a.serve("0.0.0.0:80");
        let link = network.attachments().await.unwrap()[0].link.clone();
        let undone: [&dyn Fn(); 5] = [
            &|| drop(run("nft", "delete element inet t any4 { tcp . 8080 }")),
            &|| ip(&format!("route del {a_ip}")),
            &|| a.within(|| ip("route del default")),
            &|| a.within(|| ip(&format!("addr del {a_ip}/32 dev eth0"))),
            &|| ip(&format!("link del {link}")),
        ];
        for (step, undo) in undone.iter().enumerate() {
            undo();
            network.attach(&request("a", &a, &[tcp(8080, 80)])).await.unwrap();
            assert_eq!(ask(&format!("{NODE}:8080")).unwrap(), NODE, "step {step}");
        }
    });
}

/// The process that `killed_anywhere` kills: attaches and detaches its pods for as long as it lives.
#[test]
#[ignore = "run by killed_anywhere"]
fn victim() {
    let Ok(dir) = std::env::var("RAST_TEST_LEDGER") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let network = open(std::path::Path::new(&dir)).await;
        let pods = std::env::var("RAST_TEST_PODS").unwrap();
        let rounds = pods.split(',').enumerate().map(|(i, pod)| {
            let host_ports = vec![tcp(9000 + i as u16, 80)];
            let (network, request) = (network.clone(), Request { id: format!("p{i}"), netns: pod.into(), host_ports });
            async move {
                loop {
                    network.attach(&request).await.unwrap();
                    network.detach(&request.id).await.unwrap();
                }
            }
        });
        futures(rounds).await;
    });
}

#[test]
fn killed_anywhere() {
    host(async |_| {
        let dir = temp();
        let before = host_state();
        let pods: Vec<Namespace> = (0..4).map(|_| Namespace::new()).collect();
        let paths: Vec<String> = pods.iter().map(|pod| pod.path().display().to_string()).collect();
        for round in 0..12 {
            let mut victim = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "victim", "--ignored", "--quiet"])
                .env("RAST_TEST_LEDGER", dir.path())
                .env("RAST_TEST_PODS", paths.join(","))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // Somewhere in its work: at a different link each time.
            let start = Instant::now();
            while run("ip", "-o link").matches("t_").count() < 1 + round % 4 && start.elapsed() < PATIENCE / 5 {}
            for _ in 0..round {
                std::thread::yield_now();
            }
            victim.kill().unwrap();
            victim.wait().unwrap();
            let network = open(dir.path()).await;
            network.collect(&BTreeSet::new()).await.unwrap();
            assert!(network.attachments().await.unwrap().is_empty());
            assert!(!run("ip", "-o link").contains("t_"), "round {round}");
            assert!(!run("nft", "list table inet t").contains("elements"), "round {round}");
        }
        open(dir.path()).await.teardown().await.unwrap();
        assert_as_before(&before);
    });
}

#[test]
fn two_hundred_come_and_go() {
    host(async |_| {
        let dir = temp();
        let network = open(dir.path()).await;
        let before = host_state();
        let pods: Vec<Namespace> = (0..200).map(|_| Namespace::new()).collect();
        let attached = futures(pods.iter().enumerate().map(|(i, pod)| {
            let (network, request) = (network.clone(), request(&format!("p{i}"), pod, &[]));
            async move { network.attach(&request).await.unwrap() }
        }))
        .await;
        let addresses: BTreeMap<IpAddr, &str> =
            attached.iter().map(|a| (a.addresses[0], a.request.id.as_str())).collect();
        assert_eq!(addresses.len(), 200, "an address twice");
        futures(attached.iter().map(|a| {
            let (network, id) = (network.clone(), a.request.id.clone());
            async move { network.detach(&id).await.unwrap() }
        }))
        .await;
        assert_as_before(&before);
        assert!(network.attachments().await.unwrap().is_empty());
    });
}

/// Two instances of the same ledger, as `rast` and `rast cni` are.
#[test]
fn no_address_twice_between_processes() {
    host(async |_| {
        let dir = temp();
        let networks = [open(dir.path()).await, open(dir.path()).await];
        let pods: Vec<Namespace> = (0..40).map(|_| Namespace::new()).collect();
        let rounds = pods.iter().enumerate().map(|(i, pod)| {
            let (network, request) = (networks[i % 2].clone(), request(&format!("p{i}"), pod, &[]));
            async move {
                let mut seen = Vec::new();
                for _ in 0..3 {
                    seen.push(network.attach(&request).await.unwrap().addresses[0]);
                    network.detach(&request.id).await.unwrap();
                }
                seen
            }
        });
        let seen: Vec<IpAddr> = futures(rounds).await.into_iter().flatten().collect();
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "the range is far from walked");
    });
}

#[test]
fn a_range_with_an_address_of_the_host_is_refused() {
    host(async |_| {
        let dir = temp();
        let before = host_state();
        let refused = Routed::open(config(dir.path(), "t", "192.0.2.0/28")).await.err().unwrap();
        assert_eq!(refused.to_string(), "podRanges[0]: 192.0.2.0/28 holds the address 192.0.2.1 of up0");
        assert_as_before(&before);
    });
}

/// All of them at the same time.
async fn futures<F>(tasks: impl Iterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
