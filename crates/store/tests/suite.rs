//! The suite, run against every implementation, and random histories that must look the same on all of them.

use std::sync::Arc;

use futures::StreamExt;
use proptest::prelude::*;
use store::{Embedded, Error, Event, Expect, Memory, Rev, Store, Txn, Write};

mod memory {
    store::suite!(async { store::Memory::default() });
}

mod embedded {
    store::suite!(async { super::Temp::new() });
}

/// An embedded store in a directory that goes with it.
struct Temp(Embedded, #[allow(dead_code, reason = "removes the directory when dropped")] tempfile::TempDir);

impl Temp {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self(Embedded::open(dir.path().join("store")).unwrap(), dir)
    }
}

#[async_trait::async_trait]
impl Store for Temp {
    async fn revision(&self) -> store::Result<Rev> {
        self.0.revision().await
    }
    async fn get(&self, key: &str, at: Option<Rev>) -> store::Result<Option<store::Entry>> {
        self.0.get(key, at).await
    }
    async fn list(&self, p: &str, after: Option<&str>, n: usize, at: Option<Rev>) -> store::Result<store::Page> {
        self.0.list(p, after, n, at).await
    }
    async fn commit(&self, txn: Txn) -> store::Result<Rev> {
        self.0.commit(txn).await
    }
    async fn watch(
        &self,
        p: &str,
        from: Rev,
    ) -> store::Result<futures::stream::BoxStream<'static, store::Result<Event>>> {
        self.0.watch(p, from).await
    }
    async fn compact(&self, rev: Rev) -> store::Result<()> {
        self.0.compact(rev).await
    }
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Txn),
    Compact(f64),
    Reopen,
}

fn key() -> impl Strategy<Value = String> {
    "[ab]/[a-d]"
}

fn step() -> impl Strategy<Value = Step> {
    let check = (key(), prop_oneof![Just(Expect::Absent), (0u64..30).prop_map(|r| Expect::Modified(Rev(r)))]);
    let write = prop_oneof![
        3 => (key(), 0usize..2_000, any::<u8>()).prop_map(|(k, n, b)| Write::Put(k, vec![b; n].into())),
        1 => key().prop_map(Write::Delete),
    ];
    let txn = (prop::collection::vec(check, 0..2), prop::collection::vec(write, 0..4));
    prop_oneof![
        20 => txn.prop_map(|(checks, writes)| Step::Commit(Txn { checks, writes })),
        3 => (0.0..=1.0).prop_map(Step::Compact),
        2 => Just(Step::Reopen),
    ]
}

/// What a caller can see of a result.
fn seen<T: std::fmt::Debug>(result: store::Result<T>) -> String {
    format!("{result:?}")
}

async fn compare(one: &dyn Store, other: &dyn Store) {
    let newest = one.revision().await.unwrap();
    assert_eq!(newest, other.revision().await.unwrap());
    for at in (0..=newest.0 + 1).map(|r| Some(Rev(r))).chain([None]) {
        for (prefix, after, limit) in [("", None, 0), ("a/", Some("a/b"), 2), ("b/", None, 1)] {
            let (left, right) = (one.list(prefix, after, limit, at).await, other.list(prefix, after, limit, at).await);
            assert_eq!(seen(left), seen(right), "list {prefix} after {after:?} at {at:?}");
        }
        assert_eq!(seen(one.get("a/a", at).await), seen(other.get("a/a", at).await));
    }
}

async fn compare_watches(one: &dyn Store, other: &dyn Store) {
    let newest = one.revision().await.unwrap();
    let mut told = vec![];
    for store in [one, other] {
        let mut all = vec![];
        for from in 0..newest.0 {
            match store.watch("a/", Rev(from)).await {
                Err(error) => all.push(format!("{error:?}")),
                Ok(stream) => {
                    // A marker beyond the prefix cannot be seen, so stop at the newest event under it.
                    let last = newest_under(store, "a/").await;
                    if last.0 > from {
                        let mut stream = stream;
                        loop {
                            let event = stream.next().await.unwrap().unwrap();
                            all.push(format!("{from} {event:?}"));
                            if event.rev() == last && event.key() == "a/~" {
                                break;
                            }
                        }
                    }
                }
            }
        }
        told.push(all);
    }
    assert_eq!(told[0], told[1]);
}

async fn newest_under(store: &dyn Store, prefix: &str) -> Rev {
    let page = store.list(prefix, None, 0, None).await.unwrap();
    page.entries.iter().map(|e| e.modified).max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_look_alike(steps in prop::collection::vec(step(), 1..40)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            let model = Memory::default();
            let mut store = Embedded::open(&path).unwrap();
            for step in steps {
                match step {
                    Step::Commit(txn) => {
                        prop_assert_eq!(seen(store.commit(txn.clone()).await), seen(model.commit(txn).await));
                    }
                    Step::Compact(share) => {
                        let rev = Rev((model.revision().await.unwrap().0 as f64 * share) as u64);
                        prop_assert_eq!(seen(store.compact(rev).await), seen(model.compact(rev).await));
                    }
                    Step::Reopen => {
                        drop(store);
                        store = Embedded::open(&path).unwrap();
                    }
                }
            }
            compare(&store, &model).await;
            for s in [&store as &dyn Store, &model] {
                s.commit(store::suite::put("a/~", "end")).await.unwrap();
            }
            compare_watches(&store, &model).await;
            drop(store);
            let store = Embedded::open(&path).unwrap();
            compare(&store, &model).await;
            compare_watches(&store, &model).await;
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn the_file_shrinks_while_commits_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Arc::new(Embedded::open(&path).unwrap());
    store.commit(store::suite::put("kept", "for ever")).await.unwrap();
    let mut largest = 0;
    let value = "x".repeat(64 << 10);
    // Each pass writes as much as calls for a rewrite; the file stays near that size only if it is rewritten.
    for _ in 0..30 {
        for i in 0..30 {
            store.commit(store::suite::put(&format!("k{}", i % 5), &value)).await.unwrap();
        }
        let newest = store.revision().await.unwrap();
        store.compact(Rev(newest.0 - 3)).await.unwrap();
        largest = largest.max(store.size());
    }
    assert!(largest < 30 << 20, "{largest} bytes: never rewritten");
    let kept = store.get("kept", None).await.unwrap().unwrap();
    assert_eq!((&kept.value[..], kept.created), (&b"for ever"[..], Rev(1)));
    drop(store);
    assert!(!dir.path().join("store.new").exists());
    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.get("kept", None).await.unwrap(), Some(kept));
    assert_eq!(store.revision().await.unwrap(), Rev(901));
    assert!(matches!(store.get("kept", Some(Rev(800))).await, Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_rewritten_file_shows_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path().join("store")).unwrap();
    let model = Memory::default();
    for i in 0..60 {
        let txn = store::suite::put(&format!("a/{}", i % 5), &format!("{i} {}", "x".repeat(64 << 10)));
        store.commit(txn.clone()).await.unwrap();
        model.commit(txn).await.unwrap();
    }
    for s in [&store as &dyn Store, &model] {
        s.compact(Rev(57)).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while store.size() > 1 << 20 {
        assert!(tokio::time::Instant::now() < deadline, "never rewritten: {} bytes", store.size());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    compare(&store, &model).await;
    for s in [&store as &dyn Store, &model] {
        s.commit(store::suite::put("a/~", "end")).await.unwrap();
    }
    compare_watches(&store, &model).await;
    compare(&store, &model).await;
}
