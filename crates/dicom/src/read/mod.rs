//! Files below a path to what each says about its images.

pub(crate) mod dataset;
pub(crate) mod file;
pub(crate) mod frame;
pub(crate) mod image;
pub(crate) mod parse;
pub(crate) mod place;
pub(crate) mod syntax;
pub(crate) mod text;
