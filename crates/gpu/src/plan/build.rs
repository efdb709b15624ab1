//! From a network to a plan: what is stored, how it is read, and where it lies.

use super::{Last, Number, Operand, Plan, Precision, Slot};
use crate::choose::{Chooser, Gpu, Known};
use crate::kernels::geometry::BLOCK;
use crate::kernels::moments;
use fastnnunet_model::Mismatch;
use fastnnunet_model::network::fused::{Fused, Operation, Part, Scaling, Step, TensorId, View};
use fastnnunet_model::network::{Conv, Extent, Network};
use std::sync::Arc;

/// What a plan is made for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub precision: Precision,
    pub images: usize,
    pub gpu: Gpu,
    /// What was measured.
    pub known: Arc<Known>,
}

/// Most channels of the network's input that the first layer reads as they come.
const PLANAR: usize = 4;

/// What the planner knows of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub channels: usize,
    pub dims: [usize; 3],
    pub lanes: usize,
    pub number: Number,
    pub slot: Slot,
    /// How it is read: the part, and where entries lie.
    pub reads: Vec<(Part, usize, usize)>,
    pub norms: Vec<super::Norm>,
}

impl Tensor {
    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(self.lanes)
    }

    pub(super) fn voxels(&self) -> usize {
        self.dims.iter().product()
    }
}

pub(super) struct Planner {
    pub settings: Settings,
    pub chooser: Chooser,
    pub tensors: Vec<Tensor>,
    pub plan: Plan,
}

/// Most classes of a pointwise convolution at the end that is computed where results leave.
const SMALL_HEAD: usize = 16;

/// Plans a network for its patch.
///
/// # Errors
///
/// What cannot be run.
pub(crate) fn plan(network: Network, settings: Settings) -> Result<Plan, Mismatch> {
    let mut network = Fused::new(network);
    let head = small_head(&mut network, settings.precision);
    prepare(&mut network, settings.precision, settings.gpu);
    let mut planner = Planner::new(&network, settings);
    let parts = network.steps.iter().flat_map(|step| &step.operands).flat_map(|view| &view.parts);
    for part in parts.chain(&network.output.parts) {
        planner.note(part);
    }
    planner.place(&network);
    for step in &network.steps {
        planner.emit(step)?;
    }
    planner.finish_with(&network.output.parts[0], head.as_ref());
    Ok(planner.plan)
}

/// Bytes of the buffers of activations that a plan for one patch has on an NVIDIA GPU.
pub(crate) fn activation_slots(network: &Network, precision: Precision) -> Vec<u64> {
    let mut network = Fused::new(network.clone());
    let settings = Settings { precision, images: 1, gpu: Gpu::H100, known: Arc::default() };
    small_head(&mut network, precision);
    prepare(&mut network, precision, settings.gpu);
    let mut planner = Planner::new(&network, settings);
    planner.place(&network);
    planner.plan.slots
}

/// Takes off a pointwise convolution at the end that is computed where results leave, exactly: what
/// is left are the features it reads.
fn small_head(network: &mut Fused, precision: Precision) -> Option<Conv> {
    let [part] = &network.output.parts[..] else { return None };
    let last = network.steps.last().filter(|step| part.is_raw() && part.tensor == step.out)?;
    let Operation::Conv(conv) = &last.operation else { return None };
    let small = precision == Precision::F32 || network.tensors[last.out].channels <= SMALL_HEAD;
    if !(small && conv.is_pointwise() && last.operands[0].parts.len() == 1) {
        return None;
    }
    let last = network.steps.pop()?;
    network.output = last.operands.into_iter().next()?;
    match last.operation {
        Operation::Conv(conv) => Some(conv),
        _ => None,
    }
}

/// Whether slopes are at most 1, as kernels that take the larger of two products need.
fn is_gentle(part: &Part) -> bool {
    part.slopes.iter().flatten().all(|&slope| slope <= 1.0)
}

/// Whether a transposed convolution gives every voxel one tap of one voxel.
pub(super) fn is_upsampling(conv: &Conv, input: [usize; 3], output: [usize; 3]) -> bool {
    let window = conv.window;
    conv.groups == 1
        && window.kernel == window.stride
        && window.pad_begin == [0; 3]
        && window.dilation == [1; 3]
        && (0..3).all(|k| output[k] == input[k] * window.stride[k])
}

