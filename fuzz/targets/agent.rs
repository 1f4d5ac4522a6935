//! What containers say.
#![no_main]

fuzz::program!(&[
    ("log", |bytes| agent::fuzzing::log(bytes, fuzz::dir())),
    ("answer", agent::fuzzing::answer),
]);
