//! Bands beside both layers as a whole.

use super::*;

/// Shapes compared.
const SHAPES: usize = if cfg!(miri) { 4 } else { 40 };

/// What both make: bits of the output, and moments.
type Made = (Vec<u32>, Vec<Moments>);

struct Case {
    factor: [usize; 3],
    /// Input of the transposed convolution.
    input: [usize; 3],
    kernel: [usize; 3],
    pad: [[usize; 2]; 3],
    dilation: usize,
    /// Channels before, of, and behind what is enlarged.
    channels: [usize; 3],
    outputs: usize,
}

impl Case {
    /// Both layers in bands, where that is possible, and one after the other.
    fn run(
        &self,
        isa: Isa,
        arithmetic: Arithmetic,
        format: Format,
        threads: usize,
    ) -> Option<[Made; 2]> {
        let Self { factor, input, channels: [before, enlarged, behind], outputs, .. } = *self;
        let dims = std::array::from_fn(|k| input[k] * factor[k]);
        let small = Layout::sliced(3, input, input[2] + 1);
        let shape = Shape::plain(3, enlarged, input, [1; 3]);
        let (weights, bias) =
            (noise(3 * enlarged * factor.iter().product::<usize>(), 1), noise(enlarged, 2));
        let up = Layer { format, ..Layer::new(arithmetic, shape, &weights, &bias) };
        let up = Upsample::new(isa, &up, factor);
        let shape = Shape {
            pad_begin: self.pad.map(|[begin, _]| begin),
            pad_end: self.pad.map(|[_, end]| end),
            dilation: [1, self.dilation, 1],
            ..Shape::plain(before + enlarged + behind, outputs, dims, self.kernel)
        };
        shape.output()?;
        let (weights, bias) = (noise(shape.weights(), 3), noise(outputs, 4));
        let layer = Layer { format, ..Layer::new(arithmetic, shape, &weights, &bias) };
        let conv = Conv::new(isa, &layer);
        let ring = UpsampledConv::ring_of(&up, &conv)?;

        let affine = |c: usize| Affine { scale: 1.0 + c as f32 * 0.1, shift: 0.1, slope: 0.01 };
        let affines: Vec<Affine> = (0..before + enlarged + behind).map(affine).collect();
        let (data, first, last) = (noise(small.len(), 5), before, before + enlarged);
        let around = [before, behind].map(|count| Layout::sliced(count, dims, dims[2] + 2));
        let arrays = around.map(|layout| noise(layout.len(), 6));
        let source = |data, layout, affines| Source { data, format: Format::F32, layout, affines };
        let left = source(&arrays[0], around[0], &affines[..first]);
        let right = source(&arrays[1], around[1], &affines[last..]);
        let small = source(&data, small, &affines[..3]);
        let layout = Layout::sliced(outputs, conv.output, conv.pitch());
        let made = |run: &(dyn Fn(&mut [f32], &mut [Moments]) + Sync)| {
            // What is between rows is nobody's.
            let mut out = vec![0.0; format.floats(layout.len())];
            let mut moments = vec![Moments::default(); conv.moments_len()];
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(&mut out, &mut moments));
            let stored = Source { data: &out, format, layout, affines: &[] };
            let mut bits = Vec::new();
            for (c, z, y) in every_row(layout) {
                bits.extend((0..layout.dims[2]).map(|x| float(stored.row(c, z, y), x).to_bits()));
            }
            (bits, moments)
        };
        let whole = Layout::sliced(enlarged, dims, dims[2]);
        let one_by_one = made(&|out, moments| {
            let mut all = vec![f32::NAN; format.floats(whole.len())];
            up.run(&[small], &mut all, whole, None, &used(up.scratch_len()));
            let all = Source { data: &all, format, layout: whole, affines: &affines[first..last] };
            conv.run(&[left, all, right], out, layout, Some(moments), &used(conv.scratch_len()));
        });
        let both = UpsampledConv::new(up.clone(), conv.clone());
        let in_bands = made(&|out, moments| {
            let mut rows = vec![f32::NAN; format.floats(ring.len())];
            let (ring, affines) = (&mut rows[..], &affines[first..last]);
            let enlarged = Enlarged { sources: &[small], place: 1, affines, ring };
            let scratch = used(both.scratch_len());
            both.run(&[left, right], enlarged, (out, layout), Some(moments), &scratch);
        });
        assert!(ring.dims[1] < dims[1]);
        Some([in_bands, one_by_one])
    }
}

fn every_row(layout: Layout) -> impl Iterator<Item = (usize, usize, usize)> {
    let [slices, rows, _] = layout.dims;
    let planes = (0..layout.channels).flat_map(move |c| (0..slices).map(move |z| (c, z)));
    planes.flat_map(move |(c, z)| (0..rows).map(move |y| (c, z, y)))
}

#[test]
fn bands_make_the_bytes_of_both_layers_on_every_isa() {
    let case = Case {
        factor: [2; 3],
        input: [1, 64, 5],
        kernel: [3; 3],
        pad: [[1; 2]; 3],
        dilation: 1,
        channels: [8, 8, 1],
        outputs: 9,
    };
    for isa in tested() {
        for (arithmetic, format) in
            [(Arithmetic::F32, Format::F32), (Arithmetic::Bf16, Format::Bf16)]
        {
            if arithmetic == Arithmetic::Bf16 && !isa.has_bf16() {
                continue;
            }
            for threads in [1, 3] {
                let [in_bands, one_by_one] = case
                    .run(isa, arithmetic, format, threads)
                    .expect("as many strips as that takes");
                assert!(in_bands == one_by_one, "{isa} {arithmetic}");
            }
        }
    }
}

#[test]
fn bands_make_the_bytes_of_both_layers_in_every_shape() {
    let (mut random, mut compared) = (any_shape::Random(22), 0);
    while compared < SHAPES {
        let mut within = |low, high| random.within(low, high);
        let case = Case {
            factor: [within(1, 2), within(1, 4), within(1, 3)],
            input: [1, within(20, 70), within(1, 6)],
            kernel: [within(1, 3), within(1, 4), within(1, 3)],
            pad: std::array::from_fn(|_| [within(0, 4), within(0, 4)]),
            dilation: within(1, 3),
            channels: [within(1, 6), within(1, 6), within(1, 6)],
            outputs: within(1, 9),
        };
        let Some([in_bands, one_by_one]) = case.run(Isa::best(), Arithmetic::F32, Format::F32, 2)
        else {
            continue;
        };
        assert!(in_bands == one_by_one, "{compared}");
        compared += 1;
    }
}
