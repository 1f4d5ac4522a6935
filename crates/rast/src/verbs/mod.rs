//! The verbs, a file each.

pub mod apply;
pub mod cloud;
pub mod cni;
pub mod completion;
pub mod delete;
pub mod describe;
pub mod down;
pub mod exec;
pub mod get;
pub mod images;
pub mod init;
pub mod logs;
pub mod os;
pub mod plan;
pub mod pull;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod up;
pub mod wait;
pub mod why;
