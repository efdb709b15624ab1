//! The stack machine a pickle is written for.

use super::{Id, Span, Value, WHAT};
use crate::files::Allowance;
use crate::{Error, Mismatch, Result};
use std::collections::HashMap;

/// Most values, stack entries or memo entries.
const MAX_VALUES: usize = 1 << 24;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Elements of containers that calls copied: a call is short, a list as long as it likes.
    copied: usize,
    tally: Tally,
}

/// What a program's lists take, counted before they grow.
struct Tally {
    allowed: Allowance,
    counted: u64,
}

/// What the allocator takes beside a list.
const LIST_BYTES: usize = 16;

impl Tally {
    /// Counts what is made at once.
    fn count(&mut self, bytes: usize) -> Result<()> {
        let counted = self.counted.saturating_add(bytes as u64);
        self.allowed.check(WHAT, counted)?;
        self.counted = counted;
        Ok(())
    }

    /// Counts a list of so many.
    fn list<T>(&mut self, len: usize) -> Result<()> {
        self.count(len * size_of::<T>() + LIST_BYTES)
    }

    /// Makes room for `more` in a list, which is there twice while it moves.
    fn room<T>(&mut self, list: &mut Vec<T>, more: usize) -> Result<()> {
        let (len, old) = (list.len(), list.capacity());
        if len + more > old {
            let new = (len + more).max(2 * old).max(4);
            self.list::<T>(new)?;
            list.reserve_exact(new - len);
            self.counted -= if old == 0 { 0 } else { (old * size_of::<T>() + LIST_BYTES) as u64 };
        }
        Ok(())
    }
}

/// Runs the program; returns all values, which of them is the result, and what they take.
pub(super) fn run(bytes: &[u8], allowed: Allowance) -> Result<(Vec<Value>, Id, u64)> {
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copied: 0,
        tally: Tally { allowed, counted: 0 },
    };
    loop {
        let opcode = machine.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            return Ok((machine.values, root, machine.tally.counted));
        }
        machine.step(opcode)?;
    }
}

fn broken(found: impl Into<String>) -> Error {
    Mismatch::new(found, "a whole pickle").into()
}

