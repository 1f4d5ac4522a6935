//! Docker's configuration file, as pull secrets hold it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let reference = "registry.example:5000/a/b:1".parse().expect("a reference");
    let _ = images::Keyring::parse(bytes).map(|keyring| keyring.find(&reference));
});
