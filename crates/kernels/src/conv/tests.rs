//! Kernels beside the definition of what they compute.

mod any_shape;
mod upsampled;

use super::*;

fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Scratch with what an earlier borrower left in it.
fn used(len: usize) -> ScratchPool {
    let scratch = ScratchPool::new(len);
    scratch.with(|piece| piece.fill(f32::NAN));
    scratch
}

/// Fills a slice of some layout with noise, gaps included.
fn tensor(layout: Layout, seed: u32) -> Vec<f32> {
    noise(layout.len(), seed)
}

/// What is read at a voxel of the padded, joined input; zero outside.
fn read(sources: &[Source<'_>], mut c: usize, place: [isize; 3]) -> f32 {
    for source in sources {
        if c < source.layout.channels {
            let inside = (0..3).all(|k| (0..source.layout.dims[k] as isize).contains(&place[k]));
            let [z, y, x] = place.map(|p| p as usize);
            return if inside {
                source.affines[c].apply(float(source.row(c, z, y), x))
            } else {
                0.0
            };
        }
        c -= source.layout.channels;
    }
    unreachable!()
}

/// Number `x` of a row.
fn float(row: Row<'_>, x: usize) -> f32 {
    match row {
        Row::F32(row) => row[x],
        Row::Bf16(row) => half::bf16::from_bits(row[x]).to_f32(),
        Row::I16(row) => f32::from(row[x]),
    }
}

/// `v` as it is multiplied.
fn rounded(arithmetic: Arithmetic, v: f32) -> f32 {
    match arithmetic {
        Arithmetic::F32 => v,
        Arithmetic::Bf16 => half::bf16::from_f32(v).to_f32(),
        Arithmetic::Int8 => unreachable!("it has its own test"),
    }
}

/// Value and sum of magnitudes of one output voxel, in f64.
fn naive(
    shape: &Shape,
    sources: &[Source<'_>],
    (weights, bias): (&[f32], &[f32]),
    round: impl Fn(f32) -> f32,
    (output, place): (usize, [usize; 3]),
) -> (f64, f64) {
    let [kz, ky, kx] = shape.kernel;
    let group_inputs = shape.inputs / shape.groups;
    let group = output / (shape.outputs / shape.groups);
    let (mut sum, mut magnitude) = (f64::from(bias[output]), f64::from(bias[output].abs()));
    for input in 0..group_inputs {
        for tap in 0..kz * ky * kx {
            let k = [tap / (ky * kx), tap / kx % ky, tap % kx];
            let from = std::array::from_fn(|a| {
                (place[a] * shape.stride[a] + k[a] * shape.dilation[a]) as isize
                    - shape.pad_begin[a] as isize
            });
            let v = round(read(sources, group * group_inputs + input, from));
            let w = round(weights[(output * group_inputs + input) * kz * ky * kx + tap]);
            sum += f64::from(v) * f64::from(w);
            magnitude += (f64::from(v) * f64::from(w)).abs();
        }
    }
    (sum, magnitude)
}

/// Every instruction set that can be tested here. Where the CPU lacks AMX, its instructions trap
/// and a handler computes what the manual says they do.
fn tested() -> Vec<Isa> {
    #[allow(unused_mut, reason = "other machines have nothing to emulate")]
    let mut all = Isa::available();
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        let amx = Isa::emulated(&crate::sets::amx::SET);
        // What is no convolution of pairs runs on AVX-512 itself.
        if Isa::best().has_bf16() && !all.contains(&amx) {
            amx_emulator::install();
            all.push(amx);
        }
    }
    all
}

/// Arithmetics, and tiles of minimal filtering, that can compute `shape`.
fn variants(isa: Isa, shape: &Shape) -> Vec<(Arithmetic, usize)> {
    let mut all = vec![(Arithmetic::F32, 1)];
    if isa.has_bf16() && shape.groups == 1 {
        all.push((Arithmetic::Bf16, 1));
    }
    if Layer::new(Arithmetic::F32, shape.clone(), &[], &[]).can_tile() {
        all.extend([(Arithmetic::F32, 2), (Arithmetic::F32, 4)]);
    }
    all
}

fn check(case: &str, shape: &Shape, split: usize) {
    let pitch = shape.input[2] + 3;
    let layouts: Vec<Layout> = [split, shape.inputs - split]
        .into_iter()
        .filter(|&channels| channels > 0)
        .map(|channels| Layout::sliced(channels, shape.input, pitch))
        .collect();
    let data: Vec<Vec<f32>> = layouts.iter().map(|&layout| tensor(layout, 1)).collect();
    let affines: Vec<Affine> = (0..shape.inputs)
        .map(|c| Affine { scale: 1.0 + c as f32 * 0.1, shift: 0.1, slope: 0.01 })
        .collect();
    let mut first = 0;
    let sources: Vec<Source<'_>> = layouts
        .iter()
        .zip(&data)
        .map(|(&layout, data)| {
            let affines = &affines[first..first + layout.channels];
            first += layout.channels;
            Source { data, format: Format::F32, layout, affines }
        })
        .collect();
    let (weights, bias) = (noise(shape.weights(), 2), noise(shape.outputs, 3));
    let output = shape.output().expect("the kernel fits");
    for isa in tested() {
        for (arithmetic, tile) in variants(isa, shape) {
            let layer = Layer::new(arithmetic, shape.clone(), &weights, &bias);
            let conv = Conv::with_tile(isa, &layer, tile, 0);
            let layout = Layout::sliced(shape.outputs, output, conv.pitch());
            let mut out = vec![f32::NAN; layout.len()];
            let mut moments = vec![Moments::default(); conv.moments_len()];
            let scratch = used(conv.scratch_len());
            conv.run(&sources, &mut out, layout, Some(&mut moments), &scratch);
            let round = |v: f32| rounded(arithmetic, v);
            // Each product and each sum rounds once, to f32 (half an epsilon each).
            let terms = weights.len() / shape.outputs + 1;
            for c in 0..shape.outputs {
                let (mut sum, mut count) = (0.0, 0);
                for z in 0..output[0] {
                    for y in 0..output[1] {
                        for x in 0..output[2] {
                            let found = f64::from(out[layout.at(c, z, y) + x]);
                            (sum, count) = (sum + found, count + 1);
                            if (x + 3 * y + 5 * z + c) % 7 != 0 && count > 200 {
                                continue;
                            }
                            let (exact, magnitude) =
                                naive(shape, &sources, (&weights, &bias), round, (c, [z, y, x]));
                            // Transforms mix rows: each term may err by that of its neighbors,
                            // times what their factors amount to.
                            let mixed = match tile {
                                1 => 0.0,
                                2 => 16.0,
                                _ => 200.0,
                            };
                            let spread = magnitude * terms as f64 + mixed * terms as f64;
                            let bound = spread * f64::from(f32::EPSILON);
                            assert!(
                                (found - exact).abs() <= bound,
                                "{case} {}: {found} at {:?}, not {exact}",
                                conv.name(),
                                [c, z, y, x]
                            );
                        }
                    }
                }
                let joined = moments
                    .iter()
                    .skip(c)
                    .step_by(shape.outputs)
                    .fold(Moments::default(), |sum, &m| sum.join(m));
                assert_eq!(joined.count as usize, count, "{case}");
                assert!(
                    (joined.mean - sum / count as f64).abs() < 1e-5 * (1.0 + joined.mean.abs()),
                    "{case}"
                );
            }
        }
    }
}

/// A convolution that keeps the size.
fn same(inputs: usize, outputs: usize, input: [usize; 3], kernel: [usize; 3]) -> Shape {
    let pad = kernel.map(|k| k / 2);
    Shape { pad_begin: pad, pad_end: pad, ..Shape::plain(inputs, outputs, input, kernel) }
}

#[test]
fn conv_matches_f64_reference_over_awkward_shapes() {
    for (inputs, outputs) in [(1, 8), (3, 1), (8, 3), (3, 61), (61, 8), (16, 80), (70, 17)] {
        check("channels", &same(inputs, outputs, [3, 4, 7], [3; 3]), inputs / 2);
    }
    for width in [1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 50] {
        check("width", &same(2, 5, [2, 3, width], [3; 3]), 0);
    }
    check("tall", &same(3, 4, [1, 70, 30], [3; 3]), 1);
    check("anisotropic", &same(4, 6, [3, 5, 9], [1, 3, 3]), 1);
    check("pointwise", &same(5, 7, [3, 5, 9], [1; 3]), 2);
    check("wide kernel", &same(2, 3, [4, 9, 11], [3, 5, 7]), 1);
    check("valid", &Shape::plain(3, 4, [4, 5, 6], [2, 3, 2]), 1);
}

#[test]
fn strided_dilated_and_grouped_match_f64_reference() {
    for stride in [[2; 3], [1, 2, 2], [2, 1, 3], [3, 3, 1]] {
        for kernel in [[3; 3], [1, 3, 3], [1; 3], [2; 3]] {
            let shape = Shape { stride, ..same(3, 9, [7, 6, 21], kernel) };
            check(&format!("stride {stride:?}"), &shape, 1);
        }
    }
    let dilated = Shape { dilation: [1, 2, 3], ..same(3, 4, [4, 9, 15], [3; 3]) };
    check("dilated", &dilated, 2);
    let both = Shape { dilation: [2; 3], stride: [2; 3], ..same(2, 3, [9, 9, 15], [3; 3]) };
    check("dilated with stride", &both, 2);
    let uneven =
        Shape { pad_begin: [0, 2, 1], pad_end: [1, 0, 3], ..same(2, 3, [4, 5, 6], [3; 3]) };
    check("uneven padding", &uneven, 1);
    for kernel in [[1; 3], [3; 3], [2; 3]] {
        for (begin, end) in [(3, 3), (4, 7), (9, 1)] {
            let (pad_begin, pad_end) = ([begin; 3], [end; 3]);
            let shape = Shape { pad_begin, pad_end, ..Shape::plain(2, 3, [2, 3, 17], kernel) };
            check("more padding than reach", &shape, 1);
        }
    }
    check("grouped", &Shape { groups: 3, ..same(6, 9, [3, 4, 5], [3; 3]) }, 2);
    check("depthwise", &Shape { groups: 5, ..same(5, 5, [3, 4, 18], [3; 3]) }, 2);
}

/// A transposed convolution whose stride is its kernel, beside its definition.
fn check_upsample(
    case: &str,
    (inputs, outputs): (usize, usize),
    input: [usize; 3],
    factor: [usize; 3],
) {
    let boxed: usize = factor.iter().product();
    let layout = Layout::sliced(inputs, input, input[2] + 1);
    let data = tensor(layout, 7);
    let affines = vec![Affine { scale: 0.5, shift: 0.1, slope: 0.0 }; inputs];
    let source = Source { data: &data, format: Format::F32, layout, affines: &affines };
    let (weights, bias) = (noise(inputs * outputs * boxed, 8), noise(outputs, 9));
    for isa in tested() {
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            if arithmetic == Arithmetic::Bf16 && !isa.has_bf16() {
                continue;
            }
            let round = |v: f32| f64::from(rounded(arithmetic, v));
            let shape = Shape::plain(inputs, outputs, input, [1; 3]);
            let layer = Layer::new(arithmetic, shape, &weights, &bias);
            let up = Upsample::new(isa, &layer, factor);
            let dims = up.output();
            let target = Layout::dense(outputs, dims);
            let mut out = vec![f32::NAN; target.len()];
            let scratch = used(up.scratch_len());
            up.run(&[source], &mut out, target, None, &scratch);
            for (at, &found) in out.iter().enumerate() {
                let [x, y, z] =
                    [at % dims[2], at / dims[2] % dims[1], at / target.z_stride % dims[0]];
                let c = at / target.channel_stride;
                let inside =
                    (z % factor[0] * factor[1] + y % factor[1]) * factor[2] + x % factor[2];
                let mut exact = f64::from(bias[c]);
                for i in 0..inputs {
                    let from = [z / factor[0], y / factor[1], x / factor[2]].map(|p| p as isize);
                    let w = weights[(i * outputs + c) * boxed + inside];
                    exact += round(read(&[source], i, from)) * round(w);
                }
                let bound = f64::from(f32::EPSILON) * (inputs + 1) as f64 * 2.0;
                let close = (f64::from(found) - exact).abs() < bound;
                assert!(
                    close,
                    "{case} {isa} {factor:?} of {input:?}: {found} at {at}, not {exact}"
                );
            }
        }
    }
}

