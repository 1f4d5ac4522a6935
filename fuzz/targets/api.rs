//! Manifests and what is in them.
#![no_main]

use api::{
    Quantity,
    rastos::{Cluster, MachineConfig},
};

fuzz::program!(&[
    ("manifest", |bytes| fuzz::text(bytes, manifest)),
    ("machine", |bytes| fuzz::text(bytes, |text| drop(MachineConfig::read(text)))),
    ("quantity", |bytes| {
        fuzz::round::<Quantity>(bytes);
        fuzz::text(bytes, |text| {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let _any = (quantity.units(), quantity.millis(), quantity.plus(quantity));
            }
        });
    }),
]);

/// YAML or JSON, the rules of the objects' kinds, and the places of what is wrong with them.
fn manifest(text: &str) {
    let documents = api::read::manifest(text).unwrap_or_default();
    for document in documents.into_iter().chain(api::read::json(text.as_bytes())) {
        if Cluster::is(&document.value) {
            let _refused = Cluster::read(&document.value).map(|c| (c.state_gib(), c.new_network()));
        }
        for fault in fuzz::judge(&document.value).0 {
            document.spans.find(&fault.path);
        }
    }
}
