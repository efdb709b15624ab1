//! The header says what the library does: it is what cbindgen makes of the source.

use std::path::Path;
use std::{env, fs};

/// The headings that only Rust's tools ask for left out.
fn made_anew() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(here.join("cbindgen.toml")).expect("settings");
    let made = cbindgen::Builder::new().with_crate(here).with_config(config).generate();
    let mut bytes = Vec::new();
    made.expect("readable source").write(&mut bytes);
    String::from_utf8(bytes).expect("UTF-8").replace("// # Safety\n//\n", "")
}

/// `UPDATE_HEADER=1 cargo test -p fastnnunet-c` writes it.
#[test]
fn the_header_is_made_of_the_source() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/fastnnunet.h");
    let made = made_anew();
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let kept = fs::read_to_string(&path).expect("the header");
    let first = kept.lines().zip(made.lines()).find(|(kept, made)| kept != made);
    assert_eq!(first, None, "UPDATE_HEADER=1 cargo test -p fastnnunet-c writes it anew");
    assert_eq!(kept, made);
}
