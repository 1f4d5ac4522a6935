//! Options of a query that are judged together, as Kubernetes does: 422, each fault with its option.

use api::{Faults, Path};

use crate::{ApiError, Result, call::Call};

const META: &str = "meta.k8s.io";
const MATCH: &str = "resourceVersionMatch";

/// `metav1.ListOptions` of a list or a watch.
pub(super) fn list(call: &Call, watch: bool) -> Result<()> {
    let (rv, how) = (call.query("resourceVersion"), call.query(MATCH));
    let (initial, paged) = (call.given("sendInitialEvents"), call.given("continue"));
    let (mut bad, at) = (Faults::default(), || Path::root().field(MATCH));
    if watch && initial && how != "NotOlderThan" {
        bad.forbidden(at(), "must be NotOlderThan with sendInitialEvents");
    }
    if !watch && initial {
        bad.forbidden(Path::root().field("sendInitialEvents"), "may be given for a watch only");
    }
    if !how.is_empty() {
        let words: &[&str] = if watch { &["NotOlderThan"] } else { &["Exact", "NotOlderThan"] };
        bad.one_of(at(), Some(how), words);
        if watch && !initial {
            bad.forbidden(at(), "may not be given for a watch without sendInitialEvents");
        }
        if !watch && rv.is_empty() {
            bad.forbidden(at(), "may not be given without resourceVersion");
        }
        if !watch && how == "Exact" && rv == "0" {
            bad.forbidden(at(), "may not be Exact with resourceVersion 0");
        }
        if paged {
            bad.forbidden(at(), "may not be given with continue");
        }
    }
    refuse(META, "ListOptions", "", &bad)
}

/// `metav1.DeleteOptions`, as far as they say what becomes of dependents.
pub(super) fn delete(policy: &str, orphan: Option<bool>) -> Result<()> {
    let (mut bad, at) = (Faults::default(), Path::root().field("propagationPolicy"));
    if !policy.is_empty() {
        bad.one_of(at.clone(), Some(policy), &["Background", "Foreground", "Orphan"]);
        if orphan.is_some() {
            bad.forbidden(at, "orphanDependents and propagationPolicy exclude each other");
        }
    }
    refuse(META, "DeleteOptions", "", &bad)
}

/// `metav1.PatchOptions`, of an apply or of another patch.
pub(super) fn patch(call: &Call, apply: bool) -> Result<()> {
    let mut bad = Faults::default();
    if apply && !call.given("fieldManager") {
        bad.required(Path::root().field("fieldManager"), "is required for apply patch");
    }
    if !apply && call.given("force") {
        bad.forbidden(Path::root().field("force"), "may not be specified for non-apply patch");
    }
    refuse(META, "PatchOptions", "", &bad)
}

/// `PodLogOptions` of a pod's log.
pub(crate) fn log(call: &Call) -> Result<()> {
    let (mut bad, at) = (Faults::default(), |option: &str| Path::root().field(option));
    let stream = Some(call.query("stream")).filter(|stream| !stream.is_empty());
    bad.one_of(at("stream"), stream, &["All", "Stdout", "Stderr"]);
    if stream.is_some_and(|stream| stream != "All") && call.given("tailLines") {
        bad.forbidden(Path::root(), "tailLines and a stream other than All exclude each other");
    }
    for (option, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(number) = call.integer(option)? {
            bad.ranged(at(option), number, least..=i64::MAX);
        }
    }
    if call.given("sinceSeconds") && call.given("sinceTime") {
        bad.forbidden(Path::root(), "sinceSeconds and sinceTime exclude each other");
    }
    refuse("", "PodLogOptions", &call.at.name, &bad)
}

fn refuse(group: &str, kind: &str, name: &str, bad: &Faults) -> Result<()> {
    if bad.is_empty() { Ok(()) } else { Err(ApiError::unfit(group, kind, name, bad)) }
}
