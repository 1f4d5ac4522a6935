//! What happens to a machine's state when its volume is full, when it is damaged, and when the power fails.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::{
    Client, Dice, Disk, Machine, Place, eventually,
    place::{READY, ready},
    pods::{config_map, documents, pod},
};

#[test]
fn a_full_volume_is_survived() {
    let place = Place::new();
    place.volume_of(256 << 20);
    let mut machine = place.machine().start();
    let kubectl = place.enrol(&mut machine);
    kubectl.clone().input(documents(&[config_map("kept"), on_a_volume("filler")])).ok(&["apply", "-f", "-"]);
    ready(&kubectl, "filler");
    // Through the overlay, on the filesystem itself, and as whoever a container may become.
    for fill in
        ["cat /dev/zero >/fill", "cat /dev/zero >/empty/fill", "su nobody -s /bin/sh -c 'cat /dev/zero >/empty/more'"]
    {
        let filled = kubectl.run(&["exec", "filler", "--", "sh", "-c", fill]);
        assert!(filled.err.contains("No space left"), "{fill}: {}", filled.err);
    }
    machine.kill();
    // What is there is served, and what was taken can be given back.
    let mut machine = place.machine().start();
    machine.says(READY);
    kubectl.ok(&["get", "configmap", "kept"]);
    kubectl.ok(&["delete", "pod", "filler", "--force", "--grace-period=0", "--wait=false"]);
    eventually("there is room again", || {
        let answer = kubectl.clone().input(config_map("later").to_string()).run(&["apply", "-f", "-"]);
        if answer.code == 0 { Ok(()) } else { Err(answer.err) }
    });
}

/// A pod that can write on the state's filesystem itself.
fn on_a_volume(name: &str) -> Value {
    let mut pod = pod(name, "exec sleep 100000");
    pod["spec"]["volumes"] = json!([{"name": "empty", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "empty", "mountPath": "/empty"}]);
    pod
}

#[test]
fn flipped_bytes_in_the_state_are_mended_or_said() {
    let place = Place::new();
    let mut machine = place.machine().start();
    let kubectl = place.enrol(&mut machine);
    kubectl.ok(&["create", "configmap", "kept", "--from-literal=key=kept"]);
    machine.press_power();
    machine.ends();
    drop(machine);

    // The superblock: its magic number, without which there is no filesystem, and its count of blocks.
    for at in [1024 + 0x38, 1024 + 0x04] {
        place.flip(at);
        let mut machine = place.machine().start();
        machine.says("rastos: state: /dev/vdb on /var, 2048 MiB, its damaged superblock made anew of a copy");
        machine.says(READY);
        kubectl.ok(&["get", "configmap", "kept"]);
        machine.press_power();
        machine.ends();
    }

    // What has no copy: never a new filesystem instead, and when it is put right all is there.
    let root = place.inode("/");
    let store = place.inode("/lib/rastos/store");
    let journal = place.block_of("<8>", 0);
    for (at, word) in [
        (root, "rastos: state: /dev/vdb is damaged: "),
        (journal + 0x18, "rastos: state: /dev/vdb is damaged: "),
        (store, "rastos: last error: rast ended with code 1: open /var/lib/rastos/store: Bad message"),
    ] {
        place.flip(at);
        let mut machine = place.machine().start();
        machine.says(word);
        assert!(machine.console().contains("rastos: state: /dev/vdb is damaged: "));
        assert!(!machine.console().contains(READY));
        machine.kill();
        place.flip(at);
    }
    let mut machine = place.machine().start();
    machine.says(READY);
    kubectl.ok(&["get", "configmap", "kept"]);
}

/// What was acknowledged, and is to be found at every later start.
#[derive(Default)]
struct Kept {
    authority: Option<String>,
    /// Values of ConfigMaps; none of those that were deleted.
    maps: BTreeMap<String, Option<String>>,
    /// In a volume of a pod.
    files: Vec<String>,
}

impl Kept {
    /// Waits until the API is ready, or the power has failed. Tells which. The authority was made once: by the time it is
    /// named on the console it stays.
    fn boot(&mut self, machine: &mut Machine, disk: &Disk) -> bool {
        loop {
            let line = eventually("a line, or no power", || match machine.line() {
                line @ Some(_) => Ok(line),
                None if disk.failed() => Ok(None),
                None => Err(machine.console()),
            });
            let Some(line) = line else { return false };
            assert!(!line.contains(" is damaged"), "{line}");
            if let Some((_, hash)) = line.split_once("rastos: CA sha256 ") {
                assert_eq!(self.authority.get_or_insert(hash.to_owned()), hash);
            }
            if line.contains(READY) {
                return true;
            }
        }
    }

