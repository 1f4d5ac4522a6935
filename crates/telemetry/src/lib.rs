//! Logs, metrics and traces of rastOS itself.
