//! Images that stay the caller's, with their place in the patient.

use crate::sized::{self, Sized_};
use crate::status::{Status, guard, usage};
use fastnnunet::Error;
use fastnnunet::volume::{Affine, Grid, Scale, VoxelView};
use ndarray::{ArrayView3, Axis, Ix3, ShapeBuilder};
use std::ffi::c_void;

/// The type of a voxel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Type {
    /// Labels up to 255.
    Uint8 = 1,
    /// Labels up to 65535.
    Uint16 = 2,
    /// What scanners write.
    Int16 = 3,
    /// Values as they are.
    Float32 = 4,
}

/// An image in the caller's memory. It is read during the call and never changed; it is copied only
/// where slices interleave in memory, and then for as long as it is resampled.
///
/// Axes are in the order `x`, `y`, `z`, which is that of the columns of `affine`; for an ordinary CT
/// `x` counts columns, `y` rows and `z` slices.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Image {
    /// `sizeof(fnn_image)`.
    pub size: usize,
    /// The first voxel, aligned like its type.
    pub voxels: *const c_void,
    /// `FNN_TYPE_INT16` or `FNN_TYPE_FLOAT32`.
    pub r#type: i32,
    /// For the fields of versions to come; 0.
    pub reserved: i32,
    /// Voxels along x, y and z.
    pub shape: [usize; 3],
    /// Bytes from a voxel to the next along x, y and z, negative where an axis runs backwards. All 0
    /// for x fastest, then y, without gaps.
    pub strides: [isize; 3],
    /// What an int16 stands for: `stored * slope + intercept`, in Hounsfield units for a CT. A slope
    /// of 0 counts as 1.
    pub slope: f64,
    /// As `slope`.
    pub intercept: f64,
    /// Millimetres per voxel along x, y and z. All 0 for the lengths of the columns of `affine`.
    pub spacing: [f64; 3],
    /// From a voxel's index (x, y, z, 1) to millimetres right, anterior and superior in the patient,
    /// as NIfTI has it: three rows of four. `fnn_image_place` makes it of what DICOM and ITK have.
    pub affine: [f64; 12],
}

// SAFETY: numbers and a pointer, which any bytes are; the first is the size.
unsafe impl Sized_ for Image {
    const NAME: &'static str = "fnn_image";
    const FIRST: usize = size_of::<Self>();
}

/// Sets `spacing` and `affine` from a geometry in the axes of DICOM and ITK, which run to the left,
/// posterior and superior: the `origin` of the first voxel, and `directions`, three rows of three, whose
/// columns are the unit vectors along x, y and z.
///
/// # Safety
///
/// `image` points to a struct with its size set; the others to 3, 9 and 3 numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fnn_image_place(
    image: *mut Image,
    origin: *const f64,
    directions: *const f64,
    spacing: *const f64,
) -> Status {
    guard(|| {
        if origin.is_null() || directions.is_null() || spacing.is_null() {
            return Err(usage("fnn_image_place", "NULL", "origin, directions and spacing"));
        }
        // SAFETY: not NULL, and as many numbers by the caller's promise.
        let (origin, directions, spacing) = unsafe {
            (
                *origin.cast::<[f64; 3]>(),
                *directions.cast::<[f64; 9]>(),
                *spacing.cast::<[f64; 3]>(),
            )
        };
        // SAFETY: a struct with its size by the caller's promise.
        let mut placed = unsafe { sized::read(image) }?;
        placed.spacing = spacing;
        for row in 0..3 {
            // Left and posterior are right and anterior the other way.
            let sign = if row < 2 { -1.0 } else { 1.0 };
            for column in 0..3 {
                placed.affine[4 * row + column] =
                    sign * directions[3 * row + column] * spacing[column];
            }
            placed.affine[4 * row + 3] = sign * origin[row];
        }
        // SAFETY: the same struct.
        unsafe { sized::write(image, &placed) }
    })
}

