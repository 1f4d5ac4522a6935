//! What clouds and their users' files say.
#![no_main]

fuzz::program!(&[
    ("clouds", clouds),
    ("project", |bytes| drop(serde_json::from_slice(bytes).map(|answers| cloud::fuzzing::project(&answers)))),
    ("words", cloud::fuzzing::words),
]);

fn clouds(bytes: &[u8]) {
    std::fs::write(fuzz::dir().join("clouds.yaml"), bytes).expect("there is room");
    let environment = cloud::Environment::new([], [fuzz::dir().to_owned()]);
    for name in [None, Some("a")] {
        let _refused = cloud::Config::find(name, &environment);
    }
}