    fn check(&self, kubectl: &Client) {
        let list: Value = serde_json::from_str(&kubectl.ok(&["get", "configmaps", "-o", "json"])).unwrap();
        let found = |name: &str| {
            let map = list["items"].as_array().unwrap().iter().find(|map| map["metadata"]["name"] == name)?;
            Some(map["data"]["key"].as_str().unwrap().to_owned())
        };
        for (name, value) in &self.maps {
            assert_eq!(&found(name), value, "{name}");
        }
        // What the API says of the pod may still be what was true before.
        let files = eventually("the pod runs again", || match kubectl.run(&["exec", "writer", "--", "ls", "/empty"]) {
            answer if answer.code == 0 => Ok(answer.out),
            answer => Err(answer.err),
        });
        for file in &self.files {
            assert!(files.lines().any(|line| line == file), "{file} is lost: {files}");
        }
    }

    /// One more write, which comes back when it is acknowledged.
    fn write(&mut self, kubectl: &Client, dice: &mut Dice, name: String) {
        let known: Vec<String> = self.maps.keys().cloned().collect();
        let old = known.get(dice.below(known.len() as u64 + 1) as usize).cloned();
        match (dice.below(4), old) {
            (0, Some(old)) => {
                kubectl.ok(&["delete", "configmap", &old, "--ignore-not-found"]);
                self.maps.insert(old, None);
            }
            (1, _) => {
                kubectl.ok(&["exec", "writer", "--", "sh", "-c", &format!("echo {name} >/empty/{name} && sync")]);
                self.files.push(name);
            }
            (_, old) => {
                let mut map = config_map(&old.unwrap_or_else(|| name.clone()));
                map["data"]["key"] = name.clone().into();
                kubectl.clone().input(map.to_string()).ok(&["apply", "-f", "-"]);
                self.maps.insert(map["metadata"]["name"].as_str().unwrap().to_owned(), Some(name));
            }
        }
    }

    /// Writes that go on until one is not acknowledged.
    fn write_until_it_fails(&mut self, kubectl: &Client, cut: u64) {
        for name in (0..).map(|write| format!("last-{cut}-{write}")) {
            let map = config_map(&name);
            if kubectl.clone().input(map.to_string()).run(&["apply", "--request-timeout=5s", "-f", "-"]).code != 0 {
                return;
            }
            self.maps.insert(name, Some(map["data"]["key"].as_str().unwrap().to_owned()));
        }
    }
}

/// How many writes a disk sees before the API is ready, more or less: of a new machine, and at a later start.
const WRITES: [u64; 2] = [150, 40];

/// Twenty times, or `RAST_TEST_CUTS`. Moments are counted in what the disk is asked to write.
#[test]
#[ignore = "twenty boots want a machine that has time for them"]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let cuts = std::env::var("RAST_TEST_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut dice = Dice::seeded();
    let (place, mut kept) = (Place::new(), Kept::default());
    let mut client = None;
    for cut in 0..cuts {
        let (parts, disk) = place.machine_behind_a_cache();
        let mut machine = parts.start();
        // The first few times while everything is made.
        let new = cut < cuts / 5;
        let early = new || dice.below(3) == 0;
        if early {
            disk.fail_after(dice.below(WRITES[usize::from(!new)]));
        }
        let ready = kept.boot(&mut machine, &disk);
        if !early {
            let kubectl = client.get_or_insert_with(|| {
                let kubectl = place.admit(kept.authority.as_ref().expect("it is said before the API is ready"));
                kubectl.clone().input(documents(&[on_a_volume("writer")])).ok(&["apply", "-f", "-"]);
                self::ready(&kubectl, "writer");
                kubectl
            });
            kept.check(kubectl);
            for write in 0..dice.below(6) {
                kept.write(kubectl, &mut dice, format!("write-{cut}-{write}"));
            }
            disk.fail_after(dice.below(20));
            kept.write_until_it_fails(kubectl, cut);
            assert!(disk.failed(), "{}", machine.console());
        }
        machine.kill();
        let lost = disk.lose_power(&mut dice);
        let when = if early { "early" } else { "late" };
        eprintln!("cut {cut}: {when}, {}ready; {lost} writes lost", if ready { "" } else { "not " });
    }
    let mut machine = place.machine().start();
    machine.says(READY);
    kept.check(client.as_ref().expect("it was ready once"));
    eprintln!("kept: {} maps and {} files", kept.maps.len(), kept.files.len());
}