#[test]
fn upsample_matches_f64_reference() {
    for factor in [[2; 3], [1, 2, 2], [2, 1, 3], [1, 1, 4]] {
        for (channels, input) in [((3, 2), [2, 3, 5]), ((16, 8), [2, 6, 17]), ((5, 61), [1, 2, 9])]
        {
            check_upsample("plain", channels, input, factor);
        }
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let shape = same(5, 9, [11, 40, 33], [3; 3]);
    let layout = Layout::sliced(5, shape.input, 33);
    let data = tensor(layout, 11);
    let affines = vec![Affine { scale: 1.1, shift: 0.1, slope: 0.01 }; 5];
    let source = Source { data: &data, format: Format::F32, layout, affines: &affines };
    let (weights, bias) = (noise(shape.weights(), 12), noise(9, 13));
    for isa in tested() {
        let arithmetic = if isa.has_bf16() { Arithmetic::Bf16 } else { Arithmetic::F32 };
        let conv = Conv::new(isa, &Layer::new(arithmetic, shape.clone(), &weights, &bias));
        let layout = Layout::sliced(9, [11, 40, 33], conv.pitch());
        let run = |threads: usize| {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let mut out = vec![0.0; layout.len()];
            let mut moments = vec![Moments::default(); conv.moments_len()];
            let scratch = used(conv.scratch_len());
            pool.install(|| conv.run(&[source], &mut out, layout, Some(&mut moments), &scratch));
            (out.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), moments)
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{isa}");
    }
}

/// Integers of a sliced tensor in memory, and that memory.
fn integers(layout: Layout, seed: u32) -> (Vec<i16>, Vec<f32>) {
    let values: Vec<i16> = noise(layout.len().next_multiple_of(2), seed)
        .iter()
        .map(|v| (v * 12_000.0) as i16)
        .collect();
    let memory = values.as_chunks::<2>().0.iter().map(|&[a, b]| {
        f32::from_bits(u32::from(a.cast_unsigned()) | u32::from(b.cast_unsigned()) << 16)
    });
    let memory = memory.collect();
    (values, memory)
}

/// What an int8 convolution must give, from its rules: integers all the way.
struct Exact<'a> {
    shape: &'a Shape,
    layout: Layout,
    values: &'a [i16],
    fixed: Vec<Fixed>,
    /// `[outputs, inputs, taps]` and a scale per output.
    weights: Vec<i32>,
    scales: Vec<f32>,
}

