//! The loops with 8 floats per vector.

use super::Affine;

super::scalar::compile!(#[target_feature(enable = "avx2,fma")]);