impl Machine<'_> {
    fn take(&mut self, len: usize) -> Result<Span> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| broken(format!("a pickle that ends in byte {}", self.at)))?;
        // A pickle is shorter than 2^27 bytes.
        let span = Span { start: self.at as u32, end: end as u32 };
        self.at = end;
        Ok(span)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let range = self.take(N)?.range();
        self.bytes[range].try_into().map_err(|_| broken("a cut number"))
    }

    fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A stretch whose length is written in `N` bytes before it.
    fn counted<const N: usize>(&mut self) -> Result<Span> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&self.array::<N>()?);
        let len = usize::try_from(u64::from_le_bytes(wide)).unwrap_or(usize::MAX);
        self.take(len)
    }

    /// The rest of the line, without its end.
    fn line(&mut self) -> Result<Span> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&byte| byte == b'\n');
        let len = len.ok_or_else(|| broken("a line without an end"))?;
        let mut span = self.take(len)?;
        self.at += 1;
        if self.bytes[span.range()].ends_with(b"\r") {
            span.end -= 1;
        }
        Ok(span)
    }

    /// A line of ASCII.
    fn word(&mut self) -> Result<&str> {
        let range = self.line()?.range();
        std::str::from_utf8(&self.bytes[range]).map_err(|_| broken("a line that is not text"))
    }

    fn add(&mut self, value: Value) -> Result<Id> {
        if self.values.len() >= MAX_VALUES {
            let expected = format!("at most {MAX_VALUES}");
            return Err(Mismatch::new("a pickle of more values than this", expected).into());
        }
        self.tally.room(&mut self.values, 1)?;
        self.values.push(value);
        Ok(self.values.len() as Id - 1)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(broken("a stack that only grows"));
        }
        self.tally.room(&mut self.stack, 1)?;
        self.stack.push(id);
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<()> {
        let id = self.add(value)?;
        self.push_id(id)
    }

    /// Takes one value; a mark protects what is below it.
    fn pop(&mut self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(broken("an empty stack"));
        }
        self.stack.pop().ok_or_else(|| broken("an empty stack"))
    }

    fn top(&self) -> Result<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(broken("an empty stack")),
        }
    }

    /// Everything since the last mark.
    fn marked(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| broken("no mark"))?;
        self.tally.list::<Id>(self.stack.len().saturating_sub(mark))?;
        Ok(self.stack.split_off(mark))
    }

    fn pairs(&mut self, items: &[Id]) -> Result<Vec<(Id, Id)>> {
        self.tally.list::<Id>(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(broken("a key without a value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn remember(&mut self, slot: u32) -> Result<()> {
        let id = self.top()?;
        if self.memo.len() >= MAX_VALUES {
            return Err(broken("a memo that only grows"));
        }
        if self.memo.len() == self.memo.capacity() {
            // Entries and their marks, for twice as many places at least, of which a part stays free.
            self.tally.count(4 * self.memo.len().max(4) * (size_of::<(u32, Id)>() + 1))?;
        }
        self.memo.insert(slot, id);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<()> {
        let id = self.memo.get(&slot).copied();
        self.push_id(id.ok_or_else(|| broken(format!("no memo {slot}")))?)
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // PROTO
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                version => {
                    Err(Mismatch::new(format!("pickle protocol {version}"), "0 to 5").into())
                }
            },
            // FRAME only helps those who read from a stream.
            0x95 => self.take(8).map(|_| ()),
            b'(' => {
                self.tally.room(&mut self.marks, 1)?;
                self.marks.push(self.stack.len());
                Ok(())
            }
            // POP may also take a mark.
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(|_| ())
            }
            b'1' => self.marked().map(|_| ()),
            b'2' => {
                let id = self.top()?;
                self.push_id(id)
            }
            b'N' | 0x88 | 0x89 | b'I' | b'J' | b'K' | b'M' | b'L' | 0x8a | 0x8b | b'F' | b'G' => {
                self.number(opcode)
            }
            b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96 => {
                self.string(opcode)
            }
            b'c' | 0x93 | b'i' | b'o' | b'R' | 0x81 | 0x92 | b'b' | b'P' | b'Q' => {
                self.object(opcode)
            }
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memory(opcode),
            _ => self.container(opcode),
        }
    }

    fn number(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'I' => match self.word()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => text.parse().map_or(Value::Huge, Value::Int),
            },
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'K' => Value::Int(i64::from(self.byte()?)),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'L' => self.word()?.trim_end_matches('L').parse().map_or(Value::Huge, Value::Int),
            0x8a | 0x8b => {
                let span = if opcode == 0x8a { self.counted::<1>() } else { self.counted::<4>() };
                long(&self.bytes[span?.range()])
            }
            b'F' => {
                let number = self.word()?.parse();
                Value::Float(number.map_err(|_| broken("a number that is none"))?)
            }
            _ => Value::Float(f64::from_be_bytes(self.array()?)),
        };
        self.push(value)
    }

    fn string(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            // A quoted line; its escapes are not needed.
            b'S' => {
                let mut span = self.line()?;
                if span.end - span.start >= 2 {
                    (span.start, span.end) = (span.start + 1, span.end - 1);
                }
                Value::Text(span)
            }
            b'T' | b'X' => Value::Text(self.counted::<4>()?),
            b'U' | 0x8c => Value::Text(self.counted::<1>()?),
            b'V' => Value::Text(self.line()?),
            0x8d => Value::Text(self.counted::<8>()?),
            b'B' => Value::Bytes(self.counted::<4>()?),
            b'C' => Value::Bytes(self.counted::<1>()?),
            _ => Value::Bytes(self.counted::<8>()?),
        };
        self.push(value)
    }

    fn memory(&mut self, opcode: u8) -> Result<()> {
        let slot = match opcode {
            b'p' | b'g' => self.word()?.parse().map_err(|_| broken("a memo without number"))?,
            b'q' | b'h' => u32::from(self.byte()?),
            0x94 => self.memo.len() as u32,
            _ => self.u32()?,
        };
        match opcode {
            b'g' | b'h' | b'j' => self.recall(slot),
            _ => self.remember(slot),
        }
    }

    fn container(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b')' => Value::Tuple(Vec::new()),
            0x8f => Value::Set(Vec::new()),
            b'l' => Value::List(self.marked()?),
            b't' => Value::Tuple(self.marked()?),
            b'd' => {
                let items = self.marked()?;
                Value::Dict(self.pairs(&items)?)
            }
            0x91 => Value::Set(self.marked()?),
            0x85..=0x87 => {
                let count = usize::from(opcode - 0x84);
                self.tally.list::<Id>(count)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.pop()?);
                }
                items.reverse();
                Value::Tuple(items)
            }
            b'a' => {
                let item = self.pop()?;
                return self.extend(&[item]);
            }
            b'e' | 0x90 => {
                let items = self.marked()?;
                return self.extend(&items);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                return self.insert(&[key, value]);
            }
            b'u' => {
                let items = self.marked()?;
                return self.insert(&items);
            }
            other => {
                let expected = "a pickle of protocol 0 to 5 without extensions";
                return Err(Mismatch::new(format!("pickle opcode {other:#04x}"), expected).into());
            }
        };
        self.push(value)
    }

    /// Appends to the list or set on top; what an unknown object would do with the items is
    /// not known, so they are dropped.
    fn extend(&mut self, items: &[Id]) -> Result<()> {
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::List(list) | Value::Set(list) => {
                self.tally.room(list, items.len())?;
                list.extend_from_slice(items);
            }
            Value::Call { .. } => {}
            _ => return Err(broken("an item added to something that is no list")),
        }
        Ok(())
    }

    fn insert(&mut self, items: &[Id]) -> Result<()> {
        let pairs = self.pairs(items)?;
        let top = self.top()?;
        match &mut self.values[top as usize] {
            Value::Dict(dict) => {
                self.tally.room(dict, pairs.len())?;
                dict.extend(pairs);
            }
            Value::Call { .. } => {}
            _ => return Err(broken("a key added to something that is no dictionary")),
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let span = |id: Id| match self.values[id as usize] {
                    Value::Text(span) => Ok(span),
                    _ => Err(broken("a name that is no text")),
                };
                let (module, name) = (span(module)?, span(name)?);
                self.global(module, name)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let arguments = self.marked()?;
                self.global(module, name)?;
                let callee = self.pop()?;
                let arguments = self.add(Value::Tuple(arguments))?;
                self.call(callee, arguments)
            }
            b'o' => {
                let mut arguments = self.marked()?;
                if arguments.is_empty() {
                    return Err(broken("an object without a class"));
                }
                let callee = arguments.remove(0);
                let arguments = self.add(Value::Tuple(arguments))?;
                self.call(callee, arguments)
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)
            }
            // NEWOBJ_EX; named arguments say nothing about values needed here.
            0x92 => {
                self.pop()?;
                let (arguments, callee) = (self.pop()?, self.pop()?);
                self.call(callee, arguments)
            }
            b'b' => {
                let new = self.pop()?;
                let top = self.top()?;
                if let Value::Call { state, .. } = &mut self.values[top as usize] {
                    *state = Some(new);
                }
                Ok(())
            }
            b'P' => {
                let line = self.line()?;
                let name = self.add(Value::Text(line))?;
                self.push(Value::Persistent(name))
            }
            _ => {
                let name = self.pop()?;
                self.push(Value::Persistent(name))
            }
        }
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(&self.bytes[span.range()]).unwrap_or("?")
    }

    /// A name. Nothing would be executed; but a file that names what no trained network needs
    /// was made to attack whoever loads it.
    fn global(&mut self, module: Span, name: Span) -> Result<()> {
        let (of, called) = (self.text(module), self.text(name));
        if is_hostile(of, called) {
            let found = format!("a pickle that would use {of}.{called}");
            return Err(Mismatch::new(found, "a checkpoint of weights and numbers").into());
        }
        self.push(Value::Global { module, name })
    }

    /// The result of a call: containers become containers, the rest stays as written.
    fn call(&mut self, callee: Id, arguments: Id) -> Result<()> {
        let Value::Global { module, name } = self.values[callee as usize] else {
            if matches!(self.values[callee as usize], Value::Call { .. }) {
                return self.push(Value::Call { callee, arguments, state: None });
            }
            return Err(broken("a call of something that is no name"));
        };
        let first = match &self.values[arguments as usize] {
            Value::Tuple(items) => items.first().map(|&id| &self.values[id as usize]),
            _ => return Err(broken("arguments that are no tuple")),
        };
        if let Some(Value::List(items) | Value::Tuple(items)) = first {
            self.copied += items.len();
            if self.copied > MAX_VALUES {
                return Err(broken("calls that copy the same lists again and again"));
            }
            // Pairs at most, in a list that grew.
            self.tally.list::<[(Id, Id); 3]>(items.len())?;
        }
        let value = match (self.text(module), self.text(name)) {
            ("collections", "OrderedDict") | ("builtins" | "__builtin__", "dict") => {
                let mut pairs = Vec::new();
                if let Some(Value::List(items)) = first {
                    for &item in items {
                        match &self.values[item as usize] {
                            Value::Tuple(pair) | Value::List(pair) if pair.len() == 2 => {
                                pairs.push((pair[0], pair[1]));
                            }
                            _ => return Err(broken("a dictionary of something else than pairs")),
                        }
                    }
                }
                Value::Dict(pairs)
            }
            ("collections", "defaultdict") => Value::Dict(Vec::new()),
            ("builtins" | "__builtin__", "set" | "frozenset") => match first {
                Some(Value::List(items) | Value::Tuple(items)) => Value::Set(items.clone()),
                _ => Value::Set(Vec::new()),
            },
            _ => Value::Call { callee, arguments, state: None },
        };
        self.push(value)
    }
}

/// An integer of any length, two's complement, little endian.
fn long(bytes: &[u8]) -> Value {
    let Some(last) = bytes.last() else { return Value::Int(0) };
    if bytes.len() > 8 {
        return Value::Huge;
    }
    let fill = if last & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// Builtins that make values.
const PLAIN_BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
];

/// Packages through which pickles reach the system.
const HOSTILE_PACKAGES: &[&str] = &[
    "_io",
    "_pickle",
    "_posixsubprocess",
    "asyncio",
    "bdb",
    "code",
    "codeop",
    "commands",
    "cProfile",
    "ctypes",
    "dill",
    "http",
    "importlib",
    "io",
    "marshal",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "posix",
    "profile",
    "pty",
    "requests",
    "runpy",
    "shutil",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "timeit",
    "types",
    "urllib",
    "webbrowser",
];

/// Whether what a pickle names reaches beyond values.
pub(super) fn is_hostile(module: &str, name: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    match package {
        "builtins" | "__builtin__" => !PLAIN_BUILTINS.contains(&name),
        "torch" => module.starts_with("torch.hub") || module.starts_with("torch.serialization"),
        _ => HOSTILE_PACKAGES.contains(&package),
    }
}
