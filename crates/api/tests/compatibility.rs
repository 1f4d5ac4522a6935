//! `docs/compatibility.md` says what the code does.

use std::{env, fs, path::Path};

#[test]
fn compatibility_page_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let page = api::compatibility();
    if env::var_os("RAST_BLESS").is_some() {
        fs::write(&file, &page).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == page,
        "docs/compatibility.md is stale: run RAST_BLESS=1 cargo nextest run -p api compatibility"
    );
}
