//! Placement of pods on nodes: pure filter and score, and the loop around it.
