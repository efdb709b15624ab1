//! What values mean to those who need them.

use super::{Id, Pickle, Span, Value};

/// Deepest nesting turned into JSON.
const MAX_DEPTH: usize = 32;

/// Most values turned into JSON: shared values are written out once per use.
const MAX_JSON: usize = 1 << 18;

/// Bytes of text that count as one more of those.
const TEXT_PER_VALUE: usize = 64;

impl Pickle {
    fn str(&self, span: Span) -> Option<&str> {
        std::str::from_utf8(&self.bytes[span.range()]).ok()
    }

    /// A text.
    pub(crate) fn text(&self, id: Id) -> Option<&str> {
        match self.value(id) {
            Value::Text(span) => self.str(*span),
            _ => None,
        }
    }

    /// Whether it is Python's `None`.
    pub(crate) fn is_none(&self, id: Id) -> bool {
        *self.value(id) == Value::None
    }

    /// An integer, also one of `numpy`.
    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.value(id) {
            Value::Int(n) => Some(*n),
            Value::Bool(b) => Some(i64::from(*b)),
            _ => match self.numpy(id)? {
                Number::Int(n) => Some(n),
                Number::Float(_) => None,
            },
        }
    }

    /// Items of a list, tuple or set.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => Some(items),
            Value::Call { callee, arguments, .. }
                if self.names(*callee) == Some(("torch", "Size")) =>
            {
                self.items_of_tuple(*self.items_of_tuple(*arguments)?.first()?)
            }
            _ => None,
        }
    }

    fn items_of_tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    /// Keys and values of a dictionary.
    pub(crate) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a text key; the last one written counts.
    pub(crate) fn lookup(&self, dict: Id, key: &str) -> Option<Id> {
        let mut entries = self.entries(dict)?.iter().rev();
        entries.find(|(k, _)| self.text(*k) == Some(key)).map(|&(_, value)| value)
    }

    /// Module and name of a class or function.
    pub(crate) fn names(&self, id: Id) -> Option<(&str, &str)> {
        match self.value(id) {
            Value::Global { module, name } => Some((self.str(*module)?, self.str(*name)?)),
            _ => None,
        }
    }

    /// Callee's module and name, and arguments, of a call.
    pub(crate) fn call(&self, id: Id) -> Option<((&str, &str), &[Id])> {
        match self.value(id) {
            Value::Call { callee, arguments, .. } => {
                Some((self.names(*callee)?, self.items_of_tuple(*arguments)?))
            }
            _ => None,
        }
    }

    /// What a value is, for messages.
    pub(crate) fn describe(&self, id: Id) -> String {
        match self.value(id) {
            Value::None => "None".into(),
            Value::Bool(_) => "a bool".into(),
            Value::Int(n) => n.to_string(),
            Value::Huge => "a huge integer".into(),
            Value::Float(x) => x.to_string(),
            Value::Text(_) => format!("{:?}", self.text(id).unwrap_or("?")),
            Value::Bytes(_) => "bytes".into(),
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
                format!("a list of {}", items.len())
            }
            Value::Dict(entries) => format!("a dictionary of {}", entries.len()),
            Value::Global { .. } => self.names(id).map_or_else(
                || "a name".into(),
                |(module, name)| format!("the name {module}.{name}"),
            ),
            Value::Call { callee, .. } => self.names(*callee).map_or_else(
                || "an object".into(),
                |(module, name)| format!("an object of {module}.{name}"),
            ),
            Value::Persistent(_) => "stored data".into(),
        }
    }

    /// A scalar: `numpy.core.multiarray.scalar(dtype('f8', ...), bytes)`.
    fn numpy(&self, id: Id) -> Option<Number> {
        let ((module, name), arguments) = self.call(id)?;
        let scalar = matches!(module, "numpy.core.multiarray" | "numpy._core.multiarray");
        let &[dtype, data] = arguments else { return None };
        if !scalar || name != "scalar" {
            return None;
        }
        let (("numpy", "dtype"), dtype) = self.call(dtype)? else { return None };
        let kind = self.text(*dtype.first()?)?.trim_start_matches(['<', '=', '|']);
        let data = self.raw(data)?;
        let int = |n: i64| Some(Number::Int(n));
        match kind {
            "f8" => Some(Number::Float(f64::from_le_bytes(data.try_into().ok()?))),
            "f4" => Some(Number::Float(f32::from_le_bytes(data.try_into().ok()?).into())),
            "i8" => int(i64::from_le_bytes(data.try_into().ok()?)),
            "i4" => int(i32::from_le_bytes(data.try_into().ok()?).into()),
            "i2" => int(i16::from_le_bytes(data.try_into().ok()?).into()),
            "i1" => int(i8::from_le_bytes(data.try_into().ok()?).into()),
            "u8" => int(i64::try_from(u64::from_le_bytes(data.try_into().ok()?)).ok()?),
            "u4" => int(u32::from_le_bytes(data.try_into().ok()?).into()),
            "u2" => int(u16::from_le_bytes(data.try_into().ok()?).into()),
            "u1" | "b1" => int(u8::from_le_bytes(data.try_into().ok()?).into()),
            _ => None,
        }
    }

    /// A list of numbers: `numpy.core.multiarray._reconstruct`, with version, shape, type, order and
    /// bytes as its state.
    fn array(&self, id: Id) -> Option<Vec<serde_json::Value>> {
        let Value::Call { state: Some(state), .. } = self.value(id) else { return None };
        let ((module, name), _) = self.call(id)?;
        let is_array = matches!(module, "numpy.core.multiarray" | "numpy._core.multiarray");
        let &[_, shape, dtype, _, data] = self.items_of_tuple(*state)? else { return None };
        if !is_array || name != "_reconstruct" || self.items(shape)?.len() != 1 {
            return None;
        }
        let (("numpy", "dtype"), dtype) = self.call(dtype)? else { return None };
        let kind = self.text(*dtype.first()?)?.trim_start_matches(['<', '=', '|']);
        let data = self.raw(data)?;
        if data.len() > MAX_JSON {
            return None;
        }
        let (numbers, rest) = data.as_chunks::<8>();
        match kind {
            "f8" if rest.is_empty() => {
                Some(numbers.iter().map(|bytes| f64::from_le_bytes(*bytes).into()).collect())
            }
            "i8" if rest.is_empty() => {
                Some(numbers.iter().map(|bytes| i64::from_le_bytes(*bytes).into()).collect())
            }
            _ => None,
        }
    }

    /// Bytes; protocol 2 writes them as text that Latin-1 would encode.
    fn raw(&self, id: Id) -> Option<Vec<u8>> {
        if let Value::Bytes(span) = self.value(id) {
            return Some(self.bytes[span.range()].to_vec());
        }
        let (("_codecs", "encode"), arguments) = self.call(id)? else { return None };
        let text = self.text(*arguments.first()?)?;
        text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
    }

    /// As JSON; tuples and sets become lists, names of classes and functions their last part.
    /// `None` for anything else, or if it is too large or nested too deeply.
    pub(crate) fn json(&self, id: Id) -> Option<serde_json::Value> {
        self.json_at(id, 0, &mut 0)
    }

    fn json_at(&self, id: Id, depth: usize, written: &mut usize) -> Option<serde_json::Value> {
        // One text may be in many places.
        *written += 1 + self.text(id).map_or(0, |text| text.len() / TEXT_PER_VALUE);
        if depth > MAX_DEPTH || *written > MAX_JSON {
            return None;
        }
        let mut inner = |id: Id| self.json_at(id, depth + 1, written);
        Some(match self.value(id) {
            Value::None => serde_json::Value::Null,
            Value::Bool(b) => (*b).into(),
            Value::Int(n) => (*n).into(),
            Value::Float(x) => (*x).into(),
            Value::Text(_) => self.text(id)?.into(),
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
                items.iter().map(|&item| inner(item)).collect::<Option<Vec<_>>>()?.into()
            }
            Value::Dict(entries) => {
                let mut map = serde_json::Map::new();
                for &(key, value) in entries {
                    let key = match inner(key)? {
                        serde_json::Value::String(text) => text,
                        other => other.to_string(),
                    };
                    map.insert(key, inner(value)?);
                }
                map.into()
            }
            Value::Global { .. } => self.names(id)?.1.into(),
            Value::Call { .. } => match self.numpy(id) {
                Some(Number::Int(n)) => n.into(),
                Some(Number::Float(x)) => x.into(),
                None => {
                    let list = self.array(id)?;
                    *written += list.len();
                    list.into()
                }
            },
            Value::Huge | Value::Bytes(_) | Value::Persistent(_) => return None,
        })
    }
}

enum Number {
    Int(i64),
    Float(f64),
}
