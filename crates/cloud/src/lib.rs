//! OpenStack: sessions, plans, stacks, and what a project holds.
