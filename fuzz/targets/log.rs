//! The store's file: what opens can be read, written, and opened again.
#![no_main]
use std::{fs, sync::LazyLock};

use store::{Embedded, Store, Txn, Write};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().expect("one"));
static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").expect("a directory"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = DIR.path().join("store");
    fs::write(&path, bytes).expect("there is room");
    let Ok(store) = Embedded::open(&path) else { return };
    RUNTIME.block_on(async {
        let _damaged = store.list("", None, 0, None).await;
        let put = Txn { checks: vec![], writes: vec![Write::Put("key".into(), "value".into())] };
        if let Ok(rev) = store.commit(put).await {
            drop(store);
            let again = Embedded::open(&path).expect("what was written opens");
            assert_eq!(again.revision().await.expect("it is open"), rev);
        }
    });
});
