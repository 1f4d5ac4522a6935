//! A cluster in the cloud of `make devcloud`, beside the same stacks made by OpenStack's own client.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::{
    figure::{Row, Times},
    peers,
};

const PLANS: usize = 5;
const ROUNDS: usize = 3;

const TINY: &str = "
apiVersion: rastos.io/v1alpha1
kind: Cluster
metadata: {name: tiny}
spec: {image: {name: guest}, flavor: r1.tiny, state: {size: 1Gi}}
";

pub async fn measure() -> Result<Vec<Row>> {
    block_in_place(|| {
        let cloud = Cloud::new()?;
        let mut rows = cloud.stacks()?;
        rows.extend(cloud.whole_path()?);
        Ok(rows)
    })
}

/// A project of its own, deleted with what it holds.
struct Cloud {
    devcloud: PathBuf,
    project: String,
    home: TempDir,
    /// It was down, and goes down again.
    ours: bool,
}

impl Cloud {
    fn new() -> Result<Self> {
        let devcloud = std::env::var_os("RAST_CLOUD").context("RAST_CLOUD is set by scripts/bench")?.into();
        let project = format!("bench-{}", std::process::id());
        let mut cloud = Self { devcloud, project, home: tempfile::tempdir_in(peers::dir()?)?, ours: false };
        if done(cloud.devcloud(&["status"])).is_err() {
            cloud.ours = true;
            done(cloud.devcloud(&["up"]))?;
        }
        fs::write(cloud.home.path().join("clouds.yaml"), said(cloud.devcloud(&["project", &cloud.project]))?)?;
        fs::write(cloud.home.path().join("tiny.yaml"), TINY)?;
        Ok(cloud)
    }

