//! How sums leave a cube: as parts of a sum, or whole and with moments.

use super::super::geometry::{Layer, Place, count, target};
use super::super::moments::about;
use super::{Form, Member};
use cubecl::prelude::*;

/// Writes parts of a sum that other cubes make the rest of.
#[cube]
pub(super) fn part(
    sums: &mut [Vector<f32, Const<4>>],
    acc: &Array<Vector<f32, Const<4>>>,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let [_, tile_y, _] = form.window.tile;
    let (z, x) = (here.z + own.z, here.x + own.x);
    if own.active && x < layer.ox && z < layer.oz && own.block < layer.made {
        #[unroll]
        for r in 0..form.rows {
            let y = here.y + own.y + r;
            if own.y + r < tile_y && y < layer.oy {
                let to = target(layer, here, own.block, z, y, x, form.scatter) * 2;
                sums[to] = acc[r * 2];
                sums[to + 1] = acc[r * 2 + 1];
            }
        }
    }
}

/// Sums of a thread for the moments of its channels: deviations from the tile's first voxel, so that
/// they stay exact however far the mean is from 0.
#[derive(CubeType)]
struct Moments {
    shift: Array<Vector<f32, Const<4>>>,
    one: Array<Vector<f32, Const<4>>>,
    two: Array<Vector<f32, Const<4>>>,
}

/// Adds biases.
#[cube]
pub(super) fn bias(
    params: &[Vector<f32, Const<4>>],
    acc: &mut Array<Vector<f32, Const<4>>>,
    layer: &Layer,
    own: &Member,
    #[comptime] form: Form,
) {
    let taps = comptime!(form.scatter[0] * form.scatter[1] * form.scatter[2]);
    let from = layer.bias + min(own.block, layer.made - 1) / taps * 2;
    #[unroll]
    for r in 0..form.rows {
        acc[r * 2] += params[from];
        acc[r * 2 + 1] += params[from + 1];
    }
}

/// Writes sums, and moments where they are wanted.
#[cube]
pub(super) fn whole<O: Float>(
    output: &mut [Vector<O, Const<4>>],
    parts: &mut [Vector<f32, Const<4>>],
    acc: &Array<Vector<f32, Const<4>>>,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let [_, tile_y, _] = form.window.tile;
    let mut moments =
        Moments { shift: Array::new(2usize), one: Array::new(2usize), two: Array::new(2usize) };
    if comptime!(form.moments) {
        begin(&mut moments, acc, own, form);
    }
    let (z, x) = (here.z + own.z, here.x + own.x);
    if own.active && x < layer.ox && z < layer.oz {
        #[unroll]
        for r in 0..form.rows {
            let y = here.y + own.y + r;
            if own.y + r < tile_y && y < layer.oy {
                if comptime!(form.moments) {
                    #[unroll]
                    for k in 0..2usize {
                        let off = acc[r * 2 + k] - moments.shift[k];
                        moments.one[k] += off;
                        moments.two[k] += off * off;
                    }
                }
                if own.block < layer.made {
                    let to = target(layer, here, own.block, z, y, x, form.scatter) * 2;
                    output[to] = Vector::cast_from(acc[r * 2]);
                    output[to + 1] = Vector::cast_from(acc[r * 2 + 1]);
                }
            }
        }
    }
    if comptime!(form.moments) {
        join(parts, &moments, layer, here, own, form);
    }
}

#[cube]
fn begin(
    moments: &mut Moments,
    acc: &Array<Vector<f32, Const<4>>>,
    own: &Member,
    #[comptime] form: Form,
) {
    let mut firsts =
        Shared::<[Vector<f32, Const<4>>]>::new_aligned_slice(comptime!(form.blocks * 2), 16usize);
    if own.number == 0 {
        firsts[own.own * 2] = acc[0];
        firsts[own.own * 2 + 1] = acc[1];
    }
    sync_cube();
    #[unroll]
    for k in 0..2usize {
        moments.shift[k] = firsts[own.own * 2 + k];
        moments.one[k] = Vector::new(0.0);
        moments.two[k] = Vector::new(0.0);
    }
}

/// Adds up the sums of a block's threads, as a tree, and writes moments.
#[cube]
fn join(
    parts: &mut [Vector<f32, Const<4>>],
    moments: &Moments,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let threads = form.threads;
    let unit = UNIT_POS as usize;
    let mut gathered =
        Shared::<[Vector<f32, Const<4>>]>::new_aligned_slice(comptime!(threads * 4), 16usize);
    #[unroll]
    for k in 0..2usize {
        gathered[k * threads + unit] = moments.one[k];
        gathered[(k + 2) * threads + unit] = moments.two[k];
    }
    let mut half = comptime!(form.team() / 2).runtime();
    sync_cube();
    while half > 0 {
        if own.number < half {
            #[unroll]
            for k in 0..4usize {
                let at = k * threads + unit;
                gathered[at] = gathered[at] + gathered[at + half];
            }
        }
        half /= 2;
        sync_cube();
    }
    if own.number == 0 && own.block < layer.made {
        let n = Vector::<f32, Const<4>>::new(count(layer, here, form.window));
        let tiles = layer.nz * layer.ny * layer.nx;
        let to = ((here.image * layer.blocks_out + own.block) * tiles + here.tile) * 6;
        #[unroll]
        for k in 0..2usize {
            let one = gathered[k * threads + unit];
            let two = gathered[(k + 2) * threads + unit];
            let (mean, squares) = about::<Const<4>>(n, moments.shift[k], one, two);
            parts[to + k] = n;
            parts[to + 2 + k] = mean;
            parts[to + 4 + k] = squares;
        }
    }
}
