//! Slices to a volume: decoded side by side, each released as it goes into its place.

use super::source::Source;
use super::{Grid, Voxels, regrid};
use crate::Verdict;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pixels::{self, Value};
use crate::read::image::{Image, changed};
use crate::read::place::{Content, Places};
use crate::series::Series;
use crate::series::stack::{Slice, Stack};
use base16ct::lower;
use fastnnunet_model::Mismatch;
use ndarray::Array3;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

/// Bounds of reading a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// Bytes the volume may take while it is made.
    pub max_bytes: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { max_bytes: Limits::default().max_bytes }
    }
}

/// A series as a volume.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values, in half the memory where slices allow it.
    pub voxels: Voxels,
    /// Where the voxels lie.
    pub grid: Grid,
    /// What an object about this series refers to and copies.
    pub source: Source,
    /// What was corrected, and whether the source was compressed with loss: a sentence each.
    pub notes: Vec<String>,
    /// SHA-256 of the SHA-256 of each file read, in the order of slices, in hexadecimal digits.
    pub sha256: String,
}

impl Series {
    /// Bytes that [`load`](Self::load) holds at most, if this is a suitable series.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let stack = self.stack.as_ref()?;
        let voxels = |shape: [usize; 3]| shape.iter().map(|&n| n as u64).product::<u64>();
        let slice = &stack.slices[0].image.layout;
        let pixels = (slice.rows * slice.columns) as u64;
        let value = if factors(stack).is_some() { size_of::<i16>() } else { size_of::<f32>() };
        let mut bytes = value as u64 * voxels(stack.grid.shape);
        if stack.regrid.is_some() {
            bytes += 4 * pixels * stack.slices.len() as u64;
        }
        // What each thread decodes: a file's bytes, its frame as integers, and some to spare.
        Some(bytes + rayon::current_num_threads() as u64 * 16 * pixels)
    }

    /// What objects about the series refer to, for labels that were made elsewhere.
    ///
    /// Identifiers that the series has not got are made of its name; those of
    /// [`load`](Self::load), of what was read.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn source(&self) -> Result<Source> {
        Source::read(&self.places, self.suitable()?, &self.name)
    }

    fn suitable(&self) -> Result<&Stack> {
        self.stack.as_ref().ok_or_else(|| {
            let none = Mismatch::new("no volume", "a suitable series");
            self.refusal().unwrap_or_else(|| Error::input(&self.places.root, none))
        })
    }

    /// Reads the series as a volume.
    ///
    /// Values are `stored * slope + intercept` of each slice, in `f64` and then rounded to `f32`, or
    /// what is stored where all slices have one slope and intercept; padding stays what it is. Slices lie in the order of their positions along the normal of
    /// their planes. A tilted or uneven series is resampled linearly onto the grid that
    /// [`Series::shape`] tells, air outside.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the series is refused or its pixels are damaged, [`Error::Read`] if a
    /// file cannot be read, and [`Error::Memory`] if the volume would exceed the limit.
    pub fn load(&self, options: &LoadOptions) -> Result<Loaded> {
        let stack = self.suitable()?;
        let need_bytes = self.bytes().unwrap_or(u64::MAX);
        if need_bytes > options.max_bytes {
            let limit_bytes = options.max_bytes;
            return Err(Error::Memory { what: "the volume of a series", need_bytes, limit_bytes });
        }
        let layout = &stack.slices[0].image.layout;
        let shape = [stack.slices.len(), layout.rows, layout.columns];
        let (voxels, sha256) = if let Some([slope, intercept]) = factors(stack) {
            let mut stored = Array3::<i16>::zeros(shape);
            let sha256 = fill(&self.places, stack, &mut stored)?;
            (Voxels::I16 { stored, slope, intercept }, sha256)
        } else {
            let mut slices = Array3::<f32>::zeros(shape);
            let sha256 = fill(&self.places, stack, &mut slices)?;
            let values = match &stack.regrid {
                None => slices,
                Some(regrid) => regrid::resample(slices.view(), regrid, stack.grid.shape),
            };
            (Voxels::F32(values), sha256)
        };
        let mut notes = match &self.verdict {
            Verdict::Corrected(notes) => notes.clone(),
            _ => Vec::new(),
        };
        if stack.slices.iter().any(|slice| slice.image.layout.lossy) {
            notes.push("the source was compressed with loss".into());
        }
        let source = Source::read(&self.places, stack, &sha256)?;
        Ok(Loaded { voxels, grid: stack.grid.clone(), source, notes, sha256 })
    }
}

/// Slope and intercept, if all slices have one of each, are planes of the volume as they are, and
/// store what fits 16 bits.
fn factors(stack: &Stack) -> Option<[f64; 2]> {
    let of = |slice: &Slice| [slice.of().slope, slice.of().intercept];
    let first = of(&stack.slices[0]);
    let alike = |slice: &Slice| of(slice) == first && slice.image.layout.fits_i16();
    (stack.regrid.is_none() && stack.slices.iter().all(alike)).then_some(first)
}

/// The frames of one file, and where their values go.
type Frames<'a, T> = (Arc<Image>, Vec<(&'a Slice, &'a mut [T])>);

