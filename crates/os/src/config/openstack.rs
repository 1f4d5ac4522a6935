//! OpenStack's `meta_data.json`, and NoCloud's `meta-data`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The server metadata key whose value admits clients.
pub const ENROL: &str = "rastos-enrol";

/// What the cloud knows of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// The server's id.
    #[serde(alias = "instance-id")]
    pub uuid: Option<String>,
    /// The server's name.
    pub name: Option<String>,
    /// Its host name.
    #[serde(alias = "local-hostname")]
    pub hostname: Option<String>,
    /// What its owner wrote down.
    pub meta: BTreeMap<String, String>,
}

impl Meta {
    /// Reads JSON, or NoCloud's YAML.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut documents = api::read::manifest(text).map_err(|e| e.to_string())?;
        match documents.pop() {
            Some(document) if !document.value.is_null() => {
                serde_json::from_value(document.value).map_err(|e| e.to_string())
            }
            _ => Ok(Self::default()),
        }
    }

    /// The hashes of keys to be admitted.
    pub fn enrol(&self) -> Vec<String> {
        let listed = self.meta.get(ENROL).map(String::as_str).unwrap_or_default();
        listed.split(',').map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nova_and_nocloud_say() {
        let nova = r#"{"uuid": "u", "meta": {"rastos-enrol": "aa, bb,", "role": "x"}, "hostname": "one.novalocal",
                       "name": "one", "launch_index": 0, "random_seed": "x", "devices": []}"#;
        let meta = Meta::read(nova).unwrap();
        assert_eq!((meta.hostname.as_deref(), meta.enrol()), (Some("one.novalocal"), vec!["aa".into(), "bb".into()]));
        let nocloud = Meta::read("instance-id: i-1\nlocal-hostname: two\n").unwrap();
        assert_eq!((nocloud.uuid.as_deref(), nocloud.hostname.as_deref()), (Some("i-1"), Some("two")));
        assert_eq!(Meta::read("").unwrap(), Meta::default());
        assert!(Meta::read("{\"meta\": 5}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _judged = Meta::read(&text);
        }
    }
}
