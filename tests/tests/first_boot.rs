//! A machine's first boot and its later ones: what it is told, by whom, and what of it survives.

use std::{fs, process::Command};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use tests::{
    Admin, Metadata, Parts, Place, eventually,
    machine::image,
    place::{CLUSTER, READY, SERIAL, ready},
    pods::{config_map, container, documents, pod},
};

#[test]
fn from_power_on_to_a_pod_and_back_again() {
    let place = Place::new();
    let mut machine = place.machine().start();
    assert!(machine.says("rastos: configuration: ").contains("machine one, from the kernel command line"));
    machine.says("rastos: state: /dev/vdb on /var, 2048 MiB");
    let kubectl = place.enrol(&mut machine);

    let stranger = Admin::new();
    let (status, refusal) = stranger.ask(place.port);
    assert_eq!((status.as_str(), refusal["kind"].as_str()), ("403", Some("Status")), "{refusal}");

    kubectl
        .clone()
        .input(documents(&[config_map("kept"), pod("probe", "exec sleep 100000")]))
        .ok(&["apply", "-f", "-"]);
    let first = ready(&kubectl, "probe");
    let inside = |script: &str| kubectl.run(&["exec", "probe", "--", "sh", "-c", script]);
    // Devices are denied by the group's program: v2 has no other way.
    let opened = inside("mknod /tmp/k c 1 11 && exec 3</tmp/k");
    assert_ne!(opened.code, 0, "{}", opened.out);
    assert!(opened.err.to_lowercase().contains("not permitted"), "{}", opened.err);
    assert_eq!(inside("exec 3</dev/null").code, 0);
    let limits = inside("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max");
    assert_eq!(limits.code, 0, "cgroup v2 is seen: {}", limits.err);

    machine.press_power();
    machine.says("rastos: the power button was pressed");
    machine.says("rastos: powering off now");
    machine.ends();

    let mut machine = place.machine().start();
    machine.says(READY);
    kubectl.ok(&["get", "configmap", "kept"]);
    let started = |pod: &Value| container(pod)["state"]["running"]["startedAt"].clone();
    eventually("the pod runs again", || {
        let again = ready(&kubectl, "probe");
        assert_eq!(first["metadata"]["uid"], again["metadata"]["uid"]);
        if started(&again) == started(&first) { Err(again["status"].to_string()) } else { Ok(()) }
    });
}

#[test]
fn a_killed_machine_has_lost_nothing_it_said_yes_to() {
    let place = Place::new();
    let mut machine = place.machine().start();
    let kubectl = place.enrol(&mut machine);
    kubectl.clone().input(documents(&[pod("probe", "exec sleep 100000")])).ok(&["apply", "-f", "-"]);
    ready(&kubectl, "probe");
    let mut kept: Vec<String> = Vec::new();
    // Of each round another number of writes is acknowledged before the plug is pulled, and one is under way.
    for (round, writes) in [1, 4, 2].into_iter().enumerate() {
        for n in 0..writes {
            let name = format!("map-{round}-{n}");
            kubectl.clone().input(config_map(&name).to_string()).ok(&["apply", "-f", "-"]);
            kept.push(name);
        }
        let under_way = kubectl.clone().input(config_map(&format!("lost-{round}")).to_string());
        let writer = std::thread::spawn(move || under_way.run(&["apply", "--request-timeout=5s", "-f", "-"]).code);
        machine.kill();
        let _either = writer.join();
        machine = place.machine().start();
        machine.says(READY);
        let maps = kubectl.ok(&["get", "configmaps", "-o", "name"]);
        for name in &kept {
            assert!(maps.contains(&format!("configmap/{name}\n")), "{name} is gone: {maps}");
        }
        // What the API says of it may still be what was true before.
        eventually("the pod runs again", || match kubectl.run(&["exec", "probe", "--", "true"]) {
            answer if answer.code == 0 => Ok(()),
            answer => Err(answer.err),
        });
    }
}

/// Prints the figure: `cargo nextest run -p tests --test first_boot --run-ignored only --no-capture`.
#[test]
#[ignore = "boots until it fails"]
fn the_lowest_memory_that_runs_a_pod() {
    let runs = |mebibytes: u32| {
        std::panic::catch_unwind(|| {
            let place = Place::new();
            let mut machine = place.machine().memory(mebibytes).start();
            let kubectl = place.enrol(&mut machine);
            kubectl.clone().input(documents(&[pod("probe", "exec sleep 100000")])).ok(&["apply", "-f", "-"]);
            ready(&kubectl, "probe");
        })
        .is_ok()
    };
    let enough = [80, 88, 96, 104, 112, 120, 128, 144, 160, 192, 256].into_iter().find(|mebibytes| runs(*mebibytes));
    eprintln!("lowest memory that runs one pod: {enough:?} MiB");
    assert!(enough.is_some());
}

