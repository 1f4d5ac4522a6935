//! One node: from desired pods to running pods.
pub mod decide;
pub mod observe;
pub mod pod;
pub mod resources;
pub mod status;

#[cfg(test)]
mod simulate;
