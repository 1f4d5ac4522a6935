//! Secret.

use k8s_openapi::api::core::v1::Secret;

use crate::{
    columns::{AGE, NAME, column, count, text},
    faults::{Cause, Faults, Path},
    kinds::configmap::{frozen, keyed, sized},
    meta,
    registry::{Kind, Scope, Strategy},
    typed::Typed,
};

/// Secret.
pub fn kind() -> Kind {
    Kind {
        columns: const {
            &[NAME, column("Type", |o, _| text(o, "/type")), column("Data", |o, _| count(o, "/data").into()), AGE]
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

    fn validate(&self, bad: &mut Faults) {
        let at = Path::root().field("data");
        let mut size = 0;
        for (key, value) in self.data.iter().flatten() {
            keyed(key, at.clone(), bad);
            size += key.len() + value.0.len();
        }
        sized(size, at.clone(), bad);
        let has = |key: &str| self.data.iter().flatten().any(|(k, _)| k == key);
        let kind = self.type_.as_deref().unwrap_or_default();
        let (needed, any): (&[&str], bool) = match kind {
            "kubernetes.io/dockercfg" => (&[".dockercfg"], false),
            "kubernetes.io/dockerconfigjson" => (&[".dockerconfigjson"], false),
            "kubernetes.io/basic-auth" => (&["username", "password"], true),
            "kubernetes.io/ssh-auth" => (&["ssh-privatekey"], false),
            "kubernetes.io/tls" => (&["tls.crt", "tls.key"], false),
            _ => (&[], false),
        };
        if any && !needed.iter().any(|key| has(key)) {
            bad.required(at.clone(), format!("a secret of type {kind} needs one of {}", needed.join(", ")));
        }
        for key in needed.iter().filter(|key| !any && !has(key)) {
            bad.required(at.key(key), format!("a secret of type {kind} needs it"));
        }
        if kind == "kubernetes.io/service-account-token" {
            let message = "is not served: use the token subresource of the ServiceAccount, or a projected volume";
            bad.push(Path::root().field("type"), Cause::NotSupported, message);
        }
        for (key, value) in
            self.data.iter().flatten().filter(|(key, _)| needed.contains(&key.as_str()) && key.starts_with('.'))
        {
            // The value is a secret: not a word of it in the message.
            let good = serde_json::from_slice::<serde_json::Value>(&value.0).is_ok_and(|v| v.is_object());
            bad.unless(good, at.key(key), "must be a JSON object");
        }
    }

    fn validate_update(&self, old: &Self, bad: &mut Faults) {
        if self.type_ != old.type_ {
            meta::immutable(Path::root().field("type"), bad);
        }
        frozen(self.immutable, old.immutable, self.data == old.data, bad);
    }
}
