//! Image references: what is read is written the same.
#![no_main]
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<images::Reference>() {
        assert_eq!(reference.to_string().parse::<images::Reference>().expect("its own form"), reference);
    }
});
