//! The store's file.
#![no_main]

use store::{Embedded, Store, Txn, Write};

fuzz::program!(&[("log", log)]);

/// What opens can be read, written, and opened again.
fn log(bytes: &[u8]) {
    let path = fuzz::dir().join("store");
    std::fs::write(&path, bytes).expect("there is room");
    let Ok(store) = Embedded::open(&path) else { return };
    fuzz::wait(async {
        let _damaged = store.list("", None, 0, None).await;
        let put = Txn { checks: vec![], writes: vec![Write::Put("key".into(), "value".into())] };
        if let Ok(rev) = store.commit(put).await {
            drop(store);
            let again = Embedded::open(&path).expect("what was written opens");
            assert_eq!(again.revision().await.expect("it is open"), rev);
        }
    });
}
