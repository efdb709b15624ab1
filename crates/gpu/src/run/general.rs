//! Launches of the layers that have plain kernels.

use super::Program;
use crate::kernels::general::{self, SourceLaunch, TargetLaunch, WindowLaunch};
use crate::plan::{Action, Made, Operand, Sliding};
use crate::queue::{Queue, cubes, start, whole};
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// What a kernel reads.
struct Reads {
    values: BufferArg,
    sizes: SourceLaunch,
    element: ElemType,
}

/// What a kernel makes, and by how many cubes.
struct Makes {
    values: BufferArg,
    sizes: TargetLaunch,
    element: ElemType,
    count: CubeCount,
}

/// Launches a kernel that makes one value of another.
macro_rules! make {
    ($program:expr, $queue:expr, $kernel:ident, $source:expr, $made:expr $(, $more:expr)*) => {{
        let (a, to) = ($program.reads($source), $program.makes($made));
        // SAFETY: a thread reads voxels and channels within the sizes of its operand and writes one
        // number within those of the output, which the buffers hold.
        unsafe {
            start!(
                $queue, general::$kernel, to.count, CubeDim::new_1d(general::THREADS as u32), a.values,
                whole($program.params.clone(), 4), to.values, a.sizes, to.sizes $(, $more)*, a.element,
                to.element
            );
        }
    }};
}

impl Program {
    fn reads(&self, operand: &Operand) -> Reads {
        let Operand { lanes, channels, dims: [z, y, x], entry, stride, .. } = *operand;
        let sizes = SourceLaunch::new(lanes, channels, z, y, x, entry * 4, stride * 4);
        let element = self.element(operand.number);
        Reads { values: whole(self.slot(operand.slot), element.size()), sizes, element }
    }

    fn makes(&self, made: &Made) -> Makes {
        let Made { lanes, channels, dims: [z, y, x], first, all, .. } = *made;
        let images = self.plan.images;
        let sizes = TargetLaunch::new(lanes, channels, z, y, x, images, first, all);
        let numbers = images * channels.next_multiple_of(lanes) * z * y * x;
        let element = self.element(made.number);
        let count = cubes(numbers.div_ceil(general::THREADS));
        Makes { values: whole(self.slot(made.slot), element.size()), sizes, element, count }
    }

    /// The layers that have plain kernels.
    pub(super) fn general(&self, queue: &Queue<'_>, action: &Action) {
        match action {
            Action::Combine { operation, left, right, made } => {
                let (a, b, to) = (self.reads(left), self.reads(right), self.makes(made));
                let (dim, params) = (CubeDim::new_1d(general::THREADS as u32), self.params.clone());
                // SAFETY: as of one operand, above.
                unsafe {
                    start!(
                        queue,
                        general::combine,
                        to.count,
                        dim,
                        a.values,
                        b.values,
                        whole(params, 4),
                        to.values,
                        a.sizes,
                        b.sizes,
                        to.sizes,
                        *operation,
                        a.element,
                        to.element
                    );
                }
            }
            Action::Softmax { source, made } => make!(self, queue, softmax, source, made),
            Action::Average { source, made } => make!(self, queue, average, source, made),
            Action::Pool { pool, window, source, made } => {
                make!(self, queue, pool, source, made, sliding(window), *pool);
            }
            Action::Resize { table, source, made } => {
                make!(self, queue, resize, source, made, *table);
            }
            Action::General { transposed, window, groups, weights, bias, source, made } => {
                let (a, to) = (self.reads(source), self.makes(made));
                let (dim, params) = (CubeDim::new_1d(general::THREADS as u32), self.params.clone());
                let all = whole(self.singles.clone(), 4);
                // SAFETY: as above; weights and biases are there for all channels.
                unsafe {
                    start!(
                        queue,
                        general::convolution,
                        to.count,
                        dim,
                        a.values,
                        whole(params, 4),
                        all,
                        to.values,
                        a.sizes,
                        to.sizes,
                        sliding(window),
                        *groups,
                        *weights,
                        *bias,
                        *transposed,
                        a.element,
                        to.element
                    );
                }
            }
            _ => unreachable!("an action of `act`"),
        }
    }
}

fn sliding(window: &Sliding) -> WindowLaunch {
    let Sliding {
        kernel: [kz, ky, kx],
        stride: [sz, sy, sx],
        dilation: [dz, dy, dx],
        pad,
        pad_end,
    } = *window;
    let ([pz, py, px], [ez, ey, ex]) = (pad, pad_end);
    WindowLaunch::new(kz, ky, kx, sz, sy, sx, dz, dy, dx, pz, py, px, ez, ey, ex)
}
