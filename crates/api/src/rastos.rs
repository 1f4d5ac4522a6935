//! rastOS's own documents, API group `rastos.io/v1alpha1`.

pub mod cluster;
pub mod machine;

pub use cluster::Cluster;
pub use machine::MachineConfig;

/// The group and version of rastOS's own kinds.
pub const API_VERSION: &str = "rastos.io/v1alpha1";
