//! The document that describes an image.

use std::path::PathBuf;

use api::{Cause, Faults, Path, Quantity, rastos::API_VERSION};
use serde::Deserialize;
use serde_json::Value;

use crate::verity;

/// The kind of the document.
pub const KIND: &str = "Image";

/// An image to be built. An empty spec builds one that works; unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Always `rastos.io/v1alpha1`.
    pub api_version: String,
    /// Always `Image`.
    pub kind: String,
    /// The image's name, for people.
    #[serde(default)]
    pub metadata: Metadata,
    /// What differs from the default.
    #[serde(default)]
    pub spec: Spec,
}

/// The image's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Any text.
    #[serde(default)]
    pub name: String,
}

/// What an image holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Where the kernel comes from.
    pub kernel: Kernel,
    /// Kernel modules beyond those that rastOS needs.
    pub modules: Vec<String>,
    /// Words for the kernel's command line beyond rastOS's own.
    pub command_line: Vec<String>,
    /// Bytes in each of the two slots for the system, as a quantity in whole MiB. None: 128Mi.
    pub slot_size: Option<String>,
    /// The program that becomes PID 1, statically linked. None: the one that builds the image.
    pub program: Option<PathBuf>,
    /// The initrd's program, statically linked. None: `rast-initrd` beside the one that builds the image.
    pub initrd: Option<PathBuf>,
}

/// A Debian kernel package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Kernel {
    /// Its name; apt fetches it.
    pub package: String,
    /// The package itself, instead.
    pub file: Option<PathBuf>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { package: "linux-image-cloud-amd64".into(), file: None }
    }
}

impl Default for Image {
    fn default() -> Self {
        let (api_version, kind) = (API_VERSION.into(), KIND.into());
        Self { api_version, kind, metadata: Metadata::default(), spec: Spec::default() }
    }
}

impl Image {
    /// Decodes and checks a document.
    pub fn read(document: &Value) -> Result<Self, Faults> {
        let image: Self = api::typed::decode(document)?;
        let mut bad = Faults::default();
        let root = Path::root();
        if image.api_version != API_VERSION {
            bad.push(root.field("apiVersion"), Cause::NotSupported, format!("must be {API_VERSION}"));
        }
        if image.kind != KIND {
            bad.push(root.field("kind"), Cause::NotSupported, format!("must be {KIND}"));
        }
        image.spec.check(&root.field("spec"), &mut bad);
        if bad.0.is_empty() { Ok(image) } else { Err(bad) }
    }
}

const MIB: i64 = 1 << 20;
const SLOT: i64 = 128 * MIB;
const SLOT_AT_MOST: i64 = 4096 * MIB;

impl Spec {
    /// Bytes in a slot.
    pub fn slot_size(&self) -> u64 {
        let size = self.slot_size.as_deref().and_then(|text| text.parse::<Quantity>().ok());
        size.map_or(SLOT, Quantity::units).unsigned_abs()
    }

    fn check(&self, at: &Path, bad: &mut Faults) {
        let package = self.kernel.package.as_str();
        let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        let is_package = package.starts_with(|c: char| c.is_ascii_alphanumeric()) && package.chars().all(named);
        bad.unless(is_package, at.field("kernel").field("package"), "must be the name of a Debian package");
        for (n, module) in self.modules.iter().enumerate() {
            let is_module = !module.is_empty() && module.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            bad.unless(is_module, at.field("modules").index(n), "must be a module's name, without a directory or .ko");
        }
        if let Some(text) = &self.slot_size {
            let at = at.field("slotSize");
            match text.parse::<Quantity>().map(Quantity::units) {
                Err(why) => bad.push(at, Cause::Invalid, why.to_string()),
                Ok(size) => {
                    let fits = (16 * MIB..=SLOT_AT_MOST).contains(&size) && size % MIB == 0;
                    bad.unless(fits, at, "must be a whole number of MiB from 16Mi to 4Gi");
                }
            }
        }
        for (n, word) in self.command_line.iter().enumerate() {
            let at = at.field("commandLine").index(n);
            let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic());
            bad.unless(is_word, at.clone(), "must be one word of printable ASCII characters");
            bad.unless(!word.starts_with("rastos."), at, "rastos.* is for rastOS's own words");
        }
    }

    /// The kernel's command line for a root.
    pub fn command_line(&self, root: &verity::Root) -> String {
        let root = format!("{}={root}", verity::Root::PARAMETER);
        // gpt: where a power cut has torn the table of partitions, the kernel takes its copy.
        // A busy emulator's timer may look broken to the kernel's check of it, which ends in a panic.
        // The last console is the one that PID 1 writes to: the one that OpenStack keeps.
        let own = ["console=tty0", "console=ttyS0,115200", "loglevel=4", "panic=-1", "no_timer_check", "gpt", &root];
        own.into_iter().chain(self.command_line.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(spec: Value) -> Vec<String> {
        let document = json!({"apiVersion": API_VERSION, "kind": KIND, "spec": spec});
        Image::read(&document).err().map_or_else(Vec::new, |f| f.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_document_is_the_default() {
        assert_eq!(Image::read(&json!({"apiVersion": API_VERSION, "kind": KIND})).unwrap(), Image::default());
    }

    #[test]
    fn each_wrong_field_is_named() {
        let faults = faults(json!({
            "kernel": {"package": "../linux"},
            "modules": ["nfs", "fs/nfs.ko"],
            "slotSize": "100M",
            "commandLine": ["quiet splash", "rastos.root=0"],
        }));
        let at: Vec<_> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(
            at,
            ["spec.kernel.package", "spec.modules[1]", "spec.slotSize", "spec.commandLine[0]", "spec.commandLine[1]"]
        );
    }

    #[test]
    fn an_unknown_field_is_refused() {
        assert_eq!(faults(json!({"kernal": {}})).len(), 1);
    }
}