/// The images of a case, lent.
///
/// # Safety
///
/// `images` points to `count` structs as the header says, with voxels that stay as they are while the
/// result is used.
pub(crate) unsafe fn lent<'a>(
    images: *const Image,
    count: usize,
) -> Result<Vec<(VoxelView<'a>, Grid)>, Error> {
    if images.is_null() || count == 0 {
        return Err(usage("images", "none", "one for each channel of the model"));
    }
    let mut lent = Vec::new();
    let mut at = images;
    for _ in 0..count {
        // SAFETY: a struct by the caller's promise.
        let image = unsafe { sized::read(at) }?;
        // SAFETY: with voxels by the caller's promise.
        lent.push((unsafe { view(&image) }?, grid(&image)?));
        // SAFETY: structs of an array are as far apart as they are large; after the last is its end.
        at = unsafe { at.byte_add(image.size) };
    }
    Ok(lent)
}

/// The voxels of an image as `[z, y, x]`.
///
/// # Safety
///
/// All that shape and strides reach from `voxels` can be read as numbers of the type while the result
/// is used.
unsafe fn view<'a>(image: &Image) -> Result<VoxelView<'a>, Error> {
    let is_scaled = (image.slope != 0.0 && image.slope != 1.0) || image.intercept != 0.0;
    match image.r#type {
        kind if kind == Type::Int16 as i32 => {
            let slope = if image.slope == 0.0 { 1.0 } else { image.slope };
            let scale = Scale { slope, intercept: image.intercept };
            // SAFETY: the caller's promise is the same.
            Ok(VoxelView::I16(unsafe { array(image) }?, scale))
        }
        kind if kind == Type::Float32 as i32 => {
            if is_scaled {
                return Err(usage(
                    "slope and intercept",
                    "them for FNN_TYPE_FLOAT32",
                    "values as they are",
                ));
            }
            // SAFETY: the caller's promise is the same.
            Ok(VoxelView::F32(unsafe { array(image) }?))
        }
        other => Err(usage("type", other.to_string(), "FNN_TYPE_INT16 or FNN_TYPE_FLOAT32")),
    }
}

/// As [`view`], for voxels of type `T`.
///
/// # Safety
///
/// As [`view`].
unsafe fn array<'a, T>(image: &Image) -> Result<ArrayView3<'a, T>, Error> {
    let first = image.voxels.cast::<T>();
    if first.is_null() || !first.is_aligned() {
        let found = if first.is_null() { "NULL" } else { "an address that is not aligned" };
        return Err(usage("voxels", found, "the first voxel, aligned like its type"));
    }
    let strides = Steps::new(image.shape, image.strides, size_of::<T>())?;
    let [x, y, z] = image.shape;
    let [sx, sy, sz] = strides.steps.map(isize::unsigned_abs);
    // SAFETY: by the caller's promise all voxels can be read, the one with the lowest address too,
    // which lies so many before the first. `Steps` has checked that no offset overflows.
    let view = unsafe {
        ArrayView3::from_shape_ptr(Ix3(z, y, x).strides(Ix3(sz, sy, sx)), first.sub(strides.before))
    };
    let mut view = view;
    for (axis, step) in [2, 1, 0].into_iter().zip(strides.steps) {
        if step < 0 {
            view.invert_axis(Axis(axis));
        }
    }
    Ok(view)
}

/// How far apart voxels are in memory, counted in voxels.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Along x, y and z.
    pub(crate) steps: [isize; 3],
    /// How far the voxel with the lowest address lies before the first one.
    before: usize,
}

