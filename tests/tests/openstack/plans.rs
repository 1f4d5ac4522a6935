//! What `rast cloud plan` predicts is what happens, to OpenStack's own client as well.

use serde_json::Value;
use tests::cloud::{Project, credentials_make_trusts};

use crate::{CLUSTER, text};

/// A project or a cluster in which something is wrong.
struct Case {
    name: &'static str,
    /// How the project is prepared.
    settings: &'static [&'static str],
    /// What the cluster's file says besides.
    spec: &'static str,
    /// What the plan says.
    says: &'static str,
    /// What the plain client is to do; `STACK` for the cluster's own template.
    attempt: &'static [&'static str],
    /// What it is answered.
    fails: &'static str,
}

const STACK: &[&str] = &["STACK"];

const CASES: [Case; 11] = [
    Case {
        name: "flavor",
        settings: &[],
        spec: "flavor: none",
        says: "there is no flavor \"none\"",
        attempt: &["server", "create", "--image", "guest", "--nic", "none", "--flavor", "none", "a"],
        fails: "No Flavor found for none",
    },
    Case {
        name: "small",
        settings: &[],
        spec: "image: {name: big}\n  flavor: r1.tiny",
        says: "flavor r1.tiny has a disk of 1 GiB, the image needs 9",
        attempt: &["server", "create", "--image", "big", "--nic", "none", "--flavor", "r1.tiny", "a"],
        fails: "Flavor's disk is smaller than the minimum size",
    },
    Case {
        name: "zone",
        settings: &[],
        spec: "zone: mars",
        says: "there is no available zone \"mars\"",
        attempt: &[
            "server",
            "create",
            "--image",
            "guest",
            "--nic",
            "none",
            "--flavor",
            "r1.tiny",
            "--availability-zone",
            "mars",
            "a",
        ],
        fails: "The requested availability zone is not available",
    },
    Case {
        name: "image",
        settings: &[],
        spec: "image: {name: none}",
        says: "the project sees no active image \"none\"",
        attempt: &["image", "show", "none"],
        fails: "No Image found for none",
    },
    Case {
        name: "type",
        settings: &[],
        spec: "state: {type: tape}",
        says: "there is no volume type \"tape\"",
        attempt: &["volume", "create", "--size", "1", "--type", "tape", "a"],
        fails: "tape",
    },
    Case {
        name: "overlap",
        settings: &[],
        spec: "network: {cidr: 172.24.4.0/24}",
        says: "overlaps 172.24.4.0/24 of subnet",
        attempt: STACK,
        fails: "overlaps with cidr 172.24.4.0/24 of subnet",
    },
    Case {
        name: "external",
        settings: &["deny=external"],
        spec: "",
        says: "the project sees no external network",
        attempt: &["floating", "ip", "create", "public"],
        fails: "No Network found for public",
    },
    Case {
        name: "upload",
        settings: &["deny=image"],
        spec: "image: {file: IMAGE}",
        says: "you may upload no images into this project",
        attempt: &["image", "create", "--file", "IMAGE", "--disk-format", "qcow2", "--container-format", "bare", "a"],
        fails: "403",
    },
    Case {
        name: "networks",
        settings: &["deny=network"],
        spec: "",
        says: "you may make no networks in this project",
        attempt: STACK,
        fails: "create_network",
    },
    Case {
        name: "stacks",
        settings: &["deny=stack"],
        spec: "",
        says: "you may make no Heat stacks in this project",
        attempt: STACK,
        fails: "You are not authorized",
    },
    Case {
        name: "heat",
        settings: &["hide=orchestration"],
        spec: "",
        says: "the cloud offers no orchestration (Heat)",
        attempt: &["stack", "list"],
        fails: "orchestration",
    },
];

/// The test cluster with other fields; those that it has already are replaced.
fn cluster(spec: &str) -> String {
    let mut text = CLUSTER.to_owned();
    for line in spec.lines() {
        let field = line.trim().split(':').next().unwrap_or_default();
        let kept = text.lines().filter(|l| field.is_empty() || !l.starts_with(&format!("  {field}:")));
        text = kept.map(|l| format!("{l}\n")).collect();
    }
    format!("{text}  {spec}\n")
}

/// The cluster's own stacks, made by the plain client; what it says when one fails.
struct Stacks<'a> {
    project: &'a Project,
    dir: String,
}

impl<'a> Stacks<'a> {
    fn of(project: &'a Project, file: &str) -> Self {
        let dir = project.dir();
        project.ok(&["template", "-f", file, "--dir", &dir]);
        Self { project, dir }
    }

