//! Kernels against plain Rust in `f64`.
#![allow(unsafe_code, reason = "tests launch kernels")]

mod conv;
mod counts;
mod kept;
mod networks;

use cubecl::client::Client;

/// The GPUs that this build knows and this machine has; fails where the caller of the tests promised
/// one. Not Vulkan's: Mesa 22.3's software driver crashes while it compiles kernels whose threads share
/// memory.
#[allow(clippy::print_stdout, reason = "a skipped device says why")]
fn clients() -> Vec<Client> {
    #[cfg(feature = "cuda")]
    if std::env::var_os("REQUIRE_CUDA").is_some() {
        return vec![cubecl::Device::cuda(0).expect("a CUDA device").client()];
    }
    println!("skipped: no CUDA device was promised by REQUIRE_CUDA");
    Vec::new()
}

/// Values between -2 and 2 that fp16 and bf16 hold exactly.
fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 251 % 33) as f32 / 8.0 - 2.0).collect()
}

/// The repository's folder; a binary that was built elsewhere runs in it.
fn root() -> &'static str {
    if std::path::Path::new("tests/golden").exists() {
        "."
    } else {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../..")
    }
}
