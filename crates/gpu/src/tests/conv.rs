use super::{devices, values};
use crate::conv::{Bases, Buffers, Conv, Kernel, Types, Way, launch, pack};
use crate::kernels::geometry::BLOCK;
use crate::kernels::{direct, matrix};
use crate::queue::Queue;
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::server::Handle;
use half::{bf16, f16};

pub(super) const F32: ElemType = ElemType::Float(FloatKind::F32);
pub(super) const F16: ElemType = ElemType::Float(FloatKind::F16);
pub(super) const BF16: ElemType = ElemType::Float(FloatKind::BF16);

/// Numbers of a type as bytes.
pub(super) fn bytes(values: &[f32], element: ElemType) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&v| match element {
            F16 => f16::from_f32(v).to_le_bytes().to_vec(),
            BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
            _ => v.to_le_bytes().to_vec(),
        })
        .collect()
}

pub(super) fn numbers(bytes: &[u8], element: ElemType) -> Vec<f32> {
    let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match element {
        F16 => bytes.chunks(2).map(|b| f16::from_bits(half(b)).to_f32()).collect(),
        BF16 => bytes.chunks(2).map(|b| bf16::from_bits(half(b)).to_f32()).collect(),
        _ => bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

/// `[image, channel, voxel]` in blocks.
pub(super) fn blocked(planar: &[f32], images: usize, channels: usize, lanes: usize) -> Vec<f32> {
    let voxels = planar.len() / images / channels;
    let blocks = channels.div_ceil(lanes);
    let mut out = vec![0.0; images * blocks * voxels * lanes];
    for image in 0..images {
        for c in 0..channels {
            for v in 0..voxels {
                out[((image * blocks + c / lanes) * voxels + v) * lanes + c % lanes] =
                    planar[(image * channels + c) * voxels + v];
            }
        }
    }
    out
}

/// A convolution with all that it reads, and what `f64` makes of it.
struct Case {
    conv: Conv,
    images: usize,
    /// Per input.
    raw: Vec<Vec<f32>>,
    /// Scale, shift and slope per image and channel.
    affine: Vec<Vec<[f32; 3]>>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Case {
    fn new(conv: Conv, images: usize) -> Self {
        let voxels: usize = conv.input.iter().product();
        let raw = conv.inputs.iter().enumerate();
        let raw = raw.map(|(k, c)| values(images * c * voxels, k + 1)).collect();
        let affine = conv.inputs.iter().map(|&channels| {
            let of = |i: usize| {
                let scale = 0.5 + (i % 5) as f32 / 4.0;
                [scale, (i % 3) as f32 / 4.0 - 0.25, if i % 4 == 3 { 1.0 } else { 0.125 }]
            };
            (0..images * channels)
                .map(|i| if conv.lanes == 1 { [1.0, 0.0, 1.0] } else { of(i) })
                .collect()
        });
        let taps = conv.taps() * conv.scatter.iter().product::<usize>();
        let count = conv.outputs * conv.inputs.iter().sum::<usize>() * taps;
        let weights = values(count, 7).iter().map(|v| v / 8.0).collect();
        let bias = values(conv.outputs, 8);
        Self { affine: affine.collect(), raw, weights, bias, images, conv }
    }

    /// `[image, output, voxel]`, voxels where they are scattered to.
    fn expected(&self, round: &dyn Fn(f32) -> f32) -> Vec<f64> {
        let conv = &self.conv;
        let all: usize = conv.inputs.iter().sum();
        let [iz, iy, ix] = conv.input;
        let taps = conv.taps() * conv.scatter.iter().product::<usize>();
        let [oz, oy, ox]: [usize; 3] = std::array::from_fn(|k| conv.output[k] * conv.scatter[k]);
        let mut read = Vec::new();
        for image in 0..self.images {
            for (k, &channels) in conv.inputs.iter().enumerate() {
                for c in 0..channels {
                    let [scale, shift, slope] = self.affine[k][image * channels + c];
                    let map = &self.raw[k][(image * channels + c) * iz * iy * ix..][..iz * iy * ix];
                    read.extend(map.iter().map(|&v| {
                        let v = scale * round(v) + shift;
                        f64::from(round(if v < 0.0 { v * slope } else { v }))
                    }));
                }
            }
        }
        let mut out = Vec::new();
        for image in 0..self.images {
            for o in 0..conv.outputs {
                for at in 0..oz * oy * ox {
                    let place = [at / ox / oy, at / ox % oy, at % ox];
                    let mut sum = f64::from(self.bias[o]);
                    for (tap, v) in conv.reads(place) {
                        for c in 0..all {
                            let w = round(self.weights[(o * all + c) * taps + tap]);
                            sum += f64::from(w) * read[(image * all + c) * iz * iy * ix + v];
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    fn run(&self, client: &Client, way: &Way, element: ElemType) -> (Vec<f32>, Vec<f32>) {
        let conv = &self.conv;
        let upload = |data: &[u8]| client.create_from_slice(data);
        let input = if conv.lanes == 1 { F32 } else { element };
        let mut inputs: Vec<Handle> = Vec::new();
        for (k, &channels) in conv.inputs.iter().enumerate() {
            inputs.push(upload(&bytes(
                &blocked(&self.raw[k], self.images, channels, conv.lanes),
                input,
            )));
        }
        let second = inputs.get(1).unwrap_or(&inputs[0]).clone();
        // Biases, then entries for reading.
        let mut params = vec![0.0; conv.blocks_out() * BLOCK];
        params[..conv.outputs].copy_from_slice(&self.bias);
        let mut bases = Bases::default();
        for (k, &channels) in conv.inputs.iter().enumerate() {
            bases.affine[k] = params.len() / 4;
            let blocks = channels.div_ceil(BLOCK);
            bases.stride[k] = blocks * 6;
            for image in 0..self.images {
                for block in 0..blocks {
                    for what in 0..3 {
                        params.extend((0..BLOCK).map(|lane| {
                            let c = block * BLOCK + lane;
                            if c < channels {
                                self.affine[k][image * channels + c][what]
                            } else {
                                0.0
                            }
                        }));
                    }
                }
            }
        }
        let all: usize = conv.inputs.iter().sum();
        let taps = conv.taps() * conv.scatter.iter().product::<usize>();
        let weights = pack(conv, way, &|o, c, tap| self.weights[(o * all + c) * taps + tap]);
        let kind = if matches!(way.kernel, Kernel::Matrix(_)) { element } else { F32 };
        let part = way.splits > 1;
        let made: usize = conv.scatter.iter().product::<usize>() * conv.voxels();
        let length = self.images * conv.blocks_out() * made * BLOCK * way.splits;
        let output = upload(&bytes(&vec![f32::NAN; length], element));
        let sums = upload(&bytes(&vec![f32::NAN; length], F32));
        let tiles: usize = way.tiles(conv).iter().product();
        let parts =
            upload(&bytes(&vec![f32::NAN; self.images * conv.blocks_out() * tiles * 24], F32));
        let buffers = Buffers {
            inputs: [inputs[0].clone(), second],
            params: upload(&bytes(&params, F32)),
            weights: upload(&bytes(&weights, kind)),
            output: output.clone(),
            sums: sums.clone(),
            parts: parts.clone(),
        };
        launch(
            &Queue::new(client),
            conv,
            way,
            self.images,
            &bases,
            Types { input, output: element },
            buffers,
        );
        let (made, kind) = if part { (sums, F32) } else { (output, element) };
        let made = numbers(&client.read_one(made).expect("output"), kind);
        (made, numbers(&client.read_one(parts).expect("moments"), F32))
    }

    fn check(&self, client: &Client, way: &Way, element: ElemType) {
        let conv = &self.conv;
        let round = |v: f32| match (element, way.kernel) {
            (F16, Kernel::Matrix(_)) => f16::from_f32(v).to_f32(),
            (BF16, Kernel::Matrix(_)) => bf16::from_f32(v).to_f32(),
            _ => v,
        };
        let expected = self.expected(&round);
        let largest = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let (found, moments) = self.run(client, way, element);
        let voxels = expected.len() / self.images / conv.outputs;
        let part = way.splits > 1;
        let tolerance = match element {
            _ if part => 2e-6,
            F32 => 2e-6,
            F16 => 1.0 / 1024.0,
            _ => 1.0 / 128.0,
        };
        let blocks = conv.blocks_out();
        for image in 0..self.images {
            for o in 0..conv.outputs {
                for v in 0..voxels {
                    let exact = expected[(image * conv.outputs + o) * voxels + v];
                    let map = image * blocks + o / BLOCK;
                    let sum: f64 = (0..way.splits)
                        .map(|s| {
                            f64::from(
                                found[((map * way.splits + s) * voxels + v) * BLOCK + o % BLOCK],
                            )
                        })
                        .sum();
                    let exact = if part { exact - f64::from(self.bias[o]) } else { exact };
                    let off = (sum - exact).abs();
                    assert!(
                        off <= tolerance * largest.max(1.0),
                        "{conv:?} {way:?} {element:?}: image {image}, channel {o}, voxel {v}: {sum} for {exact}"
                    );
                }
            }
        }
        if part || !way.kernel.moments() {
            return;
        }
        let tiles: usize = way.tiles(conv).iter().product();
        for image in 0..self.images {
            for o in 0..conv.outputs {
                let map = &expected[(image * conv.outputs + o) * voxels..][..voxels];
                let mean = map.iter().sum::<f64>() / voxels as f64;
                let deviations: f64 = map.iter().map(|v| (v - mean).powi(2)).sum();
                let at = |tile: usize, what: usize| {
                    let first = ((image * blocks + o / BLOCK) * tiles + tile) * 24;
                    f64::from(moments[first + what * 8 + o % BLOCK])
                };
                let n: f64 = (0..tiles).map(|t| at(t, 0)).sum();
                assert_eq!(n, voxels as f64, "{way:?}");
                let found = (0..tiles).map(|t| at(t, 0) * at(t, 1)).sum::<f64>() / n;
                let spread: f64 =
                    (0..tiles).map(|t| at(t, 2) + at(t, 0) * (at(t, 1) - found).powi(2)).sum();
                assert!((found - mean).abs() < 1e-5 * largest, "{way:?}: mean {found} for {mean}");
                assert!(
                    (spread - deviations).abs() < 1e-4 * deviations.max(1e-3),
                    "{way:?}: deviations {spread} for {deviations}"
                );
            }
        }
    }
}

/// Layers like those of networks, and others: edges that fill no tile, strides, odd channels.
fn layers() -> Vec<(Conv, usize)> {
    let plain =
        |inputs: &[usize], outputs, input: [usize; 3], kernel: [usize; 3], stride: [usize; 3]| {
            let pad = kernel.map(|k: usize| k / 2);
            let output =
                std::array::from_fn(|k| (input[k] + 2 * pad[k] - kernel[k]) / stride[k] + 1);
            Conv {
                inputs: inputs.to_vec(),
                outputs,
                input,
                output,
                kernel,
                stride,
                pad,
                scatter: [1; 3],
                lanes: 8,
            }
        };
    vec![
        (plain(&[8], 8, [7, 9, 11], [3; 3], [1; 3]), 1),
        (plain(&[16, 8], 20, [5, 6, 9], [3; 3], [1; 3]), 2),
        (plain(&[4, 4], 4, [4, 5, 18], [3; 3], [1; 3]), 1),
        (plain(&[24], 16, [6, 9, 8], [3; 3], [2; 3]), 1),
        (plain(&[16], 32, [5, 10, 12], [1, 3, 3], [1, 2, 2]), 2),
        (plain(&[40], 24, [1, 17, 9], [1, 3, 3], [1; 3]), 1),
        (plain(&[32], 16, [5, 5, 5], [1; 3], [1; 3]), 1),
    ]
}

/// Transposed convolutions.
fn scattered() -> Vec<(Conv, usize)> {
    [(16, 8, [3, 4, 5], [2; 3]), (24, 20, [1, 6, 5], [1, 2, 2]), (8, 12, [2, 3, 2], [2, 1, 3])]
        .into_iter()
        .map(|(inputs, outputs, input, scatter)| {
            let conv = Conv {
                inputs: vec![inputs],
                outputs,
                input,
                output: input,
                kernel: [1; 3],
                stride: [1; 3],
                pad: [0; 3],
                scatter,
                lanes: 8,
            };
            (conv, 2)
        })
        .collect()
}

fn planar() -> Vec<(Conv, usize)> {
    let mut conv = layers().swap_remove(0).0;
    conv.lanes = 1;
    let cases = [(1, [3; 3], [1; 3]), (2, [3; 3], [2; 3]), (1, [1, 3, 3], [1; 3])];
    let of = |(channels, kernel, stride): (usize, [usize; 3], [usize; 3])| {
        let pad = kernel.map(|k| k / 2);
        let output =
            std::array::from_fn(|k| (conv.input[k] + 2 * pad[k] - kernel[k]) / stride[k] + 1);
        (Conv { inputs: vec![channels], kernel, stride, pad, output, ..conv.clone() }, 2)
    };
    cases.map(of).to_vec()
}

/// Shapes of kernels and their tiles.
fn matrix_forms(conv: &Conv, moments: bool) -> Vec<matrix::Form> {
    let form = |rows, columns, planes, wide, depth, tile: [usize; 3]| {
        let planar = if conv.lanes == 1 { conv.inputs[0] } else { 0 };
        let (window, scatter) = (conv.window(tile), conv.scatter);
        let form = matrix::Form {
            rows,
            columns,
            planes,
            wide,
            depth,
            window,
            scatter,
            moments,
            brain: false,
            planar,
            early: false,
        };
        matrix::Form { early: form.may_be_early(), ..form }
    };
    vec![
        form(2, 4, 2, 1, 1, [2, 4, 8]),
        form(1, 4, 2, 2, 2, [4, 4, 2]),
        form(4, 8, 2, 1, 4, [1, 8, 16]),
        form(2, 1, 2, 1, 1, [1, 8, 8]),
        form(2, 2, 2, 2, 2, [8, 8, 1]),
    ]
}

/// Devices whose threads may share memory, as all these kernels do.
fn sharing() -> impl Iterator<Item = Client> {
    devices().into_iter().filter(|device| device.gpu.shares).map(|device| device.client)
}

/// Whether a device has the shared memory for a kernel.
fn fits(client: &Client, kernel: &Kernel) -> bool {
    kernel.shared_bytes() <= client.properties().hardware.max_shared_memory_size
}

/// Kernels take seconds to compile where a host runs them, so each layer gets some of the forms in
/// turn; all where the caller of the tests has the time.
fn in_turn<T: Copy>(all: &[T], layer: usize, count: usize) -> Vec<T> {
    if std::env::var_os("ALL_KERNELS").is_some() {
        return all.to_vec();
    }
    all.iter().cycle().skip(layer * count).take(count.min(all.len())).copied().collect()
}

#[test]
fn convolutions_on_tensor_cores_are_exact() {
    for client in sharing() {
        if client.features().matmul.mma.is_empty() {
            continue;
        }
        let all = layers().into_iter().chain(planar()).chain(scattered());
        for (number, (conv, images)) in all.enumerate() {
            let up = conv.scattered() > 1;
            let case = Case::new(conv.clone(), images);
            let mut forms = matrix_forms(&conv, !up);
            forms.retain(|form| {
                let odd = (0..2).any(|input| conv.blocks(input) % form.depth != 0);
                let pairs = form.depth == 1 || conv.inputs.len() == 1 || !odd;
                pairs
                    && (!up || form.columns % 4 == 0)
                    && (form.planar == 0 || form.depth == 1)
                    && fits(&client, &Kernel::Matrix(*form))
            });
            assert!(!forms.is_empty(), "{conv:?}");
            for (k, form) in in_turn(&forms, number, 2).into_iter().enumerate() {
                let whole = Way { kernel: Kernel::Matrix(form), splits: 1 };
                case.check(&client, &whole, F16);
                if k == 0 && whole.stages(&conv) > 1 {
                    case.check(&client, &Way { splits: 2, ..whole }, F16);
                }
                if k == 0 && number % 4 == 0 {
                    let kernel = Kernel::Matrix(matrix::Form { brain: true, ..form });
                    case.check(&client, &Way { kernel, splits: 1 }, BF16);
                }
            }
        }
    }
}

#[test]
fn convolutions_without_tensor_cores_are_exact() {
    for client in sharing() {
        let all = layers().into_iter().chain(planar()).chain(scattered());
        for (number, (conv, images)) in all.enumerate() {
            let case = Case::new(conv.clone(), images);
            let form = |(rows, blocks, tile)| direct::Form {
                window: conv.window(tile),
                rows,
                blocks,
                threads: 64,
                lanes: conv.lanes,
                scatter: conv.scatter,
                moments: conv.scattered() == 1,
            };
            let mut forms = [(4, 1, [2, 8, 16]), (2, 2, [4, 4, 4])].map(form).to_vec();
            forms.retain(|form| fits(&client, &Kernel::Direct(*form)));
            assert!(!forms.is_empty(), "{conv:?}");
            for form in in_turn(&forms, number, 1) {
                let whole = Way { kernel: Kernel::Direct(form), splits: 1 };
                case.check(&client, &whole, F32);
                if number % 3 == 0 {
                    case.check(&client, &whole, F16);
                }
                if number % 3 == 1 && whole.stages(&conv) > 1 {
                    case.check(&client, &Way { splits: 2, ..whole }, F32);
                }
            }
        }
    }
}
