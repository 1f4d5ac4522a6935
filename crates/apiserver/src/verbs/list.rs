//! Many objects, page by page.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use serde_json::json;
use store::Rev;

use super::{options, page::Token};
use crate::{
    ApiError, Result,
    cache::Item,
    call::{Call, json_response},
    selector::Selector,
    wire::{
        accept::Form,
        list,
        table::{self, Include},
    },
};

/// Entries read from the store at a time when an old revision is listed.
const CHUNK: usize = 500;

/// One page of a list.
struct Page {
    items: Vec<Arc<Item>>,
    /// Objects after this page.
    remaining: usize,
    rev: Rev,
}

/// Answers with a list. All pages of it show one revision; when that is compacted away: 410.
pub(super) async fn run(call: &Call) -> Result<Response> {
    options::list(call, false)?;
    let selector = call.selector()?;
    let limit = call.number("limit")?.unwrap_or(0) as usize;
    let page = page(call, &selector, limit).await?;
    let next =
        page.items.last().filter(|_| page.remaining > 0).map(|last| Token::new(Some(page.rev), &last.key).encode());
    let remaining = Some(page.remaining).filter(|_| selector.is_all());
    let mut head = list::head(&call.kind, page.rev, next, remaining);
    let objects = page.items.iter().map(|item| item.object());
    match Form::of(&call.headers)? {
        Form::Plain => Ok(list::respond(&head, page.items, &call.headers)),
        Form::Table(version) => {
            let include = Include::of(call.query("includeObject"))?;
            let table = table::table(&call.kind, version, head["metadata"].take(), objects, include, true, call.now);
            Ok(json_response(StatusCode::OK, table.to_string().into()))
        }
        Form::Partial => {
            head["kind"] = json!("PartialObjectMetadataList");
            head["apiVersion"] = json!("meta.k8s.io/v1");
            head["items"] = objects.map(|o| table::partial(&o)).collect();
            Ok(json_response(StatusCode::OK, head.to_string().into()))
        }
    }
}

async fn page(call: &Call, selector: &Selector, limit: usize) -> Result<Page> {
    let cache = call.server.cache();
    let (rv, how, token) = (call.query("resourceVersion"), call.query("resourceVersionMatch"), call.query("continue"));
    if !token.is_empty() {
        if !matches!(rv, "" | "0") {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let token = Token::decode(token)?;
        let rev = match token.rev() {
            Some(rev) => cache.named(rev).await.map(|_| rev)?,
            None => cache.fresh().await?,
        };
        let page = at(call, selector, limit, Some(&token.after), rev).await;
        return page.map_err(|error| if error.code == StatusCode::GONE { cut_off(&token) } else { error });
    }
    let applied = match (revision(rv)?, how) {
        (None | Some(Rev(0)), _) => cache.fresh().await?,
        // A page of a revision is a page of just that one, as it was before clients could say how they mean it.
        (Some(rev), how) if how == "Exact" || how.is_empty() && limit > 0 => {
            cache.named(rev).await?;
            return at(call, selector, limit, None, rev).await;
        }
        (Some(rev), _) => cache.named(rev).await?,
    };
    let (items, rest, rev) = call.shelf()?.list(&prefix(call), None, limit, applied, |i| i.is_selected(selector));
    Ok(Page { items, remaining: rest, rev })
}

/// What a list is told whose revision is not kept any more.
fn cut_off(token: &Token) -> ApiError {
    let message = "the revision of this list is not kept any more: list again from the beginning, or get the rest as it \
                   is now by the continue token in the metadata of this answer";
    let rest = Token::new(None, &token.after).encode();
    ApiError { details: json!({"continue": rest}), ..ApiError::gone(message) }
}

/// A page at an exact revision: from the cache while nothing has changed since, else from the store.
async fn at(call: &Call, selector: &Selector, limit: usize, after: Option<&str>, rev: Rev) -> Result<Page> {
    let shelf = call.shelf()?;
    let (items, rest, last) = shelf.list(&prefix(call), after, limit, Rev(0), |i| i.is_selected(selector));
    if last <= rev {
        // What is not kept any more is refused even where nothing has changed since: one rule for all.
        call.server.config().store.get(&call.kind.key("", ""), Some(rev)).await?;
        return Ok(Page { items, remaining: rest, rev });
    }
    let (store, root) = (&call.server.config().store, call.kind.key("", ""));
    let prefix = format!("{root}{}", self::prefix(call));
    let mut from = after.map(|after| format!("{root}{after}"));
    let (mut items, mut remaining) = (Vec::new(), 0);
    loop {
        let chunk = store.list(&prefix, from.as_deref(), CHUNK, Some(rev)).await?;
        from = chunk.entries.last().map(|e| e.key.clone());
        for entry in &chunk.entries {
            let item = Item::read(&call.kind, &entry.key, &entry.value, entry.modified)?;
            if !item.is_selected(selector) {
                continue;
            }
            if limit > 0 && items.len() == limit {
                remaining += 1;
            } else {
                items.push(Arc::new(item));
            }
        }
        if !chunk.more {
            return Ok(Page { items, remaining, rev });
        }
    }
}

/// What the keys of the listed objects start with on the shelf.
pub(super) fn prefix(call: &Call) -> String {
    match call.namespace() {
        "" => String::new(),
        namespace => format!("{namespace}/"),
    }
}

/// `resourceVersion` of a query.
pub(super) fn revision(text: &str) -> Result<Option<Rev>> {
    match text {
        "" => Ok(None),
        text => text.parse().map(|n| Some(Rev(n))).map_err(|_| {
            ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: is not a revision of this server"))
        }),
    }
}