/// Whether our quick kernels know a step.
pub(super) fn is_quick(
    gpu: Gpu,
    operation: &Operation,
    input: [usize; 3],
    output: [usize; 3],
) -> bool {
    match operation {
        _ if !gpu.shares => false,
        Operation::Conv(conv) => conv.groups == 1 && conv.window.dilation == [1; 3],
        Operation::TransposedConv(conv) => is_upsampling(conv, input, output),
        _ => false,
    }
}

/// Stores values where a kernel could not read them as they are.
fn prepare(network: &mut Fused, precision: Precision, gpu: Gpu) {
    let input = |part: &Part| part.tensor == 0;
    for mut step in std::mem::take(&mut network.steps) {
        let output = network.tensors[step.out].dims;
        let all = step.operands.len();
        for operand in &mut step.operands {
            let ready = match &step.operation {
                Operation::Copy => true,
                operation if is_quick(gpu, operation, operand.dims, output) => {
                    let planar = operand.parts.iter().any(input);
                    let readable = operand.parts.len() == 1
                        && operand.parts[0].is_raw()
                        && network.tensors[0].channels <= PLANAR
                        && matches!(operation, Operation::Conv(_));
                    operand.parts.len() <= 2
                        && operand.parts.iter().all(is_gentle)
                        && (!planar || readable)
                }
                // One type for both operands.
                _ => {
                    operand.parts.len() == 1
                        && (all == 1 || precision == Precision::F32 || !input(&operand.parts[0]))
                }
            };
            if !ready {
                *operand = store(network, &step.name, operand);
            }
        }
        network.steps.push(step);
    }
    let parts = &network.output.parts;
    if parts.len() > 1 || !is_gentle(&parts[0]) || input(&parts[0]) {
        network.output = store(network, "output", &network.output.clone());
    }
}

/// A step that stores `view` as it is read.
fn store(network: &mut Fused, name: &str, view: &View) -> View {
    let channels = network.channels(view);
    network.tensors.push(Extent { channels, dims: view.dims });
    let out = network.tensors.len() - 1;
    let operands = vec![view.clone()];
    network.steps.push(Step { name: name.into(), operation: Operation::Copy, operands, out });
    network.raw(out)
}

impl Planner {
    fn new(network: &Fused, settings: Settings) -> Self {
        let patch = network.tensors[0].dims;
        let tensors = network.tensors.iter().enumerate().map(|(id, extent)| Tensor {
            channels: extent.channels,
            dims: extent.dims,
            lanes: if id == 0 { 1 } else { BLOCK },
            number: if id == 0 { Number::Single } else { Number::Own },
            slot: usize::MAX,
            reads: Vec::new(),
            norms: Vec::new(),
        });
        let tensors: Vec<Tensor> = tensors.collect();
        let nothing = Operand {
            slot: 0,
            number: Number::Own,
            lanes: BLOCK,
            channels: 0,
            dims: patch,
            entry: 0,
            stride: 0,
        };
        let plan = Plan {
            precision: settings.precision,
            images: settings.images,
            team: if settings.gpu.shares { moments::THREADS } else { 1 },
            patch,
            input: 0,
            last: Last { source: nothing, outputs: 0, head: false, bias: 0, weights: 0 },
            slots: Vec::new(),
            parts: 0,
            sums: 0,
            steps: Vec::new(),
            params: Vec::new(),
            singles: Vec::new(),
            halves: Vec::new(),
        };
        Self { settings, chooser: Chooser::default(), tensors, plan }
    }

    /// Values per channel as blocks of eight, with what fills up the last.
    fn blocks(values: &[f32]) -> Vec<[f32; BLOCK]> {
        values
            .chunks(BLOCK)
            .map(|chunk| std::array::from_fn(|k| chunk.get(k).copied().unwrap_or(0.0)))
            .collect()
    }

    /// Parameters, and where they begin in vectors of four.
    pub(super) fn push(&mut self, values: &[f32]) -> usize {
        let params = &mut self.plan.params;
        params.resize(params.len().next_multiple_of(4), 0.0);
        let at = params.len() / 4;
        params.extend_from_slice(values);
        at
    }

    /// Biases, filled up to whole blocks.
    pub(super) fn push_bias(&mut self, bias: &[f32]) -> usize {
        let blocks = Self::blocks(bias);
        self.push(blocks.as_flattened())
    }

