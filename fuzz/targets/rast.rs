//! What the program reads of its own host. It is no library: its files are included.
#![no_main]
#![allow(dead_code, reason = "the program uses the rest of these files")]

#[path = "../../crates/rast/src/exit.rs"]
mod exit;
#[path = "../../crates/rast/src/host.rs"]
mod host;
#[path = "../../crates/rast/src/settings.rs"]
mod settings;

fuzz::program!(&[
    ("settings", |bytes| {
        let file = fuzz::dir().join("config.yaml");
        std::fs::write(&file, bytes).expect("there is room");
        let _refused = settings::Settings::read(&file);
    }),
    ("kubeconfig", |bytes| fuzz::text(bytes, |text| drop(kube::config::Kubeconfig::from_yaml(text)))),
]);
