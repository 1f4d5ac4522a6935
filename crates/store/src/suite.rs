//! The promises of [`Store`] as tests, to be run against every implementation:
//! `store::suite!(async { … a fresh store … });`. Each test gets a store of its own, empty and at revision 0.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};

use crate::{Error, Event, Expect, Result, Rev, Store, Txn, Write};

/// Makes a `#[tokio::test]` of every test of the suite; the argument is a future of an empty store.
#[macro_export]
macro_rules! suite {
    ($store:expr) => {
        $crate::suite!($store; revisions_count_commits reads_show_their_revision lists_page_in_key_order
            checks_hold_or_nothing_happens one_of_many_racers_wins deletion_forgets_creation
            a_commit_may_touch_a_key_twice compaction_refuses_the_past the_future_is_refused
            watch_tells_backlog_then_news watch_filters_by_prefix watch_from_the_compacted_past_fails
            a_slow_watcher_is_told_when_it_is_compacted_away watchers_miss_nothing_under_load);
    };
    ($store:expr; $($test:ident)*) => {
        $(#[tokio::test]
        async fn $test() {
            $crate::suite::$test($store.await).await;
        })*
    };
}

/// A commit that puts one key.
pub fn put(key: &str, value: &str) -> Txn {
    Txn { checks: vec![], writes: vec![Write::Put(key.into(), Bytes::copy_from_slice(value.as_bytes()))] }
}

/// A commit that deletes one key.
pub fn delete(key: &str) -> Txn {
    Txn { checks: vec![], writes: vec![Write::Delete(key.into())] }
}

/// A commit that puts one key under a condition.
pub fn put_if(key: &str, expect: Expect, value: &str) -> Txn {
    Txn { checks: vec![(key.into(), expect)], ..put(key, value) }
}

/// The next event, which must come within ten seconds.
async fn next(events: &mut BoxStream<'static, Result<Event>>) -> Result<Event> {
    let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    event.expect("an event in time").expect("a stream that goes on")
}

fn told(event: &Event) -> (u64, &str, Option<&[u8]>) {
    match event {
        Event::Put(entry) => (entry.modified.0, &entry.key, Some(&entry.value)),
        Event::Delete { key, rev } => (rev.0, key, None),
    }
}

/// Every commit that changes something takes the next revision, however many keys it writes.
pub async fn revisions_count_commits(store: impl Store) {
    assert_eq!(store.revision().await.unwrap(), Rev(0));
    assert_eq!(store.commit(put("a", "1")).await.unwrap(), Rev(1));
    let two = Txn { writes: [put("b", "1").writes, put("c", "1").writes].concat(), checks: vec![] };
    assert_eq!(store.commit(two).await.unwrap(), Rev(2));
    assert_eq!(store.commit(delete("absent")).await.unwrap(), Rev(2));
    assert_eq!(store.commit(Txn::default()).await.unwrap(), Rev(2));
    assert_eq!(store.commit(delete("a")).await.unwrap(), Rev(3));
    assert_eq!(store.revision().await.unwrap(), Rev(3));
}

/// Get and list show exactly the state of the revision asked for.
pub async fn reads_show_their_revision(store: impl Store) {
    store.commit(put("a", "1")).await.unwrap();
    store.commit(put("a", "2")).await.unwrap();
    store.commit(delete("a")).await.unwrap();
    let value = async |at| store.get("a", at).await.unwrap().map(|e| (e.value, e.created, e.modified));
    assert_eq!(value(Some(Rev(0))).await, None);
    assert_eq!(value(Some(Rev(1))).await, Some(("1".into(), Rev(1), Rev(1))));
    assert_eq!(value(Some(Rev(2))).await, Some(("2".into(), Rev(1), Rev(2))));
    assert_eq!(value(None).await, None);
    let page = store.list("", None, 0, Some(Rev(2))).await.unwrap();
    assert_eq!((page.rev, page.entries.len()), (Rev(2), 1));
    let page = store.list("", None, 0, None).await.unwrap();
    assert_eq!((page.rev, page.entries.len(), page.more), (Rev(3), 0, false));
}

