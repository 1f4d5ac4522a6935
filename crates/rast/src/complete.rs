//! What a shell may complete a word to: kinds, and what the API has of them. A shell calls `rast` for that with
//! [`VARIABLE`] set; where the API is not there it is told nothing, and at once.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use api::Kind;
use clap::{ArgMatches, CommandFactory as _};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};

use crate::{
    cli::{Cli, Context},
    cluster::{Cluster, Query},
    host::Host,
};

/// Names the shell that asks.
pub const VARIABLE: &str = "RAST_COMPLETE";

/// How long the API may take: whoever types waits.
const PATIENCE: Duration = Duration::from_millis(500);

/// Answers a shell that asks, and ends the program then.
pub fn answer() {
    CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
}

/// A namespace.
pub fn namespace() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, ask(async |api, _| names(api, "namespaces").await)))
}

/// A pod, or KIND/NAME.
pub fn pod() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let words = ask(async |api, _| match kind_in(current) {
            Some(kind) => objects(api, kind).await,
            None => names(api, "pods").await,
        });
        candidates(current, words)
    })
}

/// KIND/NAME of one of these kinds.
pub fn object_of(kinds: &'static [&'static str]) -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let words = match kind_in(current) {
            Some(kind) => ask(async |api, _| objects(api, kind).await),
            None => kinds.iter().map(|kind| format!("{kind}/")).collect(),
        };
        candidates(current, words)
    })
}

/// KIND, names of its objects behind it, or KIND/NAME.
pub fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let first = |line: &ArgMatches| Some(line.try_get_many::<String>("targets").ok()??.next()?.clone());
        let words = match (kind_in(current), before().as_ref().and_then(first)) {
            (Some(kind), _) => ask(async |api, _| objects(api, kind).await),
            (None, Some(kind)) => ask(async |api, _| names(api, &kind).await),
            (None, None) => kinds(),
        };
        candidates(current, words)
    })
}

/// A container of the pod, or of the workload, that is named.
pub fn container() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| candidates(current, ask(async |api, line| containers(api, line).await)))
}

fn kinds() -> Vec<String> {
    let registry = api::builtin();
    let stored = registry.kinds().iter().filter(|kind| kind.stored);
    let mut plurals: Vec<String> = stored.map(|kind: &std::sync::Arc<Kind>| kind.plural.to_string()).collect();
    plurals.sort();
    plurals.dedup();
    plurals
}

/// The kind of a word that is on its way to KIND/NAME.
fn kind_in(current: &OsStr) -> Option<&str> {
    Some(current.to_str()?.split_once('/')?.0)
}

async fn objects(cluster: &Cluster, kind: &str) -> Option<Vec<String>> {
    let names = names(cluster, kind).await?;
    Some(names.into_iter().map(|name| format!("{kind}/{name}")).collect())
}

/// The names of a kind's objects: of the table that `get` shows no more than that is sent.
async fn names(cluster: &Cluster, kind: &str) -> Option<Vec<String>> {
    let path = Cluster::path(&*cluster.kind(kind).ok()?, Some(cluster.namespace()), None);
    let table = cluster.table(&path, Query::default().with("includeObject", "None")).await.ok()?;
    let column = table["columnDefinitions"].as_array()?.iter().position(|column| column["format"] == "name")?;
    let cells = table["rows"].as_array()?.iter().filter_map(|row| row["cells"][column].as_str());
    Some(cells.map(str::to_owned).collect())
}

async fn containers(cluster: &Cluster, line: &ArgMatches) -> Option<Vec<String>> {
    let target = line.try_get_one::<String>("target").ok()??;
    let (kind, name) = target.split_once('/').unwrap_or(("pods", target));
    let path = Cluster::path(&*cluster.kind(kind).ok()?, Some(cluster.namespace()), Some(name));
    let object = cluster.get(&path, Query::default()).await.ok()?;
    let spec = object.pointer("/spec/template/spec").unwrap_or(&object["spec"]);
    let lists = ["containers", "initContainers", "ephemeralContainers"].into_iter();
    let all = lists.flat_map(|list| spec[list].as_array().into_iter().flatten());
    Some(all.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect())
}

/// What the API says, with the command line before the word.
fn ask(question: impl AsyncFnOnce(&Cluster, &ArgMatches) -> Option<Vec<String>>) -> Vec<String> {
    let answer = async {
        let line = before()?;
        let context = Context {
            host: Host::below(line.get_one::<PathBuf>("root")?),
            kubeconfig: line.get_one("kubeconfig").cloned(),
            namespace: line.get_one("namespace").cloned(),
        };
        question(&Cluster::connect(&context).await.ok()?, &line).await
    };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await }).ok().flatten().unwrap_or_default()
}

/// What stands before the word, as the innermost verb has it. Shells tell which one it is, or it is the last.
fn before() -> Option<ArgMatches> {
    let mut words: Vec<_> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    let told = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
    words.truncate(told.unwrap_or(words.len().saturating_sub(1)));
    let mut line = Cli::command().ignore_errors(true).try_get_matches_from(words).ok()?;
    while let Some((_, inner)) = line.remove_subcommand() {
        line = inner;
    }
    Some(line)
}

/// Those of the words that the current one begins. A shell puts them on the command line as they are: what it would take
/// for more than a name is left out.
fn candidates(current: &OsStr, words: Vec<String>) -> Vec<CompletionCandidate> {
    let plain = |word: &String| word.chars().all(|c| c.is_ascii_alphanumeric() || "-._:/".contains(c));
    let begun = |word: &String| current.to_str().is_some_and(|current| word.starts_with(current));
    words.into_iter().filter(|word| plain(word) && begun(word)).map(CompletionCandidate::new).collect()
}