    /// Makes entries for reading a part, unless there are some.
    fn note(&mut self, part: &Part) {
        if self.tensors[part.tensor].reads.iter().any(|(known, ..)| known == part) {
            return;
        }
        let channels = self.tensors[part.tensor].channels;
        let slopes = part.slopes.clone().unwrap_or_else(|| vec![1.0; channels]);
        let together = |a: &[f32], b: &[f32]| -> Vec<f32> {
            let parts = Self::blocks(a).into_iter().zip(Self::blocks(b)).zip(Self::blocks(&slopes));
            parts.flat_map(|((a, b), c)| [a, b, c].concat()).collect()
        };
        let (entry, stride) = match &part.scaling {
            Scaling::Fixed(pairs) => {
                let (scale, shift): (Vec<f32>, Vec<f32>) = pairs.iter().copied().unzip();
                (self.push(&together(&scale, &shift)), 0)
            }
            Scaling::Norm { gamma, beta, epsilon } => {
                let from = self.push(&together(gamma, beta));
                let blocks = channels.div_ceil(BLOCK);
                let to = self.push(&vec![0.0; self.settings.images * blocks * 24]);
                let norm = super::Norm { blocks, from, to, epsilon: *epsilon as f32 };
                self.tensors[part.tensor].norms.push(norm);
                (to, blocks * 6)
            }
        };
        self.tensors[part.tensor].reads.push((part.clone(), entry, stride));
    }

    /// Where entries for reading a part lie.
    pub(super) fn entry(&self, part: &Part) -> (usize, usize) {
        let reads = &self.tensors[part.tensor].reads;
        let known = reads.iter().find(|(known, ..)| known == part);
        known.map_or((0, 0), |&(_, entry, stride)| (entry, stride))
    }

    /// A tensor as it is read.
    pub(super) fn operand(&self, part: &Part) -> Operand {
        let tensor = &self.tensors[part.tensor];
        let (entry, stride) = self.entry(part);
        Operand {
            slot: tensor.slot,
            number: tensor.number,
            lanes: tensor.lanes,
            channels: tensor.channels,
            dims: tensor.dims,
            entry,
            stride,
        }
    }

    fn bytes(&self, id: TensorId) -> u64 {
        let tensor = &self.tensors[id];
        let size =
            if tensor.number == Number::Single { 4 } else { self.settings.precision.bytes() };
        (self.settings.images * tensor.blocks() * tensor.lanes * tensor.voxels() * size) as u64
    }

    /// Gives every tensor a buffer; buffers are used again once nothing reads what is in them.
    fn place(&mut self, network: &Fused) {
        let mut last_use = vec![0; self.tensors.len()];
        for (at, step) in network.steps.iter().enumerate() {
            last_use[step.out] = at;
            for part in step.operands.iter().flat_map(|view| &view.parts) {
                last_use[part.tensor] = at;
            }
        }
        for part in &network.output.parts {
            last_use[part.tensor] = network.steps.len();
        }
        let mut free: Vec<Slot> = Vec::new();
        let slots = &mut Vec::<u64>::new();
        let mut take = |bytes: u64, free: &mut Vec<Slot>| {
            // The tightest fit, else the largest buffer grows, else a new one.
            let fitting = |&i: &Slot| (slots[i] < bytes, slots[i].abs_diff(bytes));
            let chosen = free.iter().copied().min_by_key(fitting).unwrap_or_else(|| {
                slots.push(0);
                slots.len() - 1
            });
            free.retain(|&i| i != chosen);
            slots[chosen] = slots[chosen].max(bytes.next_multiple_of(256));
            chosen
        };
        self.tensors[0].slot = take(self.bytes(0), &mut free);
        for (at, step) in network.steps.iter().enumerate() {
            self.tensors[step.out].slot = take(self.bytes(step.out), &mut free);
            let read = step.operands.iter().flat_map(|view| &view.parts).map(|part| part.tensor);
            for tensor in read.chain([step.out]) {
                let slot = self.tensors[tensor].slot;
                // The input's own buffer is the caller's to fill.
                let kept = tensor == 0;
                if last_use[tensor] == at && slot != usize::MAX && !kept && !free.contains(&slot) {
                    free.push(slot);
                }
            }
        }
        let plan = &mut self.plan;
        plan.slots = std::mem::take(slots);
        plan.input = self.tensors[0].slot;
        plan.parts = plan.slots.len();
        plan.sums = plan.slots.len() + 1;
        // Both grow as layers need it.
        plan.slots.extend([256, 256]);
    }
}
