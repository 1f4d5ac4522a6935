//! The helper's protocol, and what images and hosts hold for it, for `fuzz/`.

use std::io::Write as _;

use crate::{
    User,
    protocol::{Call, Hello, Message, Request},
    seccomp, spec, user,
    wire::Inbox,
};

/// Frames as either side may get them.
pub fn protocol(bytes: &[u8]) {
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().expect("a pair of sockets");
    let mut inbox = Inbox::default();
    for chunk in bytes.chunks(1 << 12) {
        theirs.write_all(chunk).expect("there is room");
        inbox.fill(&ours).expect("it is there");
        while let Ok(Some((body, _))) = inbox.next() {
            frame(&body);
        }
    }
}

/// What a frame holds.
pub fn frame(body: &[u8]) {
    let _other = (serde_json::from_slice::<Hello>(body), serde_json::from_slice::<Message>(body));
    match serde_json::from_slice::<Call<Request>>(body) {
        Ok(Call { request: Request::Start(container), .. }) => drop(spec::check_container(&container)),
        Ok(Call { request: Request::MakeSandbox(sandbox), .. }) => drop(spec::check_sandbox(&sandbox)),
        _ => {}
    }
}

/// A user and the image's account files, with zero bytes in between.
pub fn user(text: &str) {
    let mut parts = text.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    if let Ok(user) = user::look_up(&User { spec: next().into(), ..User::default() }, next(), next()) {
        let ids = user.groups.iter().chain([&user.uid, &user.gid]);
        ids.for_each(|id| assert!(*id <= i32::MAX as u32, "{user:?}"));
    }
}

/// A seccomp profile of the host's.
pub fn profile(bytes: &[u8]) {
    let _refused = serde_json::from_slice(bytes).map(|profile| seccomp::from_oci(&profile));
}
