//! Secret.

use k8s_openapi::api::core::v1::Secret;

use crate::{
    columns::{AGE, NAME, column, count, text},
    registry::{Kind, Scope, Strategy},
    typed::Typed,
};

/// Secret.
pub fn kind() -> Kind {
    Kind {
        columns: const {
            &[
                NAME,
                column("Type", |o, _| text(o, "/type")),
                column("Data", |o, _| count(o, "/data").to_string().into()),
                AGE,
            ]
        },
        strategy: Strategy {
            fields: |o| vec![("type", o["type"].as_str().unwrap_or_default().to_owned())],
            ..Strategy::of::<Secret>()
        },
        ..Kind::of::<Secret>("secrets", Scope::Namespaced)
    }
}

impl Typed for Secret {
    fn default(&mut self) {
        self.type_.get_or_insert_with(|| "Opaque".to_owned());
        // `stringData` is for writing only: it ends up in `data`, over what stands there.
        for (key, value) in self.string_data.take().unwrap_or_default() {
            self.data.get_or_insert_default().insert(key, k8s_openapi::ByteString(value.into_bytes()));
        }
    }
}
