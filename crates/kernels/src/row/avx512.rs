//! The loops with 16 floats per vector.

use super::Affine;

super::scalar::compile!(#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]);
