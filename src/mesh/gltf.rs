//! Surfaces of all structures as one binary glTF 2.0, with their names and colors.

use super::{Found, Mesh};
use crate::Result;
use crate::files::Target;
use crate::segmenter::Segmentation;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::io::{self, BufWriter, Write};

/// Component types and buffer targets of the format.
const FLOAT: u32 = 5126;
const UNSIGNED_INT: u32 = 5125;
const ARRAY_BUFFER: u32 = 34962;
const ELEMENT_ARRAY_BUFFER: u32 = 34963;

/// From left, posterior, superior in millimetres to glTF's axes in metres: up is y, and what looks
/// at the viewer looks along z. By columns.
const TO_GLTF: [f64; 16] =
    [0.001, 0.0, 0.0, 0.0, 0.0, 0.0, -0.001, 0.0, 0.0, 0.001, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0];

/// Writes the surfaces of all structures that were found. Places are as in STL; a node above them
/// turns them to the axes of glTF.
pub(crate) fn save_gltf(
    target: Target<'_>,
    result: &Segmentation,
    found: &[Found<'_>],
) -> Result<()> {
    let affine = result.affine();
    let surfaces: Vec<_> = found.par_iter().map(|own| own.mesh(&result.labels, &affine)).collect();
    let mut scene = Scene::default();
    for (own, surface) in found.iter().zip(&surfaces) {
        scene.add(own, surface, result.grid.voxel_ml());
    }
    target.write(|file| {
        let mut out = BufWriter::new(file);
        scene.write(&mut out)?;
        out.flush()
    })
}

/// A file in the making.
#[derive(Default)]
struct Scene {
    nodes: Vec<Value>,
    meshes: Vec<Value>,
    materials: Vec<Value>,
    accessors: Vec<Value>,
    views: Vec<Value>,
    /// All numbers; each is four bytes, so that each begins where it must.
    buffer: Vec<u8>,
}

impl Scene {
    fn add(&mut self, own: &Found<'_>, surface: &Mesh, voxel_ml: f64) {
        let (name, index) = (&own.label.name, self.meshes.len());
        let bounds = |of: fn(f32, f32) -> f32| {
            let all = surface.vertices.iter().copied();
            all.reduce(|a, b| std::array::from_fn(|k| of(a[k], b[k])))
        };
        let position = self.floats(&surface.vertices);
        if let (Some(accessor), Some(min), Some(max)) =
            (self.accessors.last_mut(), bounds(f32::min), bounds(f32::max))
        {
            (accessor["min"], accessor["max"]) = (json!(min), json!(max));
        }
        let normal = self.floats(&surface.normals());
        let bytes = surface.triangles.iter().flatten().flat_map(|v| v.to_le_bytes());
        let view = self.view(bytes, ELEMENT_ARRAY_BUFFER);
        let indices = self.accessor(json!({
            "bufferView": view,
            "componentType": UNSIGNED_INT,
            "count": 3 * surface.triangles.len(),
            "type": "SCALAR",
        }));
        self.meshes.push(json!({ "name": name, "primitives": [{
            "attributes": { "POSITION": position, "NORMAL": normal },
            "indices": indices,
            "material": index,
        }] }));
        let [r, g, b] = own.label.rgb().map(linear);
        self.materials.push(json!({ "name": name, "pbrMetallicRoughness": {
            "baseColorFactor": [r, g, b, 1.0],
            "metallicFactor": 0.0,
            "roughnessFactor": 0.7,
        } }));
        let volumes = json!({
            "id": own.label.id,
            "snomed": own.label.snomed,
            "ml": surface.ml(),
            "voxels_ml": own.voxels as f64 * voxel_ml,
        });
        self.nodes.push(json!({ "name": name, "mesh": index, "extras": volumes }));
    }

    fn floats(&mut self, vectors: &[[f32; 3]]) -> usize {
        let view = self.view(vectors.iter().flatten().flat_map(|v| v.to_le_bytes()), ARRAY_BUFFER);
        self.accessor(json!({
            "bufferView": view,
            "componentType": FLOAT,
            "count": vectors.len(),
            "type": "VEC3",
        }))
    }

    fn view(&mut self, bytes: impl Iterator<Item = u8>, target: u32) -> usize {
        let start = self.buffer.len();
        self.buffer.extend(bytes);
        self.views.push(json!({
            "buffer": 0,
            "byteOffset": start,
            "byteLength": self.buffer.len() - start,
            "target": target,
        }));
        self.views.len() - 1
    }

    fn accessor(&mut self, accessor: Value) -> usize {
        self.accessors.push(accessor);
        self.accessors.len() - 1
    }

    fn document(mut self) -> (Vec<u8>, Vec<u8>) {
        let children: Vec<usize> = (0..self.nodes.len()).collect();
        let root = self.nodes.len();
        let mut top = json!({ "name": "segmentation", "matrix": TO_GLTF });
        // The format allows no empty lists.
        if !children.is_empty() {
            top["children"] = json!(children);
        }
        self.nodes.push(top);
        let mut document = json!({
            "asset": { "version": "2.0", "generator": concat!("fastnnunet ", env!("CARGO_PKG_VERSION")) },
            "scene": 0,
            "scenes": [{ "nodes": [root] }],
            "nodes": self.nodes,
        });
        if root > 0 {
            document["meshes"] = json!(self.meshes);
            document["materials"] = json!(self.materials);
            document["accessors"] = json!(self.accessors);
            document["bufferViews"] = json!(self.views);
            document["buffers"] = json!([{ "byteLength": self.buffer.len() }]);
        }
        (document.to_string().into_bytes(), self.buffer)
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let (mut text, buffer) = self.document();
        text.resize(text.len().next_multiple_of(4), b' ');
        let chunks: &[(&[u8; 4], &[u8])] = &[(b"JSON", &text), (b"BIN\0", &buffer)];
        let chunks = if buffer.is_empty() { &chunks[..1] } else { chunks };
        let length = 12 + chunks.iter().map(|(_, bytes)| 8 + bytes.len()).sum::<usize>();
        let size = |n: usize| {
            let too_long = |_| io::Error::other("surfaces of more than the 4 GiB of a glTF file");
            u32::try_from(n).map(u32::to_le_bytes).map_err(too_long)
        };
        out.write_all(b"glTF")?;
        out.write_all(&2_u32.to_le_bytes())?;
        out.write_all(&size(length)?)?;
        for (kind, bytes) in chunks {
            out.write_all(&size(bytes.len())?)?;
            out.write_all(*kind)?;
            out.write_all(bytes)?;
        }
        Ok(())
    }
}

/// A part of a color as light, which is what glTF counts.
fn linear(part: u8) -> f64 {
    let part = f64::from(part) / 255.0;
    if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
}
