//! How sums leave a cube: as parts of a sum, scattered, or whole and with moments.

use super::super::geometry::{Layer, Place, count, target};
use super::super::moments::about;
use super::{Acc, Form, Member, halves};
use cubecl::prelude::*;

/// Writes parts of a sum that other cubes make the rest of.
#[cube]
pub(super) fn part(
    sums: &mut [Vector<f32, Const<2>>],
    acc: &Acc,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let low = own.lane % 4;
    #[unroll]
    for i in 0..form.rows {
        #[unroll]
        for h in 0..2usize {
            let (z, y, x, inside) = voxel_of(layer, here, own, i, h, form);
            if inside {
                #[unroll]
                for j in 0..form.columns {
                    let block = own.block + j;
                    if block < layer.made {
                        let to = target(layer, here, block, z, y, x, form.scatter);
                        sums[to * 4 + low] = acc.index(comptime!(i * form.columns + j))[h];
                    }
                }
            }
        }
    }
}

/// Adds biases.
#[cube]
pub(super) fn bias(
    params: &[Vector<f32, Const<2>>],
    acc: &mut Acc,
    layer: &Layer,
    own: &Member,
    #[comptime] form: Form,
) {
    let taps = comptime!(form.scatter[0] * form.scatter[1] * form.scatter[2]);
    #[unroll]
    for j in 0..form.columns {
        let block = min(own.block + j, layer.made - 1) / taps;
        let bias = params[(layer.bias + block * 2) * 2 + own.lane % 4];
        #[unroll]
        for i in 0..form.rows {
            let sum = acc.index_mut(comptime!(i * form.columns + j));
            sum[0] += bias;
            sum[1] += bias;
        }
    }
}

/// Writes sums, and moments where they are wanted.
#[cube]
pub(super) fn whole<M: Size>(
    output: &mut [Vector<u32, M>],
    parts: &mut [Vector<f32, Const<2>>],
    acc: &Acc,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let low = own.lane % 4;
    let mut moments = Moments {
        shift: Array::new(form.columns),
        one: Array::new(form.columns),
        two: Array::new(form.columns),
    };
    if comptime!(form.moments) {
        begin(&mut moments, acc, own, form);
    }
    #[unroll]
    for i in 0..form.rows {
        #[unroll]
        for h in 0..2usize {
            let (z, y, x, inside) = voxel_of(layer, here, own, i, h, form);
            if inside {
                #[unroll]
                for j in 0..form.columns {
                    let sum = acc.index(comptime!(i * form.columns + j))[h];
                    if comptime!(form.moments) {
                        let off = sum - moments.shift[j];
                        moments.one[j] += off;
                        moments.two[j] += off * off;
                    }
                    let block = own.block + j;
                    if block < layer.made {
                        let to = target(layer, here, block, z, y, x, form.scatter);
                        output[to * 4 + low] = Vector::new(halves(
                            sum.extract(0usize),
                            sum.extract(1usize),
                            form.brain,
                        ));
                    }
                }
            }
        }
    }
    if comptime!(form.moments) {
        join(parts, &moments, layer, here, own, form);
    }
}

/// Sums of a thread for the moments of each column: deviations from the tile's first voxel, so that
/// they stay exact however far the mean is from 0.
#[derive(CubeType)]
struct Moments {
    shift: Array<Vector<f32, Const<2>>>,
    one: Array<Vector<f32, Const<2>>>,
    two: Array<Vector<f32, Const<2>>>,
}

#[cube]
fn begin(moments: &mut Moments, acc: &Acc, own: &Member, #[comptime] form: Form) {
    let mut firsts = Shared::<[Vector<f32, Const<2>>]>::new_slice(comptime!(form.blocks() * 4));
    #[unroll]
    for j in 0..form.columns {
        if own.plane == 0 && own.lane < 4 {
            firsts[(own.wide * form.columns + j) * 4 + own.lane] = acc.index(j)[0];
        }
    }
    sync_cube();
    #[unroll]
    for j in 0..form.columns {
        moments.shift[j] = firsts[(own.wide * form.columns + j) * 4 + own.lane % 4];
        moments.one[j] = Vector::new(0.0);
        moments.two[j] = Vector::new(0.0);
    }
}

