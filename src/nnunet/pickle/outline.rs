//! Leaves out of a pickled dictionary what nobody asks for, before a value is made of it.
//!
//! A pickle enters, and a shorter one leaves in which the values of unwanted keys are `None`. A
//! checkpoint of a long training is mostly its log and the optimizer's state: half a million
//! objects, of which inference needs none. Only where each value begins is followed here.

use super::machine::is_hostile;
use std::ops::Range;

/// A value of the stack is the place where its making begins.
type Start = usize;

struct Outline<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Start>,
    /// Heights of the stack at open marks, and where the marks are.
    marks: Vec<(usize, Start)>,
    /// Key and value of the entries of the dictionary at the bottom of the stack.
    entries: Vec<(Start, Range<usize>)>,
    /// Highest place of the memo used; a pickle that uses one twice is not shortened.
    memo: Option<u32>,
}

/// Most values on the stack, open marks and entries followed: a thousand are written at a time, and more
/// of them would be memory that nobody counts.
const MOST: usize = 1 << 15;

/// The pieces of the pickle without the values of keys that are not `wanted`; `None` if it is of a kind
/// that is better read whole, which then says what is wrong with it.
pub(super) fn only<'a>(bytes: &'a [u8], wanted: &[&str]) -> Option<Vec<&'a [u8]>> {
    let mut outline = Outline {
        bytes,
        at: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        entries: Vec::new(),
        memo: None,
    };
    while outline.step()? {
        if outline.stack.len().max(outline.marks.len()).max(outline.entries.len()) > MOST {
            return None;
        }
    }
    let is_kept = |key: &Start| key_at(bytes, *key).is_none_or(|key| wanted.contains(&key));
    let (mut pieces, mut from) = (Vec::new(), 0);
    for (key, value) in &outline.entries {
        if !is_kept(key) && value.start >= from {
            pieces.extend([&bytes[from..value.start], b"N"]);
            from = value.end;
        }
    }
    pieces.push(&bytes[from..]);
    Some(pieces)
}

/// The text whose making begins at `at`; `None` if it is none, or one made before.
fn key_at(bytes: &[u8], at: Start) -> Option<&str> {
    let (width, rest) = match bytes.get(at)? {
        b'X' | b'T' => (4, at + 1),
        b'U' | 0x8c => (1, at + 1),
        _ => return None,
    };
    let mut wide = [0; 4];
    wide[..width].copy_from_slice(bytes.get(rest..rest + width)?);
    let start = rest + width;
    let end = start.checked_add(u32::from_le_bytes(wide) as usize)?;
    std::str::from_utf8(bytes.get(start..end)?).ok()
}

impl Outline<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.at = self.at.checked_add(count).filter(|&end| end <= self.bytes.len())?;
        Some(())
    }

    /// A number of `width` bytes, least significant first.
    fn number(&mut self, width: usize) -> Option<u64> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.bytes.get(self.at..self.at + width)?);
        self.at += width;
        Some(u64::from_le_bytes(wide))
    }

    fn counted(&mut self, width: usize) -> Option<()> {
        let count = usize::try_from(self.number(width)?).ok()?;
        self.skip(count)
    }

    fn line(&mut self) -> Option<&str> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n')?;
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).ok()
    }

    /// Module and name of a class or function, unless the pickle was made to attack.
    fn name(&mut self) -> Option<()> {
        let bytes = self.bytes;
        let start = self.at;
        self.line()?;
        let middle = self.at;
        self.line()?;
        let text = |range: Range<usize>| std::str::from_utf8(&bytes[range]).ok();
        let (module, name) = (text(start..middle)?.trim_end(), text(middle..self.at)?.trim_end());
        (!is_hostile(module, name)).then_some(())
    }

    /// Takes `count` values, all of them above the last mark.
    fn pop(&mut self, count: usize) -> Option<()> {
        let floor = self.marks.last().map_or(0, |&(height, _)| height);
        let height = self.stack.len().checked_sub(count).filter(|&height| height >= floor)?;
        self.stack.truncate(height);
        Some(())
    }

    /// Takes what is above the last mark, and tells where the mark is.
    fn pop_mark(&mut self) -> Option<(usize, Start)> {
        self.marks.pop()
    }

    fn remember(&mut self, slot: u64) -> Option<()> {
        let slot = u32::try_from(slot).ok()?;
        if self.memo.is_some_and(|last| slot <= last) {
            return None;
        }
        self.memo = Some(slot);
        Some(())
    }

    /// One operation; false at the end, `None` where only reading everything helps.
    fn step(&mut self) -> Option<bool> {
        let here = self.at;
        let opcode = *self.bytes.get(here)?;
        self.at += 1;
        match opcode {
            b'.' => return Some(false),
            // What says nothing about values: version and frame.
            0x80 => self.skip(1)?,
            0x95 => self.skip(8)?,
            b'(' => self.marks.push((self.stack.len(), here)),
            b'q' => {
                let slot = self.number(1)?;
                self.remember(slot)?;
            }
            b'r' => {
                let slot = self.number(4)?;
                self.remember(slot)?;
            }
            b'0' | b'a' | b'R' | 0x81 | b'b' => self.pop(1)?,
            0x92 => self.pop(2)?,
            // What is numbered, copied or named by way of the stack is read whole.
            b'p' | 0x94 | b'2' | 0x93 | b'o' | b'P' => return None,
            b'1' | b'e' | 0x90 => {
                let (height, _) = self.pop_mark()?;
                self.stack.truncate(height);
            }
            b's' | b'u' => self.insert(opcode, here)?,
            b'Q' => {}
            b'l' | b't' | b'd' | 0x91 | b'i' => {
                if opcode == b'i' {
                    self.name()?;
                }
                let (height, mark) = self.pop_mark()?;
                self.stack.truncate(height);
                self.stack.push(mark);
            }
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                let first = *self.stack.get(self.stack.len().checked_sub(count)?)?;
                self.pop(count)?;
                self.stack.push(first);
            }
            _ => {
                self.atom(opcode)?;
                self.stack.push(here);
            }
        }
        Some(true)
    }

    /// Passes over what makes one value of nothing.
    fn atom(&mut self, opcode: u8) -> Option<()> {
        match opcode {
            b'N' | 0x88 | 0x89 | b']' | b'}' | b')' | 0x8f => Some(()),
            b'K' | b'h' => self.skip(1),
            b'M' => self.skip(2),
            b'J' | b'j' => self.skip(4),
            b'G' => self.skip(8),
            0x8a | b'U' | 0x8c | b'C' => self.counted(1),
            0x8b | b'T' | b'X' | b'B' => self.counted(4),
            0x8d | 0x8e | 0x96 => self.counted(8),
            b'I' | b'L' | b'F' | b'S' | b'V' | b'g' => self.line().map(drop),
            b'c' => self.name(),
            _ => None,
        }
    }

    /// Entries for a dictionary.
    fn insert(&mut self, opcode: u8, here: Start) -> Option<()> {
        let height = match opcode {
            b's' => self.stack.len().checked_sub(2)?,
            _ => self.pop_mark()?.0,
        };
        let items = self.stack.split_off(height);
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        if self.stack.len() == 1 {
            let ends = pairs[1..].iter().map(|pair| pair[0]).chain([here]);
            let entries = pairs.iter().zip(ends);
            self.entries.extend(entries.map(|(&[key, value], end)| (key, value..end)));
        }
        Some(())
    }
}
