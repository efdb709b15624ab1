//! The last layer of a network over a row of voxels: `weights * features + bias` per class, of
//! which only the decision is kept.
#![allow(clippy::inline_always, reason = "inlined into functions with other CPU features")]

/// Voxels worked on at once.
const LANES: usize = 16;

/// Classes worked on at once: each feature is loaded once for all of them.
const CLASSES: usize = 4;

/// Logits of `N` classes from `class` on, for `LANES` voxels from `at` on.
#[inline(always)]
fn logits<const N: usize>(
    features: &[f32],
    width: usize,
    at: usize,
    (weights, bias): (&[f32], &[f32]),
    class: usize,
) -> [[f32; LANES]; N] {
    let count = weights.len() / bias.len();
    let mut sums: [[f32; LANES]; N] = std::array::from_fn(|k| [bias[class + k]; LANES]);
    for (f, row) in features.chunks_exact(width).enumerate() {
        let Some(values) = row[at..].first_chunk::<LANES>() else { continue };
        for (k, sums) in sums.iter_mut().enumerate() {
            let weight = weights[(class + k) * count + f];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
    }
    sums
}

/// All bits set where `condition` holds.
#[inline(always)]
fn mask(condition: bool) -> u32 {
    u32::from(condition).wrapping_neg()
}

/// The bits of `yes` where the mask is set, of `no` elsewhere: written so that the compiler
/// uses vectors.
#[inline(always)]
fn pick(mask: u32, yes: u32, no: u32) -> u32 {
    no ^ (mask & (yes ^ no))
}

#[inline(always)]
fn each_class(
    features: &[f32],
    width: usize,
    at: usize,
    head: (&[f32], &[f32]),
    mut take: impl FnMut(u32, &[f32; LANES]),
) {
    let classes = head.1.len();
    let whole = classes - classes % CLASSES;
    for class in (0..whole).step_by(CLASSES) {
        let sums: [[f32; LANES]; CLASSES] = logits(features, width, at, head, class);
        for (k, sums) in sums.iter().enumerate() {
            take((class + k) as u32, sums);
        }
    }
    for class in whole..classes {
        let [sums] = logits(features, width, at, head, class);
        take(class as u32, &sums);
    }
}

/// The class of the largest logit, the first of equals.
#[inline(always)]
pub(crate) fn best_class(choice: &mut [u32], features: &[f32], head: (&[f32], &[f32])) {
    let width = choice.len();
    for (block, chosen) in choice.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut best = [f32::NEG_INFINITY; LANES];
        *chosen = [0; LANES];
        each_class(features, width, block * LANES, head, |class, sums| {
            for ((best, chosen), &sum) in best.iter_mut().zip(chosen.iter_mut()).zip(sums) {
                let wins = mask(sum > *best);
                *best = f32::from_bits(pick(wins, sum.to_bits(), best.to_bits()));
                *chosen = pick(wins, class, *chosen);
            }
        });
    }
}

/// One more than the last class whose logit exceeds `threshold`, or 0.
#[inline(always)]
pub(crate) fn last_above(
    choice: &mut [u32],
    features: &[f32],
    head: (&[f32], &[f32]),
    threshold: f32,
) {
    let width = choice.len();
    for (block, chosen) in choice.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        *chosen = [0; LANES];
        each_class(features, width, block * LANES, head, |class, sums| {
            for (chosen, &sum) in chosen.iter_mut().zip(sums) {
                *chosen = pick(mask(sum > threshold), class + 1, *chosen);
            }
        });
    }
}
