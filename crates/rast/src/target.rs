//! What a user names on the command line: `pods`, `pod/web`, `deployment web api`.

use std::{fmt, sync::Arc};

use anyhow::Result;
use api::Kind;

use crate::{
    cluster::{Cluster, Query},
    exit::{Exit, Failure},
    manifest::Object,
};

/// Where one object is.
#[derive(Clone)]
pub struct Address {
    /// Its kind.
    pub kind: Arc<Kind>,
    /// Its namespace; without meaning for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Address {
    /// The path of its address.
    pub fn path(&self) -> String {
        Cluster::path(&self.kind, Some(&self.namespace), Some(&self.name))
    }

    /// Where an object that was read from a file belongs.
    pub fn of(cluster: &Cluster, object: &Object) -> Result<Self> {
        let namespace = object.namespace().unwrap_or_else(|| cluster.namespace()).to_owned();
        Ok(Self { kind: cluster.kind_of(&object.value)?, namespace, name: object.name().to_owned() })
    }

    /// Understands `KIND/NAME` in the namespace of this call.
    pub fn parse(cluster: &Cluster, word: &str) -> Result<Self> {
        match word.split_once('/') {
            Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
                Ok(Self { kind: cluster.kind(kind)?, namespace: cluster.namespace().to_owned(), name: name.to_owned() })
            }
            _ => Err(Failure::new(Exit::Usage, format!("{word:?}: write KIND/NAME, e.g. pod/web")).into()),
        }
    }
}

impl fmt::Display for Address {
    /// `pod/web`, `deployment.apps/web`: how kubectl writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind.group.as_ref() {
            "" => write!(f, "{}/{}", self.kind.singular, self.name),
            group => write!(f, "{}.{group}/{}", self.kind.singular, self.name),
        }
    }
}

/// A kind, and one of its objects or all of them.
pub struct Target {
    /// The kind.
    pub kind: Arc<Kind>,
    /// The object; all when absent.
    pub name: Option<String>,
}

impl Target {
    /// Understands `KIND`, `KIND NAME…`, `KIND/NAME…` and `KIND,KIND`.
    pub fn parse(cluster: &Cluster, words: &[String]) -> Result<Vec<Self>> {
        let (first, rest) =
            words.split_first().ok_or_else(|| Failure::new(Exit::Usage, "name a kind, e.g. pods or pod/web"))?;
        if words.iter().any(|w| w.contains('/')) {
            let named =
                |word: &String| Address::parse(cluster, word).map(|a| Self { kind: a.kind, name: Some(a.name) });
            return words.iter().map(named).collect();
        }
        let mut targets = Vec::new();
        for word in first.split(',') {
            let kind = cluster.kind(word)?;
            if rest.is_empty() {
                targets.push(Self { kind: kind.clone(), name: None });
            }
            targets.extend(rest.iter().map(|name| Self { kind: kind.clone(), name: Some(name.clone()) }));
        }
        Ok(targets)
    }

    /// The addresses of the objects meant: the one named, or all that `query` selects.
    pub async fn addresses(&self, cluster: &Cluster, query: Query) -> Result<Vec<Address>> {
        let at = |name: &str| Address {
            kind: self.kind.clone(),
            namespace: cluster.namespace().to_owned(),
            name: name.to_owned(),
        };
        if let Some(name) = &self.name {
            return Ok(vec![at(name)]);
        }
        let list = cluster.get(&Cluster::path(&self.kind, Some(cluster.namespace()), None), query).await?;
        let items = list["items"].as_array().into_iter().flatten();
        Ok(items.filter_map(|o| o["metadata"]["name"].as_str()).map(at).collect())
    }
}
