//! One node: from desired pods to running pods.
