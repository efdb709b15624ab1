//! Placeholder until the resampler lands.
fn main() {}
