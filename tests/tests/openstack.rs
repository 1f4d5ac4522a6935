//! `rast cloud` against the real OpenStack of `make devcloud`. scripts/test-openstack runs these; without the cloud they
//! are left out by name, never green in silence.

use tests::cloud::Project;

const CLUSTER: &str = "
apiVersion: rastos.io/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  image: {name: guest}
  flavor: r1.tiny
  state: {size: 1Gi}
";

/// More requests than this to a cluster's end is a loop.
const MOST: usize = 60;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_client_killed_at_every_request_doubles_and_leaks_nothing() {
    let project = Project::new("killed");
    let file = project.file("cluster.yaml", CLUSTER);
    let before = project.inventory();
    for args in [["up", "-f", &file, "--no-wait"].as_slice(), &["down", "demo", "--yes"]] {
        // Each run does one request and is killed before it hears of it; the next goes on from there.
        let mut runs = (0..MOST).map(|_| project.killed_after(1, args));
        let ended = runs.find_map(|run| run).expect("it comes to an end");
        assert!(ended.status.success(), "{}", text(&ended.stderr));
        if args[0] == "up" {
            let doubled =
                project.inventory().iter().filter(|i| i.starts_with("server ") || i.starts_with("volume ")).count();
            assert_eq!(doubled, 2, "{:?}", project.inventory());
        }
    }
    assert_eq!(project.inventory(), before);
}

#[test]
fn a_plan_says_what_would_fail_and_makes_nothing() {
    let project = Project::new("plan");
    let before = project.inventory();
    for (field, says) in [
        ("flavor: none", "there is no flavor \"none\""),
        ("zone: mars", "there is no available zone \"mars\""),
        ("externalNetwork: none", "there is no external network \"none\""),
        ("network: {cidr: 172.24.4.0/24}", "overlaps 172.24.4.0/24 of subnet"),
        ("image: {name: none}", "sees no active image \"none\""),
    ] {
        let spec = CLUSTER.replace("  image: {name: guest}\n  flavor: r1.tiny\n", &format!("  {field}\n"));
        let file = project.file("bad.yaml", &spec);
        for verb in [["plan", "-f", &file].as_slice(), &["up", "-f", &file, "--no-wait"]] {
            let output = project.rast(verb);
            assert_eq!(output.status.code(), Some(3), "{verb:?} {field}");
            assert!(text(&output.stdout).contains(says), "{field}: {}", text(&output.stdout));
        }
    }
    assert_eq!(project.inventory(), before);
}
