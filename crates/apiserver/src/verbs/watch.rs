//! Changes as they happen: newline-delimited JSON events.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::header;
use rand::RngExt;
use serde_json::{Value, json};
use store::Rev;
use tokio::{sync::watch, time::Instant};

use super::{
    list::{prefix, revision},
    options,
};
use crate::{
    Result, Server,
    cache::{Change, Item, Shelf},
    call::Call,
    selector::Selector,
    wire::{
        JSON,
        accept::Form,
        table::{self, Include},
    },
};

/// How often those who want bookmarks get one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);

/// A watch in progress.
struct Watcher {
    server: Server,
    kind: Arc<api::Kind>,
    shelf: Arc<Shelf>,
    changed: watch::Receiver<()>,
    prefix: String,
    selector: Selector,
    form: Form,
    include: Include,
    /// Everything up to here is told.
    cursor: Rev,
    bookmarks: Option<Instant>,
    until: Instant,
    pending: VecDeque<Bytes>,
    /// Whether a table with column definitions has been sent.
    columns_sent: bool,
    done: bool,
}

/// Answers with a stream of events.
pub(super) async fn run(call: &Call) -> Result<Response> {
    options::list(call, true)?;
    let (selector, shelf) = (call.selector()?, call.shelf()?.clone());
    // A list that is streamed is for those who keep the objects: like upstream, they are not given tables of them.
    let streamed = call.flag("sendInitialEvents") && call.flag("allowWatchBookmarks");
    let form = if streamed { Form::without_tables(&call.headers)? } else { Form::of(&call.headers)? };
    let rv = revision(call.query("resourceVersion"))?;
    let initial = match call.given("sendInitialEvents") {
        true => call.flag("sendInitialEvents"),
        false => rv.is_none_or(|rev| rev == Rev(0)),
    };
    let cache = call.server.cache();
    let applied = match rv {
        None | Some(Rev(0)) => cache.fresh().await?,
        Some(rev) => cache.named(rev).await?,
    };
    let seconds = match call.number("timeoutSeconds")? {
        Some(seconds) if seconds > 0 => seconds.min(24 * 3600),
        // Spread out, so that watches begun together do not come back together.
        _ => rand::rng().random_range(1800..3600),
    };
    let mut watcher = Watcher {
        server: call.server.clone(),
        kind: call.kind.clone(),
        changed: shelf.subscribe(),
        prefix: prefix(call),
        form,
        include: Include::of(call.query("includeObject"))?,
        cursor: rv.filter(|rev| *rev > Rev(0)).unwrap_or(applied),
        bookmarks: call.flag("allowWatchBookmarks").then(|| Instant::now() + BOOKMARK_PERIOD),
        until: Instant::now() + Duration::from_secs(seconds),
        pending: VecDeque::new(),
        columns_sent: false,
        done: false,
        selector,
        shelf,
    };
    if initial {
        watcher.begin(applied);
        if streamed {
            watcher.bookmark(true);
        }
    }
    let events = futures::stream::unfold(watcher, |mut watcher| async {
        watcher.next().await.map(|bytes| (Ok::<_, std::convert::Infallible>(bytes), watcher))
    });
    let response = Response::builder().header(header::CONTENT_TYPE, JSON);
    Ok(response.body(Body::from_stream(events)).unwrap_or_default())
}

impl Watcher {
    /// Everything there is, as if it were added now.
    fn begin(&mut self, applied: Rev) {
        let selector = &self.selector;
        let (items, _, rev) = self.shelf.list(&self.prefix, None, 0, applied, |i| i.is_selected(selector));
        items.iter().for_each(|item| self.push("ADDED", item));
        self.cursor = rev;
    }

    /// The next piece of the answer; waits for it. `None` when the time is up.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.pending.pop_front() {
                return Some(bytes);
            }
            if self.done {
                return None;
            }
            self.changed.mark_unchanged();
            let applied = self.server.cache().applied();
            match self.shelf.changes(self.cursor, applied) {
                Ok((changes, rev)) => {
                    changes.iter().for_each(|change| self.tell(change));
                    self.cursor = rev;
                }
                Err(error) => {
                    self.pending.push_back(event("ERROR", &error.status()));
                    self.done = true;
                }
            }
            if self.bookmarks.is_some_and(|due| due <= Instant::now()) {
                self.bookmark(false);
                self.bookmarks = Some(Instant::now() + BOOKMARK_PERIOD);
            }
            if self.pending.is_empty() {
                let wake = self.bookmarks.unwrap_or(self.until).min(self.until);
                tokio::select! {
                    _ = self.changed.changed() => {}
                    () = tokio::time::sleep_until(wake) => self.done = Instant::now() >= self.until,
                    () = self.server.stopping() => self.done = true,
                }
            }
        }
    }

    /// A change, as it looks through the selector.
    fn tell(&mut self, change: &Change) {
        if !change.item.key.starts_with(&self.prefix) {
            return;
        }
        let was = change.prev.as_ref().is_some_and(|p| p.is_selected(&self.selector));
        let is = !change.deleted && change.item.is_selected(&self.selector);
        match (was, is, &change.prev) {
            (false, true, _) => self.push("ADDED", &change.item),
            (true, true, _) => self.push("MODIFIED", &change.item),
            (true, false, Some(prev)) if !change.deleted => {
                let left = prev.deleted(&self.kind, change.item.rev);
                self.push("DELETED", &left);
            }
            (true, false, _) => self.push("DELETED", &change.item),
            (false, false, _) => {}
        }
    }

    fn push(&mut self, what: &'static str, item: &Item) {
        if self.form == Form::Plain {
            let open = match what {
                "ADDED" => &br#"{"type":"ADDED","object":"#[..],
                "MODIFIED" => br#"{"type":"MODIFIED","object":"#,
                _ => br#"{"type":"DELETED","object":"#,
            };
            return self.pending.extend([Bytes::from_static(open), item.line()]);
        }
        let object = self.shaped(item.object());
        self.pending.push_back(event(what, &object));
    }

    /// Tells how far the watch is; `initial` ends the initial events.
    fn bookmark(&mut self, initial: bool) {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string(), "creationTimestamp": null});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mark = json!({"kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata});
        let mark = self.shaped(mark);
        self.pending.push_back(event("BOOKMARK", &mark));
    }

    /// An object in the form asked for; the columns of a table are told once.
    fn shaped(&mut self, object: Value) -> Value {
        match self.form {
            Form::Plain => object,
            Form::Partial => table::partial(&object),
            Form::Table(version) => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let rows = std::iter::once(object);
                table::table(&self.kind, version, metadata, rows, self.include, first, self.server.now())
            }
        }
    }
}

fn event(what: &str, object: &Value) -> Bytes {
    format!("{{\"type\":\"{what}\",\"object\":{object}}}\n").into()
}
