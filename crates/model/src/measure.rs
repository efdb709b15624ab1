//! What decoding an ONNX file will hold, found without decoding it.
//!
//! A message of two bytes becomes a structure of hundreds, so a file says nothing about how large it
//! is in memory. The bytes of a file enter, the size of the structures leaves.

use crate::proto::{Attribute, Dim, Model, Node, OperatorSet, Tensor, ValueInfo};

/// What a field of a message is decoded to.
#[derive(Clone, Copy)]
enum Field {
    /// A slice of the file, or one number.
    Free,
    /// Text, or a list of texts.
    Text,
    /// Numbers of so many bytes each in the file, 0 for variable length, and in memory.
    Numbers { stored: usize, held: usize },
    /// Messages of another kind, each of that many bytes.
    Messages(Kind, usize),
}

/// The messages of `onnx.proto` that [`Model`] has.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Shape,
    /// Without messages in it.
    Leaf,
}

impl Kind {
    /// As the fields of the structures in [`crate::proto`] are tagged.
    fn field(self, tag: u64) -> Field {
        const INTEGERS: Field = Field::Numbers { stored: 0, held: 8 };
        let messages = Field::Messages;
        match (self, tag) {
            (Self::Model, 2 | 3)
            | (Self::Graph, 2)
            | (Self::Node, 1..=4 | 7)
            | (Self::Tensor, 8)
            | (Self::Attribute | Self::Value, 1)
            | (Self::Leaf, 1 | 2) => Field::Text,
            (Self::Model, 7) => messages(Self::Graph, 0),
            (Self::Model, 8) => messages(Self::Leaf, size_of::<OperatorSet>()),
            (Self::Graph, 1) => messages(Self::Node, size_of::<Node>()),
            (Self::Graph, 5) => messages(Self::Tensor, size_of::<Tensor>()),
            (Self::Graph, 11 | 12) => messages(Self::Value, size_of::<ValueInfo>()),
            (Self::Node, 5) => messages(Self::Attribute, size_of::<Attribute>()),
            (Self::Attribute, 5) => messages(Self::Tensor, 0),
            (Self::Attribute, 7) | (Self::Tensor, 4) => Field::Numbers { stored: 4, held: 4 },
            (Self::Attribute, 8) | (Self::Tensor, 1 | 7) => INTEGERS,
            (Self::Tensor, 5) => Field::Numbers { stored: 0, held: 4 },
            (Self::Tensor, 10) => Field::Numbers { stored: 8, held: 8 },
            (Self::Value, 2) => messages(Self::Type, 0),
            (Self::Type, 1) => messages(Self::TensorType, 0),
            (Self::TensorType, 2) => messages(Self::Shape, 0),
            (Self::Shape, 1) => messages(Self::Leaf, size_of::<Dim>()),
            _ => Field::Free,
        }
    }
}

/// Bytes that decoding holds besides the file; lists are counted as long as they may have grown.
/// What is no message is counted up to where it breaks off, as decoding it stops there.
pub(crate) fn decoded_bytes(file: &[u8]) -> u64 {
    let mut sum = size_of::<Model>() as u64;
    let mut open = vec![(Kind::Model, file)];
    while let Some((kind, mut rest)) = open.pop() {
        while !rest.is_empty() {
            let Some((tag, _, content)) = next_field(&mut rest) else { break };
            let held = match (kind.field(tag), content) {
                (Field::Free, _) | (Field::Messages(..), None) => 0,
                (Field::Text, content) => {
                    2 * (content.map_or(0, <[u8]>::len) + size_of::<String>())
                }
                (Field::Numbers { held, .. }, None) => 2 * held,
                (Field::Numbers { stored: 0, held }, Some(content)) => {
                    2 * held * content.iter().filter(|byte| **byte < 0x80).count()
                }
                (Field::Numbers { stored, held }, Some(content)) => {
                    2 * held * (content.len() / stored)
                }
                (Field::Messages(kind, size), Some(content)) => {
                    open.push((kind, content));
                    2 * size
                }
            };
            sum += held as u64;
        }
    }
    sum
}

/// Bytes of the numbers of all tensors once they have one of the two types of
/// [`Data`](crate::onnx::Data); lists that have one already stay as they are.
pub(crate) fn constant_bytes(file: &[u8]) -> u64 {
    let mut sum = 0_u64;
    let mut open = vec![(Kind::Model, file)];
    while let Some((kind, message)) = open.pop() {
        let mut rest = message;
        while let Some((tag, _, content)) = next_field(&mut rest) {
            if let (Field::Messages(kind, _), Some(content)) = (kind.field(tag), content) {
                open.push((kind, content));
            }
        }
        if matches!(kind, Kind::Tensor) {
            sum = sum.saturating_add(tensor_bytes(message));
        }
    }
    sum
}

