//! Cluster: what `rast cloud up` makes of an OpenStack project.

use k8s_openapi::{ClusterResourceScope, Metadata, Resource, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;

use crate::{
    columns::{AGE, NAME, column, items, list, text_or_none, wide},
    faults::Faults,
    names::Rule,
    rastos::{API_VERSION, Cluster, cluster::name_rule},
    registry::{Kind, Scope, Strategy, Subresource},
    typed::Typed,
};

/// Cluster.
pub fn kind() -> Kind {
    Kind {
        subresources: &[Subresource::Status],
        columns: const {
            &[
                NAME,
                column("Address", |o, _| text_or_none(o, "/status/address")),
                column("Made", |o, _| made(o).into()),
                column("Version", |o, _| text_or_none(o, "/status/version")),
                AGE,
                wide("Machines", |o, _| machines(o)),
                wide("Volume", |o, _| text_or_none(o, "/status/volume")),
                wide("Project", |o, _| text_or_none(o, "/status/project")),
            ]
        },
        strategy: Strategy::of::<Cluster>().with_status(),
        ..Kind::of::<Cluster>("clusters", Scope::Cluster)
    }
}

/// Whether the cloud holds what the spec says, or the next `up` has something to do.
fn made(cluster: &Value) -> &'static str {
    let made = &cluster["status"]["observedGeneration"];
    match made.is_i64() && *made == cluster["metadata"]["generation"] {
        true => "yes",
        false => "awaits up",
    }
}

fn machines(cluster: &Value) -> Value {
    list(items(cluster, "/status/machines").iter().filter_map(|m| m["name"].as_str().map(str::to_owned)))
}

impl Typed for Cluster {
    const NAME: Option<Rule> = Some(name_rule);

    fn validate(&self, bad: &mut Faults) {
        self.judge(bad);
    }
}

impl Resource for Cluster {
    type Scope = ClusterResourceScope;

    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = "rastos.io";
    const KIND: &'static str = "Cluster";
    const URL_PATH_SEGMENT: &'static str = "clusters";
    const VERSION: &'static str = "v1alpha1";
}

impl Metadata for Cluster {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