impl Exact<'_> {
    fn sum(&self, output: usize, place: [usize; 3]) -> i32 {
        let Shape { inputs, input, kernel: [kz, ky, kx], .. } = *self.shape;
        let mut sum = 0;
        for c in 0..inputs {
            for tap in 0..kz * ky * kx {
                let k = [tap / (ky * kx), tap / kx % ky, tap % kx];
                let from: [isize; 3] = std::array::from_fn(|a| {
                    (place[a] * self.shape.stride[a] + k[a] * self.shape.dilation[a]) as isize
                        - self.shape.pad_begin[a] as isize
                });
                if (0..3).any(|a| !(0..input[a] as isize).contains(&from[a])) {
                    continue;
                }
                let [z, y, x] = from.map(|p| p as usize);
                let byte = self.fixed[c].apply(self.values[self.layout.at(c, z, y) + x]);
                let w = self.weights[(output * inputs + c) * kz * ky * kx + tap];
                sum += w * (i32::from(byte) - i32::from(self.fixed[c].zero));
            }
        }
        sum
    }
}

/// Weights as integers `[outputs, inputs, taps]`, with the steps of their inputs in them, and a scale
/// per output.
fn quantized(shape: &Shape, weights: &[f32], bytes: &[ByteCode]) -> (Vec<i32>, Vec<f32>) {
    let taps: usize = shape.kernel.iter().product();
    let (mut integers, mut scales) = (Vec::new(), Vec::new());
    for weights in weights.chunks_exact(shape.inputs * taps) {
        let scaled = |i: usize| weights[i] * bytes[i / taps].step;
        let largest = (0..weights.len()).fold(0.0_f32, |m, i| m.max(scaled(i).abs()));
        scales.push(largest / 127.0);
        integers.extend((0..weights.len()).map(|i| (scaled(i) / (largest / 127.0)).round() as i32));
    }
    (integers, scales)
}

