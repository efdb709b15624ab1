//! Series in and objects out, by the public interface.

mod fixtures;
mod objects;
mod series;
