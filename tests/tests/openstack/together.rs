//! Two laptops at work on one cluster.

use std::process::Stdio;

use crate::{
    faults::{DOWN, Life},
    text,
};

/// A verb on both at once, which ends well on both.
fn both(life: &Life, args: &[&str]) {
    let homes = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let runs = homes.each_ref().map(|home| {
        let mut run = life.project.laptop(home.path()).arg("cloud").command(args);
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rast runs")
    });
    for run in runs {
        let output = run.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn two_laptops_make_and_remove_one_cluster() {
    let life = Life::new("two");
    both(&life, &life.up());
    life.is_whole();
    both(&life, &DOWN);
    life.is_gone();
}
