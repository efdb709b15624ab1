//! Kernels.
#![allow(
    clippy::used_underscore_binding,
    clippy::duplicate_underscore_argument,
    clippy::manual_div_ceil,
    clippy::manual_is_multiple_of,
    clippy::assign_op_pattern,
    clippy::range_plus_one,
    clippy::trivially_copy_pass_by_ref,
    clippy::too_many_arguments,
    reason = "types of numbers are arguments without a name, and the language's own functions are few"
)]

pub(crate) mod direct;
pub(crate) mod general;
pub(crate) mod geometry;
pub(crate) mod image;
pub(crate) mod last;
pub(crate) mod matrix;
pub(crate) mod moments;