/// Decodes all slices; returns the digest of the files.
fn fill<T: Value>(places: &Places, stack: &Stack, voxels: &mut Array3<T>) -> Result<String> {
    let pixels = voxels.len() / stack.slices.len();
    let values = voxels.as_slice_mut().expect("a new array is contiguous");
    let mut files: Vec<Frames<'_, T>> = Vec::new();
    for (slice, values) in stack.slices.iter().zip(values.chunks_mut(pixels)) {
        match files.iter_mut().rfind(|(image, _)| Arc::ptr_eq(image, &slice.image)) {
            // Frames of one file are neighbours, but for the oddest of series.
            Some((_, frames)) if slice.image.frames.len() > 1 => frames.push((slice, values)),
            _ => files.push((slice.image.clone(), vec![(slice, values)])),
        }
    }
    let digests: Vec<[u8; 32]> = files
        .into_par_iter()
        .map(|(image, frames)| read_file(places, &image, frames))
        .collect::<Result<_>>()?;
    Ok(lower::encode_string(&Sha256::digest(digests.concat())))
}

/// Decodes frames of one file; returns the file's digest.
fn read_file<T: Value>(
    places: &Places,
    image: &Image,
    frames: Vec<(&Slice, &mut [T])>,
) -> Result<[u8; 32]> {
    let path = places.path(image.place);
    let damaged = |fault| Error::input(path, fault);
    let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
    let mut content = places.open(image.place)?;
    if let (Content::File(_, len), false, true) =
        (&content, image.layout.syntax.deflated, image.frames.len() > 1)
    {
        // Many frames: each reads its own part of the file.
        let len = *len;
        image.again(content.source().0, len).map_err(damaged)?;
        frames.into_par_iter().try_for_each(|(slice, out)| {
            let mut content = places.open(image.place)?;
            let bytes = frame_bytes(&mut content, slice).map_err(damaged)?;
            decode(slice, &bytes, out).map_err(damaged)
        })?;
        let Content::File(mut file, _) = content else { unreachable!("it was one") };
        file.rewind().map_err(unreadable)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 16];
        let mut left = len;
        while left > 0 {
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            file.read_exact(&mut block[..part]).map_err(unreadable)?;
            hash.update(&block[..part]);
            left -= part as u64;
        }
        return Ok(hash.finalize().into());
    }
    drop(content);
    let bytes = places.bytes(image.place)?;
    let digest = Sha256::digest(&bytes).into();
    let bytes = data_of(image, bytes).map_err(damaged)?;
    frames.into_par_iter().try_for_each(|(slice, out)| {
        let parts = extents(slice).map_err(damaged)?;
        let whole = joined(&bytes, &parts).map_err(damaged)?;
        decode(slice, &whole, out).map_err(damaged)
    })?;
    Ok(digest)
}

/// The bytes that positions of pixels count in, of a file that is still what it was.
fn data_of(image: &Image, bytes: Vec<u8>) -> Result<Vec<u8>, Mismatch> {
    let opened = image.again(&mut Cursor::new(&bytes[..]), bytes.len() as u64)?;
    Ok(opened.inflated.unwrap_or(bytes))
}

fn extents(slice: &Slice) -> Result<Vec<(u64, u64)>, Mismatch> {
    pixels::extents(&slice.image.layout, slice.frame, slice.image.frames.len())
}

fn joined<'a>(
    bytes: &'a [u8],
    parts: &[(u64, u64)],
) -> Result<std::borrow::Cow<'a, [u8]>, Mismatch> {
    let part = |&(start, len): &(u64, u64)| {
        let end = usize::try_from(start.saturating_add(len)).ok();
        let start = usize::try_from(start).ok();
        start.zip(end).and_then(|(start, end)| bytes.get(start..end)).ok_or_else(changed)
    };
    match parts {
        [one] => Ok(part(one)?.into()),
        _ => Ok(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.concat().into()),
    }
}

fn frame_bytes(content: &mut Content, slice: &Slice) -> Result<Vec<u8>, Mismatch> {
    let failed =
        |e: std::io::Error| Mismatch::new(format!("a read error ({})", e.kind()), "a file");
    let (source, file_len) = content.source();
    let mut bytes = Vec::new();
    for (start, len) in extents(slice)? {
        if start.saturating_add(len) > file_len {
            return Err(changed());
        }
        source.seek(SeekFrom::Start(start)).map_err(failed)?;
        source.take(len).read_to_end(&mut bytes).map_err(failed)?;
    }
    Ok(bytes)
}

fn decode<T: Value>(slice: &Slice, bytes: &[u8], out: &mut [T]) -> Result<(), Mismatch> {
    let frame = slice.of();
    pixels::decode(&slice.image.layout, (frame.slope, frame.intercept), bytes, out)
}

/// Whether two slices hold the same values.
pub(crate) fn same_pixels(places: &Places, a: &Slice, b: &Slice) -> Result<bool, Mismatch> {
    let values = |slice: &Slice| -> Result<Vec<f32>, Mismatch> {
        let layout = &slice.image.layout;
        let mut out = vec![0.0; layout.rows * layout.columns];
        let unreadable = |e: Error| Mismatch::new(e.to_string(), "a readable file");
        if layout.syntax.deflated {
            let bytes =
                data_of(&slice.image, places.bytes(slice.image.place).map_err(unreadable)?)?;
            decode(slice, &joined(&bytes, &extents(slice)?)?, &mut out)?;
        } else {
            let mut content = places.open(slice.image.place).map_err(unreadable)?;
            decode(slice, &frame_bytes(&mut content, slice)?, &mut out)?;
        }
        Ok(out)
    };
    Ok(values(a)? == values(b)?)
}
