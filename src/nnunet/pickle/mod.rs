//! Reads Python pickles as data and executes nothing.
//!
//! Bytes go in, a table of values comes out. What a pickle would import or call is kept as a
//! name and its arguments; the reader of a value decides what a known name means. Nothing here
//! recurses, values refer to each other by number, and every value, stack entry and memo entry
//! is paid for by a byte of the file, so neither nesting nor cycles nor lengths written in a
//! hostile file lead to a deep stack or a large allocation. What a byte becomes may be a hundred
//! bytes all the same: lists ask for memory before they grow.

mod machine;
mod outline;
mod read;

use crate::files::Allowance;
use crate::{Error, Mismatch, Result};
use std::ops::Range;

/// Longest pickle read. Trainings with a hundred classes log a few megabytes.
const MAX_BYTES: usize = 1 << 27;

/// What memory is for, where there is too little.
const WHAT: &str = "reading a pickle";

/// Place of a value in its [`Pickle`].
pub(crate) type Id = u32;

/// A stretch of the pickle's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A Python value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits; nothing read here needs one.
    Huge,
    Float(f64),
    Text(Span),
    Bytes(Span),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function.
    Global {
        module: Span,
        name: Span,
    },
    /// What a call of `callee` would have given.
    Call {
        callee: Id,
        arguments: Id,
        state: Option<Id>,
    },
    /// Something stored outside the pickle.
    Persistent(Id),
}

/// A pickle read whole.
#[derive(Debug)]
pub(crate) struct Pickle {
    bytes: Vec<u8>,
    values: Vec<Value>,
    root: Id,
    held_bytes: u64,
}

impl Pickle {
    /// Reads a pickle of protocol 0 to 5, whose `bytes` are not among those that are held already.
    pub(crate) fn parse(bytes: Vec<u8>, allowed: Allowance) -> Result<Self> {
        let len = bytes.len() as u64;
        if bytes.len() > MAX_BYTES {
            let found = format!("a pickle of {len} bytes");
            return Err(Mismatch::new(found, format!("at most {MAX_BYTES}")).into());
        }
        let (values, root, counted) = machine::run(&bytes, allowed.beside(len))?;
        Ok(Self { bytes, values, root, held_bytes: len + counted })
    }

    /// Reads a pickled dictionary of which only the values of the `wanted` keys matter. Others may
    /// be `None` then: no value is made of them, but where a wanted one refers to their parts.
    pub(crate) fn parse_only(bytes: Vec<u8>, wanted: &[&str], allowed: Allowance) -> Result<Self> {
        let len = bytes.len() as u64;
        if bytes.len() <= MAX_BYTES
            && let Some(pieces) = outline::only(&bytes, wanted)
        {
            // Both are there for a moment.
            let short: usize = pieces.iter().map(|piece| piece.len()).sum();
            let beside = allowed.beside(len);
            beside.check(WHAT, short as u64)?;
            match Self::parse(pieces.concat(), beside) {
                Err(Error::Model { .. }) => {}
                read_or_too_large => return read_or_too_large,
            }
        }
        Self::parse(bytes, allowed)
    }

    /// Bytes that it takes, as they were counted when it was read.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// The value the pickle is.
    pub(crate) fn root(&self) -> Id {
        self.root
    }

    /// A value.
    pub(crate) fn value(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }
}

#[cfg(test)]
mod tests;