impl Steps {
    /// Those of an array of numbers of `bytes` bytes whose strides are in bytes, or all 0 for x
    /// fastest without gaps.
    pub(crate) fn new(shape: [usize; 3], strides: [isize; 3], bytes: usize) -> Result<Self, Error> {
        let too_large = || usage("shape and strides", "more than memory can hold", "an array");
        let [x, y, _] = shape;
        let row = x.checked_mul(y).and_then(|voxels| isize::try_from(voxels).ok());
        let packed = [1, x as isize, row.ok_or_else(too_large)?];
        let steps = if strides == [0; 3] {
            packed
        } else {
            let bytes = bytes as isize;
            if strides.iter().any(|stride| stride % bytes != 0) {
                let expected = format!("multiples of {bytes} bytes");
                return Err(usage("strides", format!("{strides:?}"), expected));
            }
            strides.map(|stride| stride / bytes)
        };
        let (mut before, mut after) = (0_usize, 0_usize);
        for (count, step) in shape.into_iter().zip(steps) {
            let reach = count.saturating_sub(1).checked_mul(step.unsigned_abs());
            let end = if step < 0 { &mut before } else { &mut after };
            *end = reach.and_then(|reach| end.checked_add(reach)).ok_or_else(too_large)?;
        }
        // Also of the product of the shape, which a stride of 0 would not bound.
        let count = shape.into_iter().try_fold(1_usize, usize::checked_mul);
        let spans = before.checked_add(after).and_then(|span| span.checked_add(1));
        let fits = |voxels: Option<usize>| {
            voxels.and_then(|n| n.checked_mul(bytes)).is_some_and(|n| isize::try_from(n).is_ok())
        };
        if fits(count) && fits(spans) { Ok(Self { steps, before }) } else { Err(too_large()) }
    }
}

/// How far a spacing may be from the length of the affine's column: what float32 geometry in files
/// explains many times over, and no wrong order of axes does.
const LENGTH_TOLERANCE: f64 = 0.01;

/// Where an image lies.
fn grid(image: &Image) -> Result<Grid, Error> {
    let rows: [[f64; 4]; 3] =
        std::array::from_fn(|row| std::array::from_fn(|column| image.affine[4 * row + column]));
    let affine = Affine(rows);
    let length = |axis: usize| affine.step(axis).iter().map(|s| s * s).sum::<f64>().sqrt();
    let lengths = [2, 1, 0].map(length);
    let spacing = if image.spacing == [0.0; 3] { lengths } else { image.spacing };
    let differs = |(spacing, length): (&f64, &f64)| {
        (spacing - length).abs() > LENGTH_TOLERANCE * length.abs()
    };
    if spacing.iter().zip(&lengths).any(differs) {
        return Err(Error::Volume {
            found: format!("a spacing of {spacing:?} mm where the affine steps by {lengths:?}"),
            expected: "the same along x, y and z".to_owned(),
        });
    }
    let ([x, y, z], [nx, ny, nz]) = (spacing, image.shape);
    Ok(Grid { shape: [nz, ny, nx], spacing: [z, y, x], affine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_say_how_far_memory_reaches() {
        let steps = |shape, strides| Steps::new(shape, strides, 2).map_err(|e| e.to_string());
        let packed = Steps { steps: [1, 5, 20], before: 0 };
        assert_eq!(steps([5, 4, 3], [0; 3]), Ok(packed));
        let flipped = Steps { steps: [-1, 5, -20], before: 4 + 2 * 20 };
        assert_eq!(steps([5, 4, 3], [-2, 10, -40]), Ok(flipped));
        let broadcast = Steps { steps: [1, 0, 0], before: 0 };
        assert_eq!(steps([5, 4, 3], [2, 0, 0]), Ok(broadcast));
        let odd = steps([5, 4, 3], [3, 10, 40]).expect_err("between numbers");
        assert!(odd.contains("multiples of 2 bytes"), "{odd}");
        let most = usize::MAX / 2;
        for (shape, strides) in [
            ([most, 3, 1], [0; 3]),
            ([2, 2, 2], [isize::MAX - 1; 3]),
            ([2, 2, 2], [isize::MIN, 2, 2]),
            ([most, most, most], [2, 0, 0]),
            ([1 << 20, 1 << 21, 1 << 22], [0, 0, 2]),
        ] {
            let error = steps(shape, strides).expect_err("beyond memory");
            assert!(error.contains("more than memory"), "{shape:?}: {error}");
        }
    }
}