    fn create<'b>(&'b self, name: &'b str, parameters: &'b [String]) -> Vec<&'b str> {
        let mut args = vec!["stack", "create", "--wait", "-t", name];
        for parameter in parameters {
            args.extend(["--parameter", parameter]);
        }
        args
    }

    fn state(&self) -> (String, Vec<String>) {
        (format!("{}/rastos-demo-state.yaml", self.dir), vec!["external_network=public".into()])
    }

    /// Why the first stack fails.
    fn state_fails(&self) -> String {
        let (template, parameters) = self.state();
        let mut args = self.create(&template, &parameters);
        args.push("direct-state");
        let said = self.project.openstack_fails(&args);
        said + &self.explained("direct-state")
    }

    /// Makes the first stack; what the second is told of it.
    fn make_state(&self) -> Vec<String> {
        let (template, parameters) = self.state();
        let mut args = self.create(&template, &parameters);
        args.push("direct-state");
        self.project.openstack(&args);
        let output = |key: &str| {
            let args = ["stack", "output", "show", "direct-state", key, "-f", "value", "-c", "output_value"];
            self.project.openstack(&args).trim().to_owned()
        };
        let volume = output("volume");
        vec![
            format!("state_serial={}", &volume[..20]),
            format!("state_volume={volume}"),
            format!("address={}", output("address_id")),
            "external_network=public".into(),
            "machine_0_image=guest".into(),
            "machine_0_flavor=r1.tiny".into(),
        ]
    }

    /// Why the second stack fails.
    fn machines_fail(&self, parameters: &[String]) -> String {
        let template = format!("{}/rastos-demo.yaml", self.dir);
        let mut args = self.create(&template, parameters);
        args.push("direct");
        let said = self.project.openstack_fails(&args);
        said + &self.explained("direct")
    }

    /// What Heat says of a failure; the stack is gone afterwards.
    fn explained(&self, stack: &str) -> String {
        let listed = self.project.openstack(&["stack", "list", "-f", "value", "-c", "Stack Name"]);
        if !listed.lines().any(|name| name == stack) {
            return String::new();
        }
        let why = self.project.openstack(&["stack", "failures", "list", stack]);
        self.project.openstack(&["stack", "delete", "--yes", "--wait", stack]);
        why
    }
}

