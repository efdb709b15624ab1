//! As `neon`, but each element is a pair of bf16 numbers and each multiplication adds two
//! products to an f32 sum. The instruction treats subnormal numbers as zero.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

super::neon::neon!(
    [#[target_feature(enable = "neon,bf16")]]
    "bfdot {sum:v}.4s, {input:v}.8h, {weight:v}.2h[0]"
);
