//! What registries and archives send.
#![no_main]

fuzz::program!(&[
    ("reference", fuzz::round::<images::Reference>),
    ("manifest", images::fuzzing::manifest),
    ("layer", |bytes| images::fuzzing::layer(bytes, fuzz::dir())),
    ("archive", |bytes| images::fuzzing::archive(bytes, fuzz::dir())),
    ("refusal", images::fuzzing::refusal),
    ("credentials", |bytes| {
        let reference = "registry.example:5000/a/b:1".parse().expect("a reference");
        let _ = images::Keyring::parse(bytes).map(|keyring| keyring.matching(&reference));
    }),
]);