/// The same of one tensor.
fn tensor_bytes(message: &[u8]) -> u64 {
    let (mut r#type, mut raw, mut integers, mut doubles) = (0, 0, 0, 0);
    let mut rest = message;
    while let Some((tag, number, content)) = next_field(&mut rest) {
        let len = content.map_or(1, |content| content.len() as u64);
        match tag {
            2 => r#type = number,
            5 => {
                let ends = content.map(|content| content.iter().filter(|byte| **byte < 0x80));
                integers += ends.map_or(1, |ends| ends.count() as u64);
            }
            9 => raw = len,
            10 => doubles += len.div_ceil(8),
            _ => {}
        }
    }
    // As `onnx` converts them: halves and doubles to floats, short integers and truth to long ones.
    match r#type {
        10 | 16 => 2 * raw + 4 * integers,
        11 => raw / 2 + 4 * doubles,
        6 => 2 * raw + 8 * integers,
        9 => 8 * raw + 8 * integers,
        _ => raw,
    }
}

/// Takes one field off: its tag, the number that it is, and its content if that has a length of its own.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u64, u64, Option<&'a [u8]>)> {
    let key = varint(rest)?;
    let mut number = 0;
    let content = match key & 7 {
        0 => {
            number = varint(rest)?;
            None
        }
        1 => {
            *rest = rest.get(8..)?;
            None
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (content, after) = rest.split_at_checked(length)?;
            *rest = after;
            Some(content)
        }
        5 => {
            *rest = rest.get(4..)?;
            None
        }
        _ => return None,
    };
    Some((key >> 3, number, content))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let len = 1 + rest.iter().take(10).position(|byte| *byte < 0x80)?;
    let (bytes, after) = rest.split_at(len);
    *rest = after;
    Some(bytes.iter().rev().fold(0, |all, byte| all << 7 | u64::from(byte & 0x7f)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Graph;
    use prost::Message;

    #[test]
    fn structures_are_counted_before_they_are_made() {
        let node = Node { input: vec![String::new(); 7], ..Node::default() };
        let graph = Graph { node: vec![node; 1000], ..Graph::default() };
        let model = Model { graph: Some(graph), ..Model::default() };
        let file = model.encode_to_vec();
        let made = 1000 * (size_of::<Node>() + 7 * size_of::<String>()) as u64;
        let counted = decoded_bytes(&file);
        assert!(counted >= made && counted < 3 * made, "{counted} for {made}");
    }

    #[test]
    fn numbers_are_counted_by_their_own_size() {
        let tensor = Tensor {
            dims: vec![3],
            float_data: vec![1.5; 1000],
            int64_data: vec![7; 1000],
            double_data: vec![0.1; 1000],
            raw_data: vec![0; 1 << 20].into(),
            ..Tensor::default()
        };
        let graph = Graph { initializer: vec![tensor], ..Graph::default() };
        let model = Model { graph: Some(graph), ..Model::default() };
        let counted = decoded_bytes(&model.encode_to_vec());
        // Raw data stay in the file.
        assert!((20_000..60_000).contains(&counted), "{counted}");
    }

    #[test]
    fn constants_are_counted_as_what_they_become() {
        let tensor = |data_type, raw: usize, integers: usize, doubles: usize| Tensor {
            dims: vec![8],
            data_type,
            raw_data: vec![0; raw].into(),
            int32_data: vec![300; integers],
            double_data: vec![0.5; doubles],
            ..Tensor::default()
        };
        // (what eight numbers are stored as, what they take then)
        for (stored, made) in [
            (tensor(1, 32, 0, 0), 32),
            (tensor(10, 16, 0, 0), 32),
            (tensor(16, 0, 8, 0), 32),
            (tensor(11, 64, 0, 0), 32),
            (tensor(11, 0, 0, 8), 32),
            (tensor(7, 64, 0, 0), 64),
            (tensor(6, 32, 0, 0), 64),
            (tensor(9, 8, 0, 0), 64),
            (tensor(6, 0, 8, 0), 64),
        ] {
            let attribute = Attribute { t: Some(stored.clone()), ..Attribute::default() };
            let node = Node { attribute: vec![attribute], ..Node::default() };
            let graph =
                Graph { initializer: vec![stored.clone()], node: vec![node], ..Graph::default() };
            let model = Model { graph: Some(graph), ..Model::default() };
            assert_eq!(constant_bytes(&model.encode_to_vec()), 2 * made, "{stored:?}");
        }
    }

    #[test]
    fn what_breaks_off_is_no_matter() {
        for broken in [&[0x0a][..], &[0x0a, 0xff, 0xff], &[0xff; 12], &[0x0b], &[0x3a, 5, 1]] {
            assert!(decoded_bytes(broken) < 1000, "{broken:?}");
        }
    }
}
