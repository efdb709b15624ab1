//! Placeholder until the kernels land.
fn main() {}