/// A list goes on after a key, in byte order, and tells whether there is more.
pub async fn lists_page_in_key_order(store: impl Store) {
    for key in ["p/b", "p/a", "q", "p/c", "p", "p/\u{e9}"] {
        store.commit(put(key, key)).await.unwrap();
    }
    let keys = async |after: Option<&str>, limit| {
        let page = store.list("p/", after, limit, None).await.unwrap();
        (page.entries.into_iter().map(|e| e.key).collect::<Vec<_>>(), page.more)
    };
    assert_eq!(keys(None, 2).await, (vec!["p/a".into(), "p/b".into()], true));
    assert_eq!(keys(Some("p/b"), 2).await, (vec!["p/c".into(), "p/\u{e9}".into()], false));
    assert_eq!(keys(Some("p/\u{e9}"), 2).await, (vec![], false));
    assert_eq!(keys(Some("a"), 1).await, (vec!["p/a".into()], true));
    assert_eq!(keys(Some("z"), 0).await, (vec![], false));
    assert_eq!(keys(None, 0).await.0.len(), 4);
}

/// A failed check writes nothing, takes no revision and tells what the key holds.
pub async fn checks_hold_or_nothing_happens(store: impl Store) {
    assert_eq!(store.commit(put_if("a", Expect::Absent, "1")).await.unwrap(), Rev(1));
    match store.commit(put_if("a", Expect::Absent, "2")).await {
        Err(Error::Conflict { key, found: Some(found) }) => {
            assert_eq!((key.as_str(), found.value, found.modified), ("a", "1".into(), Rev(1)));
        }
        other => panic!("not a conflict: {other:?}"),
    }
    assert_eq!(store.commit(put_if("a", Expect::Modified(Rev(1)), "2")).await.unwrap(), Rev(2));
    let stale = Txn { writes: put("b", "1").writes, checks: vec![("a".into(), Expect::Modified(Rev(1)))] };
    assert!(matches!(store.commit(stale).await, Err(Error::Conflict { .. })));
    let gone = store.commit(put_if("c", Expect::Modified(Rev(1)), "1")).await;
    assert!(matches!(gone, Err(Error::Conflict { found: None, .. })));
    assert_eq!(store.get("b", None).await.unwrap(), None);
    assert_eq!(store.revision().await.unwrap(), Rev(2));
}

/// Of many commits that expect the same state at once, one succeeds and each other one fails alone.
pub async fn one_of_many_racers_wins(store: impl Store) {
    let racers = (0..50).map(|i| store.commit(put_if("lock", Expect::Absent, if i % 2 == 0 { "even" } else { "odd" })));
    let bystanders = (0..50).map(|i| store.commit(put(["x", "y"][i % 2], "1")));
    let (racers, bystanders) = futures::join!(futures::future::join_all(racers), futures::future::join_all(bystanders));
    assert_eq!(racers.iter().filter(|r| r.is_ok()).count(), 1);
    assert!(bystanders.iter().all(Result::is_ok));
    let mut revs: Vec<_> = racers.into_iter().chain(bystanders).flatten().collect();
    revs.sort();
    assert_eq!(revs, (1..=51).map(Rev).collect::<Vec<_>>());
}

/// A key that is deleted and made again was created at its second making.
pub async fn deletion_forgets_creation(store: impl Store) {
    for txn in [put("a", "1"), delete("a"), put("a", "2"), put("a", "3")] {
        store.commit(txn).await.unwrap();
    }
    let entry = store.get("a", None).await.unwrap().unwrap();
    assert_eq!((entry.created, entry.modified), (Rev(3), Rev(4)));
}

/// The last of several writes to one key counts, and is one event.
pub async fn a_commit_may_touch_a_key_twice(store: impl Store) {
    store.commit(put("a", "0")).await.unwrap();
    let mut events = store.watch("", Rev(1)).await.unwrap();
    let writes = [put("a", "1"), delete("a"), put("b", "1"), put("b", "2"), put("c", "1"), delete("c")];
    let twice = Txn { writes: writes.into_iter().flat_map(|t| t.writes).collect(), checks: vec![] };
    store.commit(twice).await.unwrap();
    store.commit(put("d", "1")).await.unwrap();
    assert_eq!(told(&next(&mut events).await.unwrap()), (2, "a", None));
    assert_eq!(told(&next(&mut events).await.unwrap()), (2, "b", Some(&b"2"[..])));
    assert_eq!(told(&next(&mut events).await.unwrap()), (3, "d", Some(&b"1"[..])));
}

/// Below the compacted revision nothing can be read, at it everything.
pub async fn compaction_refuses_the_past(store: impl Store) {
    for value in ["1", "2", "3"] {
        store.commit(put("a", value)).await.unwrap();
    }
    store.compact(Rev(2)).await.unwrap();
    store.compact(Rev(1)).await.unwrap();
    let below = store.get("a", Some(Rev(1))).await;
    assert!(matches!(below, Err(Error::Compacted { asked: Rev(1), oldest: Rev(2) })), "{below:?}");
    assert!(matches!(store.list("", None, 0, Some(Rev(1))).await, Err(Error::Compacted { .. })));
    assert_eq!(store.get("a", Some(Rev(2))).await.unwrap().unwrap().value, "2");
    assert_eq!(store.get("a", None).await.unwrap().unwrap().value, "3");
}