fn refused(project: &Project, file: &str, says: &str) {
    for verb in [["plan", "-f", file].as_slice(), &["up", "-f", file, "--no-wait"]] {
        let output = project.rast(verb);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{verb:?}: {said}{}", text(&output.stderr));
        assert!(said.contains(says), "{verb:?} {says}: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_project_or_a_file_is_said_and_is_so() {
    for case in CASES {
        let project = Project::with(case.name, case.settings);
        let image = project.guest("image.qcow2");
        if case.name == "small" {
            let file = ["--file", image.as_str(), "--disk-format", "qcow2", "--container-format", "bare"];
            project.openstack(&[["image", "create", "--min-disk", "9"].as_slice(), &file, &["big"]].concat());
        }
        let before = project.inventory();
        let file = project.file("cluster.yaml", &cluster(&case.spec.replace("IMAGE", &image)));
        refused(&project, &file, case.says);
        assert_eq!(project.inventory(), before, "{}", case.name);
        let said = if case.attempt == STACK && case.name == "stacks" {
            Stacks::of(&project, &file).state_fails()
        } else if case.attempt == STACK {
            let stacks = Stacks::of(&project, &file);
            stacks.machines_fail(&stacks.make_state())
        } else {
            let attempt: Vec<&str> = case.attempt.iter().map(|a| if *a == "IMAGE" { &image } else { *a }).collect();
            project.openstack_fails(&attempt)
        };
        assert!(said.contains(case.fails), "{}: {said}", case.name);
    }
}

/// A limit that is too small by one, what the plan says of it, and what the service does.
type Quota = (&'static str, &'static str, &'static str);

/// The default group counts.
const MACHINES: [Quota; 9] = [
    (
        "instances=0",
        "1 instances are needed, 0 of 0 are free",
        "Quota exceeded for instances: Requested 1, but already used 0 of 0 instances",
    ),
    (
        "cores=0",
        "1 cores are needed, 0 of 0 are free",
        "Quota exceeded for cores: Requested 1, but already used 0 of 0 cores",
    ),
    (
        "ram=255",
        "256 RAM (MiB) are needed, 255 of 255 are free",
        "Quota exceeded for ram: Requested 256, but already used 0 of 255 ram",
    ),
    ("network=0", "1 networks are needed, 0 of 0 are free", "Quota exceeded for resources: ['network']"),
    ("subnet=0", "1 subnets are needed, 0 of 0 are free", "Quota exceeded for resources: ['subnet']"),
    ("router=0", "1 routers are needed, 0 of 0 are free", "Quota exceeded for resources: ['router']"),
    ("port=2", "3 ports are needed, 2 of 2 are free", "Quota exceeded for resources: ['port']"),
    (
        "security_group=1",
        "1 security groups are needed, 0 of 1 are free",
        "Quota exceeded for resources: ['security_group']",
    ),
    (
        "security_group_rule=6",
        "3 security group rules are needed, 2 of 6 are free",
        "Quota exceeded for resources: ['security_group_rule']",
    ),
];
const STATE: [Quota; 3] = [
    (
        "volumes=0",
        "1 volumes are needed, 0 of 0 are free",
        "Maximum number of volumes allowed (0) exceeded for quota 'volumes'",
    ),
    (
        "gigabytes=0",
        "1 volume gigabytes are needed, 0 of 0 are free",
        "exceeds allowed gigabytes quota. Requested 1G, quota is 0G and 0G has been consumed",
    ),
    ("floatingip=0", "1 floating IPs are needed, 0 of 0 are free", "Quota exceeded for resources: ['floatingip']"),
];
/// What a cluster needs, and nothing more.
const ENOUGH: [&str; 12] = [
    "instances=1",
    "cores=1",
    "ram=256",
    "network=1",
    "subnet=1",
    "router=1",
    "port=3",
    "security_group=2",
    "security_group_rule=7",
    "volumes=1",
    "gigabytes=1",
    "floatingip=1",
];
const PLENTY: &str = "=100000";

#[test]
fn each_quota_that_is_too_small_by_one_is_said_and_is_so() {
    let project = Project::new("quotas");
    let file = project.file("cluster.yaml", CLUSTER);
    let stacks = Stacks::of(&project, &file);
    let _the_default_group_is_there_now = project.inventory();
    let too_small = |(quota, says, fails): Quota, attempt: &dyn Fn() -> String| {
        project.quotas(&[quota]);
        refused(&project, &file, says);
        let said = attempt();
        assert!(said.contains(fails), "{quota}: {said}");
        let (name, _) = quota.split_once('=').expect("a quota");
        project.quotas(&[&format!("{name}{PLENTY}")]);
    };
    for case in STATE {
        too_small(case, &|| stacks.state_fails());
    }
    let parameters = stacks.make_state();
    for case in MACHINES {
        too_small(case, &|| stacks.machines_fail(&parameters));
    }
}

#[test]
fn what_a_plan_needs_is_enough() {
    let project = Project::with("enough", &ENOUGH);
    let file = project.file("cluster.yaml", CLUSTER);
    let plan: Value = serde_json::from_str(&project.ok(&["plan", "-f", &file, "-o", "json"])).expect("JSON");
    assert_eq!(plan["needs"].as_object().map(serde_json::Map::len), Some(ENOUGH.len()), "{plan}");
    project.ok(&["up", "-f", &file, "--no-wait"]);
    project.ok(&["down", "demo", "--yes"]);
}

#[test]
fn a_volume_that_is_kept_counts_what_it_grows_by() {
    let project = Project::new("growth");
    let file = project.file("cluster.yaml", CLUSTER);
    project.ok(&["up", "-f", &file, "--no-wait"]);
    project.ok(&["down", "demo", "--keep-state", "--yes"]);
    let larger = project.file("larger.yaml", &cluster("state: {size: 3Gi}"));
    project.quotas(&["volumes=1", "gigabytes=2"]);
    refused(&project, &larger, "2 volume gigabytes are needed, 1 of 2 are free");
    let said = project.openstack_fails(&["volume", "set", "--size", "3", "demo-state"]);
    assert!(said.contains("quota"), "{said}");
    project.quotas(&["gigabytes=3"]);
    project.ok(&["up", "-f", &larger, "--no-wait"]);
    assert_eq!(project.openstack(&["volume", "show", "demo-state", "-f", "value", "-c", "size"]).trim(), "3");
    project.ok(&["down", "demo", "--yes"]);
}

/// Whether a credential may do what Heat wants is the cloud's choice.
#[test]
fn what_an_application_credential_can_do_is_said_and_is_so() {
    let project = Project::new("credential");
    let file = project.file("cluster.yaml", CLUSTER);
    let sorts = [("restricted", "make the credential with --unrestricted"), ("unrestricted", "use a password")];
    let clouds = sorts.map(|(sort, advice)| (project.credential(sort), advice));
    let before = project.inventory();
    for allowed in [true, false] {
        credentials_make_trusts(allowed);
        for (cloud, advice) in &clouds {
            let plan = project.ok(&["plan", "-f", &file, "--os-cloud", cloud]);
            assert_eq!(plan.contains("this application credential can make no trusts"), !allowed, "{plan}");
            let up = project.rast(&["up", "-f", &file, "--no-wait", "--os-cloud", cloud]);
            let said = text(&up.stderr);
            assert_eq!(up.status.success(), allowed, "{said}");
            if allowed {
                project.ok(&["down", "demo", "--yes", "--os-cloud", cloud]);
            } else {
                assert!(plan.contains(advice) && said.contains(advice) && said.contains("[req-"), "{plan}{said}");
            }
            assert_eq!(project.inventory(), before, "{cloud}");
        }
    }
}