/// Adds up the sums of a cube and writes moments.
#[cube]
fn join(
    parts: &mut [Vector<f32, Const<2>>],
    moments: &Moments,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let channels = comptime!(form.blocks() * 4);
    let mut ones = Shared::<[Vector<f32, Const<2>>]>::new_slice(comptime!(form.planes * channels));
    let mut twos = Shared::<[Vector<f32, Const<2>>]>::new_slice(comptime!(form.planes * channels));
    let mut shifts = Shared::<[Vector<f32, Const<2>>]>::new_slice(channels);
    #[unroll]
    for j in 0..form.columns {
        let one = across(moments.one[j]);
        let two = across(moments.two[j]);
        if own.lane < 4 {
            let column = (own.wide * form.columns + j) * 4 + own.lane;
            ones[own.plane * channels + column] = one;
            twos[own.plane * channels + column] = two;
            if own.plane == 0 {
                shifts[column] = moments.shift[j];
            }
        }
    }
    sync_cube();
    let mut column = UNIT_POS as usize;
    while column < channels {
        let mut one = ones[column];
        let mut two = twos[column];
        #[unroll]
        for p in 1..form.planes {
            one += ones[p * channels + column];
            two += twos[p * channels + column];
        }
        let block = here.group * comptime!(form.blocks()) + column / 4;
        if block < layer.made {
            let n = Vector::<f32, Const<2>>::new(count(layer, here, form.window));
            let tiles = layer.nz * layer.ny * layer.nx;
            let to =
                ((here.image * layer.blocks_out + block) * tiles + here.tile) * 12 + column % 4;
            let (mean, squares) = about::<Const<2>>(n, shifts[column], one, two);
            parts[to] = n;
            parts[to + 4] = mean;
            parts[to + 8] = squares;
        }
        column += comptime!(form.threads());
    }
}

/// The voxel of the output that a lane has in half `h` of row `i`, and whether it is there.
#[cube]
fn voxel_of(
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] i: usize,
    #[comptime] h: usize,
    #[comptime] form: Form,
) -> (usize, usize, usize, bool) {
    let [_, ty, tx] = form.window.tile;
    let m = own.plane * comptime!(form.rows * 16) + comptime!(i * 16 + h * 8) + own.lane / 4;
    let x = here.x + m % tx;
    let y = here.y + m / tx % ty;
    let z = here.z + m / comptime!(tx * ty);
    let inside = z < layer.oz && y < layer.oy && x < layer.ox;
    (z, y, x, inside)
}

/// Writes each voxel to the voxels it is scattered to. Lanes of four hand each other columns, so that
/// each writes a whole block of channels.
#[cube]
pub(super) fn scattered<M: Size>(
    output: &mut [Vector<u32, M>],
    acc: &Acc,
    layer: &Layer,
    here: &Place,
    own: &Member,
    #[comptime] form: Form,
) {
    let low = own.lane % 4;
    #[unroll]
    for i in 0..form.rows {
        #[unroll]
        for h in 0..2usize {
            let (z, y, x, inside) = voxel_of(layer, here, own, i, h, form);
            #[unroll]
            for q in 0..form.columns / 4 {
                let mut four = Array::<u32>::new(4usize);
                #[unroll]
                for k in 0..4usize {
                    let sum = acc.index(comptime!(i * form.columns + q * 4 + k))[h];
                    four[k] = halves(sum.extract(0usize), sum.extract(1usize), form.brain);
                }
                let odd = low % 2 == 1;
                #[unroll]
                for k in 0..2usize {
                    let got = plane_shuffle_xor(select(odd, four[2 * k], four[2 * k + 1]), 1u32);
                    four[2 * k] = select(odd, got, four[2 * k]);
                    four[2 * k + 1] = select(odd, four[2 * k + 1], got);
                }
                let upper = low / 2 == 1;
                #[unroll]
                for k in 0..2usize {
                    let got = plane_shuffle_xor(select(upper, four[k], four[k + 2]), 2u32);
                    four[k] = select(upper, got, four[k]);
                    four[k + 2] = select(upper, four[k + 2], got);
                }
                let block = own.block + comptime!(q * 4) + low;
                if inside && block < layer.made {
                    let to = target(layer, here, block, z, y, x, form.scatter);
                    let mut all = Vector::<u32, M>::new(0u32);
                    #[unroll]
                    for k in 0..4usize {
                        all.insert(k, four[k]);
                    }
                    output[to] = all;
                }
            }
        }
    }
}

/// The sum over lanes with the same remainder of 4.
#[cube]
fn across(value: Vector<f32, Const<2>>) -> Vector<f32, Const<2>> {
    let mut sum = value;
    #[unroll]
    for k in 2..5u32 {
        sum += plane_shuffle_xor(sum, comptime!(1u32 << k));
    }
    sum
}
