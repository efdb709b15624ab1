//! What others see of the library is the one function that Python asks for.

fn main() {
    // One of the crates has C functions with OpenJPEG's names, and cargo exports them (docs/embedding.md).
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