/// Reads, watches and compactions beyond the newest revision fail.
pub async fn the_future_is_refused(store: impl Store) {
    store.commit(put("a", "1")).await.unwrap();
    let future = |result: Option<Error>| matches!(result, Some(Error::Future { asked: Rev(2), newest: Rev(1) }));
    assert!(future(store.get("a", Some(Rev(2))).await.err()));
    assert!(future(store.list("", None, 0, Some(Rev(2))).await.err()));
    assert!(future(store.watch("", Rev(2)).await.err()));
    assert!(future(store.compact(Rev(2)).await.err()));
}

/// A watch tells what happened since its revision, then what happens.
pub async fn watch_tells_backlog_then_news(store: impl Store) {
    for txn in [put("a", "1"), put("a", "2"), delete("a")] {
        store.commit(txn).await.unwrap();
    }
    let mut events = store.watch("", Rev(1)).await.unwrap();
    assert_eq!(told(&next(&mut events).await.unwrap()), (2, "a", Some(&b"2"[..])));
    store.commit(put("b", "1")).await.unwrap();
    assert_eq!(told(&next(&mut events).await.unwrap()), (3, "a", None));
    match next(&mut events).await.unwrap() {
        Event::Put(entry) => assert_eq!((entry.created, entry.modified), (Rev(4), Rev(4))),
        other => panic!("not a put: {other:?}"),
    }
}

/// A watch tells of its keys only.
pub async fn watch_filters_by_prefix(store: impl Store) {
    let mut events = store.watch("p/", Rev(0)).await.unwrap();
    for key in ["p", "p/a", "q/a", "p/b"] {
        store.commit(put(key, "1")).await.unwrap();
    }
    assert_eq!(told(&next(&mut events).await.unwrap()).1, "p/a");
    assert_eq!(told(&next(&mut events).await.unwrap()).1, "p/b");
}

/// A watch may start at the compacted revision, not before.
pub async fn watch_from_the_compacted_past_fails(store: impl Store) {
    for value in ["1", "2", "3"] {
        store.commit(put("a", value)).await.unwrap();
    }
    store.compact(Rev(2)).await.unwrap();
    assert!(matches!(store.watch("", Rev(1)).await.err(), Some(Error::Compacted { asked: Rev(1), oldest: Rev(2) })));
    let mut events = store.watch("", Rev(2)).await.unwrap();
    assert_eq!(told(&next(&mut events).await.unwrap()), (3, "a", Some(&b"3"[..])));
}

/// A watcher that does not read loses nothing silently: it reads on, or is told and ends.
pub async fn a_slow_watcher_is_told_when_it_is_compacted_away(store: impl Store) {
    store.commit(put("a", "0")).await.unwrap();
    let mut events = store.watch("", Rev(0)).await.unwrap();
    assert_eq!(told(&next(&mut events).await.unwrap()).0, 1);
    for _ in 0..200 {
        store.commit(put("a", &"x".repeat(10_000))).await.unwrap();
    }
    store.compact(Rev(150)).await.unwrap();
    let mut seen = 1;
    loop {
        match next(&mut events).await {
            Ok(event) => assert_eq!(std::mem::replace(&mut seen, event.rev().0) + 1, event.rev().0),
            Err(Error::Compacted { oldest: Rev(150), .. }) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(seen < 201, "compacted away and never told");
    }
    assert!(events.next().await.is_none());
}

/// Watchers that start at any time under load see every revision once, in order.
pub async fn watchers_miss_nothing_under_load(store: impl Store) {
    let store = std::sync::Arc::new(store);
    let writers = (0..8).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for i in 0..100 {
                store.commit(put(&format!("{writer}/{}", i % 7), &"v".repeat(2000))).await.unwrap();
            }
        })
    });
    let watchers = (0..5).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let from = store.revision().await.unwrap();
            let mut events = store.watch("", from).await.unwrap();
            for rev in from.0 + 1..=800 {
                assert_eq!(next(&mut events).await.unwrap().rev(), Rev(rev));
                tokio::task::yield_now().await;
            }
        })
    });
    for task in writers.chain(watchers).collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
