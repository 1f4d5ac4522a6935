//! A client's side of exec, attach and port-forward.
#![no_main]

fuzz::program!(&[
    ("spdy", |bytes| fuzz::wait(stream::fuzzing::spdy(bytes))),
    ("headers", stream::fuzzing::headers),
    ("websocket", |bytes| fuzz::wait(stream::fuzzing::websocket(bytes))),
    ("message", stream::fuzzing::message),
]);