/// The values of a channel, without the gaps between rows.
fn values_of(layout: Layout, c: usize, values: &[i16]) -> impl Iterator<Item = i16> + '_ {
    let [depth, height, width] = layout.dims;
    (0..depth * height)
        .flat_map(move |row| &values[layout.at(c, row / height, row % height)..][..width])
        .copied()
}

/// How far `v` lies, as part of the range that has half a step more at both ends.
fn reach(affine: Affine, ByteCode { step, zero }: ByteCode, v: i16) -> f32 {
    let (v, zero) = (affine.apply(f32::from(v)), f32::from(zero));
    (v / ((255.5 - zero) * step)).max(-v / ((zero + 0.5) * step))
}

fn check_int8(case: &str, shape: &Shape) {
    let layout = Layout::sliced(shape.inputs, shape.input, shape.input[2] + 1);
    let (values, memory) = integers(layout, 21);
    let affine = |c: usize| Affine { scale: 4e-4 + c as f32 * 1e-5, shift: 0.1, slope: 0.01 };
    let affines: Vec<Affine> = (0..shape.inputs).map(affine).collect();
    let code = |c: usize| ByteCode { step: 0.02 + 0.001 * c as f32, zero: (c % 5) as u8 };
    let bytes: Vec<ByteCode> = (0..shape.inputs).map(code).collect();
    let (weights, bias) = (noise(shape.weights(), 22), noise(shape.outputs, 23));
    let codings: Vec<Coding> = (0..shape.outputs)
        .map(|o| Coding { center: 0.1 * o as f32, step: 2e-3 * (1.0 + o as f32) })
        .collect();
    let (integer_weights, scales) = quantized(shape, &weights, &bytes);
    let read = |c: usize| values_of(layout, c, &values).map(move |v| (c, v));
    let widening = (0..shape.inputs).flat_map(read).map(|(c, v)| reach(affines[c], bytes[c], v));
    let widening = widening.fold(0.0, f32::max);
    let code = |c: usize| ByteCode { step: bytes[c].step * widening, ..bytes[c] };
    let fixed = (0..shape.inputs).map(|c| Fixed::new(affines[c], code(c))).collect();
    let exact = Exact { shape, layout, values: &values, fixed, weights: integer_weights, scales };
    let source = Source { data: &memory, format: Format::I16, layout, affines: &affines };
    let mut first: Option<(Vec<u32>, Vec<Moments>)> = None;
    for isa in tested().into_iter().filter(|isa| isa.has(Arithmetic::Int8)) {
        for format in [Format::I16, Format::F32] {
            let coded: &[Coding] = if format == Format::I16 { &codings } else { &[] };
            let layer = Layer {
                bytes: &bytes,
                format,
                codings: coded,
                ..Layer::new(Arithmetic::Int8, shape.clone(), &weights, &bias)
            };
            let conv = Conv::new(isa, &layer);
            let layout = Layout::sliced(shape.outputs, conv.output, conv.pitch());
            let mut out = vec![0.0; format.floats(layout.len())];
            let mut moments = vec![Moments::default(); conv.moments_len()];
            let scratch = used(conv.scratch_len());
            conv.run(&[source], &mut out, layout, Some(&mut moments), &scratch);
            for o in 0..shape.outputs {
                let [factor, summand] =
                    if format == Format::I16 { codings[o].affine() } else { [1.0, 0.0] };
                let [scale, shift] =
                    [exact.scales[o] * factor * widening, bias[o] * factor + summand];
                for z in 0..conv.output[0] {
                    for y in 0..conv.output[1] {
                        let row = Row::of(format, &out, layout.at(o, z, y), layout.dims[2]);
                        for x in 0..layout.dims[2] {
                            let value = exact.sum(o, [z, y, x]) as f32 * scale + shift;
                            let expected = if format == Format::I16 {
                                value.round_ties_even().clamp(-32768.0, 32767.0)
                            } else {
                                value
                            };
                            let name = conv.name();
                            assert_eq!(float(row, x), expected, "{case} {name} {:?}", [o, z, y, x]);
                        }
                    }
                }
            }
            if format == Format::I16 {
                // Gaps between rows are nobody's.
                let rows = (0..shape.outputs * conv.output[0] * conv.output[1]).flat_map(|row| {
                    let [o, z] = [
                        row / conv.output[1] % shape.outputs,
                        row / conv.output[1] / shape.outputs,
                    ];
                    let start = layout.at(o, z, row % conv.output[1]);
                    let row = Row::of(format, &out, start, layout.dims[2]);
                    (0..layout.dims[2]).map(move |x| float(row, x).to_bits())
                });
                let found = (rows.collect(), moments);
                let first = first.get_or_insert_with(|| found.clone());
                assert!(*first == found, "{case} {isa}: other bytes or moments than plain Rust");
            }
        }
    }
}

