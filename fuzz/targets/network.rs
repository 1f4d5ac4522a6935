//! The CNI plugin's configuration.
#![no_main]

fuzz::program!(&[("cni", network::cni::parse)]);
