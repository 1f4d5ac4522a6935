//! What `rast` and its helper say to each other, and what images and hosts hold for the helper.
#![no_main]

fuzz::program!(&[
    ("frames", runtime::fuzzing::protocol),
    ("message", runtime::fuzzing::frame),
    ("user", |bytes| fuzz::text(bytes, runtime::fuzzing::user)),
    ("profile", runtime::fuzzing::profile),
]);