/// Sums of integers are exact, so every instruction set gives the same bytes.
#[test]
fn int8_follows_its_rules_to_the_byte_on_every_isa() {
    for (inputs, outputs) in [(4, 8), (8, 8), (16, 8), (3, 1), (6, 13), (33, 20), (70, 35)] {
        check_int8("channels", &same(inputs, outputs, [3, 4, 7], [3; 3]));
    }
    for width in [1, 2, 7, 8, 15, 16, 17, 31, 33, 48, 50] {
        check_int8("width", &same(5, 5, [2, 3, width], [3; 3]));
    }
    check_int8("tall", &same(4, 4, [1, 70, 30], [3; 3]));
    check_int8("anisotropic", &same(4, 6, [3, 5, 9], [1, 3, 3]));
    check_int8("pointwise", &same(5, 7, [3, 5, 9], [1; 3]));
    check_int8("strided", &Shape { stride: [2; 3], ..same(8, 16, [6, 7, 20], [3; 3]) });
    check_int8("dilated", &Shape { dilation: [1, 2, 3], ..same(3, 4, [4, 9, 15], [3; 3]) });
}

/// 16-bit outputs are the f32 ones, rounded.
#[test]
fn formats_round_what_floats_hold_on_every_isa() {
    let shape = same(5, 9, [3, 6, 33], [1, 3, 3]);
    let layout = Layout::sliced(5, shape.input, 33);
    let (data, affines) = (tensor(layout, 31), vec![Affine::IDENTITY; 5]);
    let source = Source { data: &data, format: Format::F32, layout, affines: &affines };
    let (weights, bias) = (noise(shape.weights(), 32), noise(9, 33));
    let codings = vec![Coding { center: 0.25, step: 1.0 / 4096.0 }; 9];
    for isa in tested() {
        for arithmetic in [Arithmetic::F32, Arithmetic::Bf16] {
            if !isa.has(arithmetic) {
                continue;
            }
            let run = |format: Format, codings: &[Coding]| {
                let layer = Layer::new(arithmetic, shape.clone(), &weights, &bias);
                let conv = Conv::with_tile(isa, &Layer { format, codings, ..layer }, 1, 0);
                let layout = Layout::sliced(9, conv.output, conv.pitch());
                let mut out = vec![0.0; format.floats(layout.len())];
                let mut moments = vec![Moments::default(); conv.moments_len()];
                let scratch = used(conv.scratch_len());
                conv.run(&[source], &mut out, layout, Some(&mut moments), &scratch);
                let rows = (0..9 * 3 * 6).flat_map(|row| {
                    let start = layout.at(row / 18, row / 6 % 3, row % 6);
                    (0..33).map(|x| float(Row::of(format, &out, start, 33), x)).collect::<Vec<_>>()
                });
                (rows.collect::<Vec<f32>>(), moments)
            };
            let (floats, exact) = run(Format::F32, &[]);
            let (halves, moments) = run(Format::Bf16, &[]);
            assert_eq!(exact, moments, "{isa} {arithmetic}: moments of what is not yet rounded");
            let (integers, _) = run(Format::I16, &codings);
            for ((v, half), integer) in floats.iter().zip(halves).zip(integers) {
                assert_eq!(half::bf16::from_f32(*v).to_f32(), half, "{isa} {arithmetic}");
                let [scale, shift] = codings[0].affine();
                let exact = (v * scale + shift).round_ties_even().clamp(-32768.0, 32767.0);
                assert_eq!(exact, integer, "{isa} {arithmetic}");
            }
        }
    }
}
