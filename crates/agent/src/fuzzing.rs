//! Parsers of what containers say, for `fuzz/`.

use std::{fs, path::Path};

use crate::{
    logs::{Query, Reader},
    message, probe,
};

/// A container's log, in `dir`: the end of it is the end of all of it.
pub fn log(bytes: &[u8], dir: &Path) {
    let file = dir.join("0.log");
    fs::write(&file, bytes).expect("there is room");
    let read = |query| {
        let mut reader = Reader::open(&file, query).expect("it is a file");
        std::iter::from_fn(move || reader.read().expect("it can be read")).flatten().collect::<Vec<u8>>()
    };
    let all = read(Query::default());
    for tail in [0, 1, 3] {
        let end = read(Query { tail: Some(tail), ..Query::default() });
        assert!(all.ends_with(&end), "the last {tail} lines");
    }
    let few = read(Query { limit: Some(10), timestamps: true, stream: Some(b"stderr".into()), ..Query::default() });
    assert!(few.len() <= 10, "more than was asked for");
    message::tail(&file).expect("it can be read");
    message::read(Some(&file), &file, true, true);
}

/// What a probed container answers: a place to look instead, a gRPC frame.
pub fn answer(bytes: &[u8]) {
    probe::serving(bytes);
    let base = "http://10.0.0.1:80/a".parse().expect("an address");
    if let Ok(to) = std::str::from_utf8(bytes) {
        let _refused = probe::join(&base, to);
    }
}
