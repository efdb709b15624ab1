//! Many cases of one run, and of many runs beside each other.
//!
//! A file that lists cases enters, and its [`Entry`]s leave, checked; a [`Shard`] of them, balanced by
//! the [`Work`] that each is; and what is known of a case once it was tried, as a [`Status`] beside its
//! result, by which a later run tells whether the case is done. A scheduler starts the runs: there is
//! none in here.

mod list;
mod shard;
mod status;
mod work;

pub use list::{Asked, Entry, read};
pub use shard::{Shard, shares};
pub use status::{
    Input, Model, Output, Standing, Status, Terms, digest_of, is_worth_a_retry, standing,
};
pub use work::Work;