#[test]
fn another_cluster_s_volume_is_left_alone() {
    let place = Place::new();
    let mut machine = place.machine().start();
    machine.says("rastos: state: /dev/vdb on /var");
    machine.says(READY);
    machine.kill();
    let theirs = place.config().replace(CLUSTER, "00000000-0000-4000-8000-000000000000");
    let word = format!("rastos.config={}", BASE64_STANDARD.encode(theirs));
    let mut machine = Parts::direct(&image(), &word).volume(&place.volume(), SERIAL).start();
    assert!(machine.says("rastos: state: ").contains(&format!("is the state of cluster shop ({CLUSTER})")));
    machine.kill();
    // Nor is any other disk taken than the one that was named.
    let word = format!("rastos.config={}", BASE64_STANDARD.encode(place.config()));
    let mut machine = Parts::direct(&image(), &word).volume(&place.volume(), "another").start();
    assert!(machine.says("rastos: state: ").contains("waiting for the disk with serial"));
}

#[test]
fn wrong_user_data_may_be_put_right() {
    let place = Place::new();
    let cloud = Metadata::start();
    cloud.set("meta_data.json", r#"{"uuid": "u", "hostname": "one.novalocal", "meta": {}}"#);
    cloud.set("user_data", place.config().replace("serial", "seriel"));
    let mut machine = Parts::direct(&image(), "").volume(&place.volume(), SERIAL).metadata(cloud.port());
    machine = machine.forward(place.port, 6443).memory(512);
    let mut machine = machine.start();
    let said = machine.says("rastos: configuration: metadata service: ");
    assert!(said.contains("line 6: spec.state.seriel: unknown field `seriel`"), "{said}");
    cloud.set("user_data", place.config());
    machine.says("rastos: configuration: machine one, from the metadata service");
    let authority = machine.says("rastos: CA sha256 ");
    machine.says(READY);
    let authority = authority.rsplit(' ').next().unwrap().to_owned();
    eventually("the fingerprint is with the cloud", || match cloud.posted().first() {
        Some(word) if *word == format!("rastos-ca-sha256:{authority}") => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // A key that is announced later, by server metadata.
    let late = Admin::new();
    assert_eq!(late.ask(place.port).0, "403");
    cloud.set("meta_data.json", format!(r#"{{"uuid": "u", "meta": {{"rastos-enrol": "{}"}}}}"#, late.hash));
    eventually("the key is admitted", || match late.ask(place.port).0.as_str() {
        "200" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn drives_of_other_kinds_get_their_drivers() {
    let place = Place::new();
    let files = place.dir.path().join("files");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("user-data"), place.config()).unwrap();
    fs::write(files.join("meta-data"), "instance-id: one\n").unwrap();
    let drive = place.dir.path().join("drive");
    let made =
        Command::new("genisoimage").args(["-quiet", "-R", "-V", "cidata", "-o"]).arg(&drive).arg(&files).status();
    assert!(made.unwrap().success());
    let volume = format!("if=none,id=volume,format=raw,file={}", place.volume().display());
    // As Nova attaches a config drive to a machine of its default kind, and a volume where `hw_scsi_model` asks for it.
    let mut machine = Parts::direct(&image(), "")
        .memory(512)
        .option("-device", "piix3-ide,id=ide")
        .option("-drive", format!("if=none,id=drive,format=raw,readonly=on,file={}", drive.display()))
        .option("-device", "ide-cd,bus=ide.0,drive=drive")
        .option("-device", "virtio-scsi-pci,id=scsi")
        .option("-drive", volume)
        .option("-device", format!("scsi-hd,bus=scsi.0,drive=volume,serial={SERIAL}"))
        .start();
    machine.says("rastos: configuration: machine one, from the NoCloud drive");
    machine.says("rastos: state: /dev/sda on /var, 2048 MiB");
    machine.says(READY);
}

#[test]
fn a_config_drive_says_it_all() {
    let place = Place::new();
    let files = place.dir.path().join("files/openstack/latest");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("user_data"), place.config()).unwrap();
    fs::write(files.join("meta_data.json"), r#"{"uuid": "u", "hostname": "one"}"#).unwrap();
    fs::write(
        files.join("network_data.json"),
        r#"{"links": [{"id": "tap", "type": "ovs", "ethernet_mac_address": "52:54:00:12:34:56", "mtu": 1400}],
            "networks": [{"id": "n", "type": "ipv4", "link": "tap", "ip_address": "10.0.2.77",
                          "netmask": "255.255.255.0", "routes": []}]}"#,
    )
    .unwrap();
    let drive = place.dir.path().join("drive");
    let parts = Parts::direct(&image(), "").volume(&place.volume(), SERIAL).memory(512);
    let mut machine = parts.labelled(&drive, "config-2", &place.dir.path().join("files")).start();
    machine.says("rastos: network: eth0 10.0.2.77/24 MTU 1400 (fixed)");
    machine.says("rastos: configuration: machine one, from the config drive");
    machine.says("rastos: API ready at https://10.0.2.77:6443");
}
