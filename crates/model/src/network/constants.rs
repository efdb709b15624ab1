//! Folds the arithmetic on shapes that exporters leave behind.

use super::read::{Named, Reader, Result, bad};
use crate::onnx::{Attribute, Data, Node, Tensor};
use std::sync::Arc;

/// Longest list folded; shapes are a handful of numbers.
pub(super) const MAX_LEN: usize = 4096;

/// The node's value if it is constant, `None` if it depends on the input's voxels.
pub(super) fn fold(reader: &Reader<'_>, node: &Node) -> Result<Option<Arc<Tensor>>> {
    if node.op == "Constant" {
        return constant(node).map(Some);
    }
    if node.op == "Shape" {
        let dims = match reader.named(node, node.input(0).unwrap_or_default())? {
            Named::Constant(tensor) => tensor.dims.clone(),
            Named::Value(value) => {
                let extent = reader.extent(value);
                [&[1, extent.channels], &extent.dims[3 - reader.rank..]].concat()
            }
        };
        return Ok(Some(Arc::new(integers(dims.into_iter().map(|n| n as i64).collect()))));
    }
    let mut inputs = Vec::new();
    for name in node.inputs.iter().filter(|name| !name.is_empty()) {
        match reader.named(node, name)? {
            Named::Constant(tensor) => inputs.push(tensor),
            Named::Value(_) => return Ok(None),
        }
    }
    let Some(first) = inputs.first() else { return Ok(None) };
    if matches!(node.op.as_str(), "Identity" | "Dropout") {
        return Ok(Some(Arc::clone(first)));
    }
    if inputs.iter().any(|tensor| tensor.len() > MAX_LEN) {
        return Err(bad(node, "an operation on a large constant", "one that is already computed"));
    }
    let folded = match (node.op.as_str(), &inputs[..]) {
        ("Cast", [tensor]) => cast(tensor, node.int("to").unwrap_or(0)),
        ("Concat", list) => concat(list),
        ("Gather", [list, index]) => gather(list, index),
        ("Slice", [list, start, end, ..]) => slice(list, start, end),
        ("Unsqueeze", [tensor, ..]) if tensor.len() == 1 => {
            Some(Tensor { dims: vec![1], data: tensor.data.clone() })
        }
        ("Squeeze", [tensor, ..]) if tensor.len() == 1 => {
            Some(Tensor { dims: vec![], data: tensor.data.clone() })
        }
        ("Floor", [tensor]) => {
            tensor.floats().map(|v| reals(v.iter().map(|v| v.floor()).collect()))
        }
        ("Add" | "Sub" | "Mul" | "Div", [a, b]) => arithmetic(&node.op, a, b),
        _ => None,
    };
    match folded {
        Some(tensor) => Ok(Some(Arc::new(tensor))),
        None => Err(bad(node, "constants it cannot be computed for", "arithmetic on shapes")),
    }
}

fn integers(values: Vec<i64>) -> Tensor {
    Tensor { dims: vec![values.len()], data: Data::Ints(values) }
}

fn reals(values: Vec<f32>) -> Tensor {
    Tensor { dims: vec![values.len()], data: Data::Floats(values) }
}

fn constant(node: &Node) -> Result<Arc<Tensor>> {
    let attribute = |name: &str| node.attributes.get(name);
    let scalar = |tensor: Tensor| Tensor { dims: vec![], ..tensor };
    if let Some(Attribute::Tensor(tensor)) = attribute("value") {
        return Ok(Arc::clone(tensor));
    }
    let numbers = if let Some(Attribute::Int(i)) = attribute("value_int") {
        scalar(integers(vec![*i]))
    } else if let Some(Attribute::Float(f)) = attribute("value_float") {
        scalar(reals(vec![*f]))
    } else if let Some(Attribute::Ints(list)) = attribute("value_ints") {
        integers(list.clone())
    } else if let Some(Attribute::Floats(list)) = attribute("value_floats") {
        reals(list.clone())
    } else {
        return Err(bad(node, "no value", "numbers"));
    };
    Ok(Arc::new(numbers))
}

fn cast(tensor: &Tensor, to: i64) -> Option<Tensor> {
    let data = match (&tensor.data, to) {
        (Data::Ints(v), 6 | 7 | 9) => Data::Ints(v.clone()),
        (Data::Ints(v), 1 | 10 | 11 | 16) => Data::Floats(v.iter().map(|&i| i as f32).collect()),
        (Data::Floats(v), 6 | 7) => Data::Ints(v.iter().map(|&f| f as i64).collect()),
        (Data::Floats(v), 1 | 10 | 11 | 16) => Data::Floats(v.clone()),
        _ => return None,
    };
    Some(Tensor { dims: tensor.dims.clone(), data })
}

fn concat(list: &[Arc<Tensor>]) -> Option<Tensor> {
    if list.iter().all(|t| t.ints().is_some()) {
        Some(integers(list.iter().filter_map(|t| t.ints()).flatten().copied().collect()))
    } else if list.iter().all(|t| t.floats().is_some()) {
        Some(reals(list.iter().filter_map(|t| t.floats()).flatten().copied().collect()))
    } else {
        None
    }
}

/// A place in a list of `len`, counted from the end if negative.
fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok()
}

fn gather(list: &Tensor, index: &Tensor) -> Option<Tensor> {
    let values = list.ints()?;
    let picked: Option<Vec<i64>> =
        index.ints()?.iter().map(|&i| values.get(place(i, values.len())?).copied()).collect();
    Some(Tensor { dims: index.dims.clone(), data: Data::Ints(picked?) })
}

fn slice(list: &Tensor, start: &Tensor, end: &Tensor) -> Option<Tensor> {
    let values = list.ints()?;
    let ([start], [end]) = (start.ints()?, end.ints()?) else { return None };
    let start = place(*start, values.len())?.min(values.len());
    let end = place(*end, values.len())?.min(values.len());
    Some(integers(values.get(start..end)?.to_vec()))
}

fn arithmetic(op: &str, a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let n = a.len().max(b.len());
    if (a.len() != n && a.len() != 1) || (b.len() != n && b.len() != 1) {
        return None;
    }
    let dims = if a.len() == n { a.dims.clone() } else { b.dims.clone() };
    let pick = |len: usize, k: usize| if len == 1 { 0 } else { k };
    let data = match (&a.data, &b.data) {
        (Data::Ints(x), Data::Ints(y)) => Data::Ints(
            (0..n)
                .map(|k| {
                    let (x, y) = (x[pick(x.len(), k)], y[pick(y.len(), k)]);
                    match op {
                        "Add" => x.checked_add(y),
                        "Sub" => x.checked_sub(y),
                        "Mul" => x.checked_mul(y),
                        _ => x.checked_div(y),
                    }
                })
                .collect::<Option<_>>()?,
        ),
        (Data::Floats(x), Data::Floats(y)) => Data::Floats(
            (0..n)
                .map(|k| {
                    let (x, y) = (x[pick(x.len(), k)], y[pick(y.len(), k)]);
                    match op {
                        "Add" => x + y,
                        "Sub" => x - y,
                        "Mul" => x * y,
                        _ => x / y,
                    }
                })
                .collect(),
        ),
        _ => return None,
    };
    Some(Tensor { dims, data })
}
