//! Kernels against plain Rust in `f64`.
#![allow(unsafe_code, reason = "tests launch kernels")]

mod conv;
mod counts;
mod kept;
mod networks;

use crate::Device;

/// The GPUs that this build knows and this machine has; fails where the caller of the tests promised
/// one.
#[allow(clippy::print_stdout, reason = "a skipped device says why")]
fn devices() -> Vec<Device> {
    let mut found = Vec::new();
    #[cfg(feature = "cuda")]
    if std::env::var_os("REQUIRE_CUDA").is_some() {
        found.push(Device::cuda(0).expect("a CUDA device"));
    }
    #[cfg(feature = "vulkan")]
    if std::env::var_os("REQUIRE_VULKAN").is_some() {
        found.push(Device::vulkan(0).expect("a Vulkan device"));
    }
    if found.is_empty() {
        println!("skipped: no device was promised by REQUIRE_CUDA or REQUIRE_VULKAN");
    }
    found
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