    fn devcloud(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.devcloud);
        command.args(args).current_dir(self.home.path());
        command
            .env("OS_CLIENT_CONFIG_FILE", self.home.path().join("clouds.yaml"))
            .env("OS_CLOUD", &self.project)
            .env("XDG_CONFIG_HOME", self.home.path());
        command
    }

    fn rast(&self, args: &[&str]) -> Result<Command> {
        let program = fs::canonicalize(std::env::var("RAST_PROGRAM")?)?;
        let mut command = self.devcloud(&["in"]);
        command.arg(program).arg("cloud").args(args);
        Ok(command)
    }

    fn openstack(&self, args: &[&str]) -> Command {
        self.devcloud(&[&["in", "openstack"], args].concat())
    }

    /// The two stacks, made by us and by the plain client from the same templates, with an image that is there already.
    fn stacks(&self) -> Result<Vec<Row>> {
        let (mut plans, mut ours, mut plain) = (Times::default(), Times::default(), Times::default());
        let mut calls = String::new();
        for _ in 0..PLANS {
            let began = Instant::now();
            calls = calls_of(&said(self.rast(&["plan", "-f", "tiny.yaml"])?)?)?;
            plans.add(began.elapsed());
        }
        said(self.rast(&["template", "-f", "tiny.yaml"])?)?;
        for round in 0..ROUNDS {
            for ours_now in [round % 2 == 0, round % 2 != 0] {
                let began = Instant::now();
                if ours_now {
                    said(self.rast(&["up", "-f", "tiny.yaml", "--no-wait"])?)?;
                    ours.add(began.elapsed());
                    said(self.rast(&["down", "tiny", "--yes"])?)?;
                } else {
                    self.create()?;
                    plain.add(began.elapsed());
                    for stack in ["rastos-tiny", "rastos-tiny-state"] {
                        said(self.openstack(&["stack", "delete", "--wait", "--yes", stack]))?;
                    }
                }
            }
        }
        let (ratio, ratio_min) = ours.over(&plain);
        Ok(vec![
            Row::judged(
                "cloud plan",
                "<= 3 s",
                plans.median() <= 3000.0,
                format!("{}, {calls} API calls", plans.words()),
                String::new(),
            ),
            Row::judged(
                "cloud up, to the stacks' end",
                "<= 1.1x",
                ratio <= 1.1,
                format!("{ratio:.2}x (min {ratio_min:.2}x): {}", ours.words()),
                format!("openstack stack create --wait, twice: {}", plain.words()),
            ),
        ])
    }

    /// What `rast cloud template` says to do.
    fn create(&self) -> Result<()> {
        let external = "external_network=public";
        let make = ["stack", "create", "--wait", "--poll", "1", "-t"];
        let state = ["rastos-tiny-state.yaml", "--parameter", external, "rastos-tiny-state"];
        said(self.openstack(&[&make[..], &state].concat()))?;
        let output = |name| {
            let show = ["stack", "output", "show", "-f", "value", "-c", "output_value", "rastos-tiny-state", name];
            said(self.openstack(&show))
        };
        let (volume, address) = (output("volume")?, output("address_id")?);
        let volume = volume.trim();
        let given = [
            external.to_owned(),
            format!("address={}", address.trim()),
            format!("state_volume={volume}"),
            format!("state_serial={}", &volume[..20]),
            "machine_0_image=guest".to_owned(),
            "machine_0_flavor=r1.tiny".to_owned(),
        ];
        let mut command = self.openstack(&make);
        command.arg("rastos-tiny.yaml").args(given.iter().flat_map(|p| ["--parameter", p])).arg("rastos-tiny");
        said(command).map(drop)
    }

    /// From an empty project to the page of an app, on our own image.
    fn whole_path(&self) -> Result<Vec<Row>> {
        let image = std::env::var("RAST_BENCH_IMAGE").context("RAST_BENCH_IMAGE is set by scripts/bench")?;
        let examples = |name: &str| fs::read_to_string(format!("examples/{name}")).context("run from the repository");
        let cluster = examples("cluster.yaml")?.replace("IMAGE", &format!("{image}/disk.qcow2"));
        fs::write(self.home.path().join("light.yaml"), cluster)?;
        fs::write(self.home.path().join("app.yaml"), examples("cloud-app.yaml")?)?;

        let began = Instant::now();
        let output = done(self.rast(&["up", "-f", "light.yaml", "-f", "app.yaml"])?)?;
        let text = String::from_utf8(output.stdout)?;
        let address = between(&text, " is up at ", " ")?;
        self.answers(address)?;
        let all = began.elapsed().as_secs_f64();
        let cloud: f64 =
            between(&String::from_utf8(output.stderr)?, "the cloud's part is done after ", " s")?.parse()?;
        let own = all - cloud;

        let began = Instant::now();
        let down = said(self.rast(&["down", "light", "--yes"])?)?;
        Ok(vec![
            Row::judged(
                "empty project -> app answers, our own share",
                "<= 60 s",
                own <= 60.0,
                format!("{own:.1} s of {all:.1} s, {} API calls", calls_of(&text)?),
                format!("Heat, Nova, Glance: {cloud:.1} s"),
            ),
            Row::told(
                "cloud down",
                format!("{:.1} s, {} API calls", began.elapsed().as_secs_f64(), calls_of(&down)?),
                String::new(),
            ),
        ])
    }

    fn answers(&self, address: &str) -> Result<()> {
        let url = format!("http://{address}/");
        let patient = ["--retry", "60", "--retry-delay", "1", "--retry-connrefused", "--max-time", "60"];
        let mut curl = self.devcloud(&["in", "curl", "--fail", "--silent"]);
        curl.args(patient).arg(url);
        said(curl).map(drop)
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _what_is_left_is_named_after_the_run = done(self.devcloud(&["project-delete", &self.project]));
        if self.ours {
            let _its_state_may_stay = done(self.devcloud(&["down"]));
        }
    }
}

fn done(mut command: Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

fn said(command: Command) -> Result<String> {
    Ok(String::from_utf8(done(command)?.stdout)?)
}

fn calls_of(text: &str) -> Result<String> {
    let number = text.split_once(" API calls").and_then(|(before, _)| before.rsplit_once('('));
    number.map(|(_, number)| number.to_owned()).with_context(|| format!("{text:?} counts no API calls"))
}

/// What stands after the first `before`, up to the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(after)).map(|(found, _)| found);
    found.with_context(|| format!("{text:?} has nothing between {before:?} and {after:?}"))
}
