//! Stages 6 to 8 together: every tile through the network, mirrored if asked, and stitched.

use super::Options;
use super::progress::{Clock, Stage};
use super::stitch::Stitcher;
use super::tile::{self, Tiling};
use crate::Result;
use crate::infer::Engine;
use crate::model::ModelConfig;
use ndarray::{Array4, ArrayViewMut4, Axis};

/// Logits `[c, z, y, x]` on the network's grid, and the number of tiles and of passes per
/// tile.
pub(super) fn infer(
    image: Array4<f32>,
    config: &ModelConfig,
    engine: &mut dyn Engine,
    options: &Options,
    clock: &mut Clock<'_>,
) -> Result<(Array4<f32>, (usize, usize))> {
    let (inputs, z, y, x) = image.dim();
    let patch @ [pz, py, px] = config.patch_size;
    let tiling = Tiling::new([z, y, x], patch, options.step_size.unwrap_or(config.step_size));
    let weights = if config.use_gaussian { tile::gaussian(patch) } else { tile::uniform(patch) };
    let passes = mirror_passes(options.mirror_axes.as_ref().unwrap_or(&config.mirror_axes));
    let origins = tiling.origins.clone();
    clock.start(Stage::Infer, origins.len() * passes.len())?;

    let mut stitcher = Stitcher::new(tiling.clone(), weights, engine.output_channels());
    let mut input = Array4::zeros([inputs, pz, py, px]);
    let mut output = Array4::zeros([engine.output_channels(), pz, py, px]);
    let mut mirrored = (passes.len() > 1).then(|| (input.clone(), output.clone()));
    for &origin in &origins {
        tiling.cut(image.view(), origin, &mut input);
        engine.run(input.view(), &mut output)?;
        clock.advance()?;
        if let Some((flipped, answer)) = &mut mirrored {
            for axes in &passes[1..] {
                flip(flipped.view_mut(), axes).assign(&input);
                engine.run(flipped.view(), answer)?;
                output += &flip(answer.view_mut(), axes);
                clock.advance()?;
            }
            output /= passes.len() as f32;
        }
        stitcher.add(origin, &output);
    }
    Ok((stitcher.finish(), (origins.len(), passes.len())))
}

/// The axes flipped in each pass: none, then every subset by size and in order.
///
/// Mirroring over z, y and x gives 8 passes: `[]`, `[0]`, `[1]`, `[2]`, `[0, 1]`, `[0, 2]`,
/// `[1, 2]`, `[0, 1, 2]`, which is also the order in which the reference sums them.
#[must_use]
pub fn mirror_passes(axes: &[usize]) -> Vec<Vec<usize>> {
    let subset = |bits: usize| -> Vec<usize> {
        (0..axes.len()).filter(|k| bits >> k & 1 == 1).map(|k| axes[k]).collect()
    };
    let mut passes: Vec<Vec<usize>> = (0..1 << axes.len()).map(subset).collect();
    passes.sort_by_key(|pass| (pass.len(), pass.clone()));
    passes
}

/// `array` (`[c, z, y, x]`) seen with the spatial `axes` reversed.
fn flip<'a>(mut array: ArrayViewMut4<'a, f32>, axes: &[usize]) -> ArrayViewMut4<'a, f32> {
    for &axis in axes {
        array.invert_axis(Axis(axis + 1));
    }
    array
}

#[cfg(test)]
mod tests {
    use super::mirror_passes;

    #[test]
    fn passes_follow_the_reference_order() {
        assert_eq!(mirror_passes(&[]), [Vec::<usize>::new()]);
        let all: [&[usize]; 8] = [&[], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
        assert_eq!(mirror_passes(&[0, 1, 2]), all);
        let two: [&[usize]; 4] = [&[], &[0], &[2], &[0, 2]];
        assert_eq!(mirror_passes(&[0, 2]), two);
    }
}
