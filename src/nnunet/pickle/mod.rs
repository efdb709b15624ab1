//! Reads Python pickles as data and executes nothing.
//!
//! Bytes go in, a table of values comes out. What a pickle would import or call is kept as a
//! name and its arguments; the reader of a value decides what a known name means. Nothing here
//! recurses, values refer to each other by number, and every value, stack entry and memo entry
//! is paid for by a byte of the file, so neither nesting nor cycles nor lengths written in a
//! hostile file lead to a deep stack or a large allocation.

mod machine;
mod outline;
mod read;

use crate::Mismatch;
use std::ops::Range;

/// Longest pickle read. Trainings with a hundred classes log a few megabytes.
const MAX_BYTES: usize = 1 << 27;

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
}

impl Pickle {
    /// Reads a pickle of protocol 0 to 5.
    pub(crate) fn parse(bytes: Vec<u8>) -> Result<Self, Mismatch> {
        if bytes.len() > MAX_BYTES {
            return Err(Mismatch::new(
                format!("a pickle of {} bytes", bytes.len()),
                format!("at most {MAX_BYTES}"),
            ));
        }
        let (values, root) = machine::run(&bytes)?;
        Ok(Self { bytes, values, root })
    }

    /// Reads a pickled dictionary of which only the values of the `wanted` keys matter. Others may
    /// be `None` then: no value is made of them, but where a wanted one refers to their parts.
    pub(crate) fn parse_only(bytes: Vec<u8>, wanted: &[&str]) -> Result<Self, Mismatch> {
        if bytes.len() <= MAX_BYTES
            && let Some(short) = outline::only(&bytes, wanted)
            && let Ok(pickle) = Self::parse(short)
        {
            return Ok(pickle);
        }
        Self::parse(bytes)
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
