//! Stages 6 to 8 together: every tile through the network, mirrored if asked, and stitched;
//! finished planes are handed on while later tiles run.

use super::flat::{self, Air, Answers};
use super::label::{Decision, Resize};
use super::plan::Returns;
use super::progress::Clock;
use super::stitch::Stitcher;
use super::tile::Tiling;
use crate::Result;
use crate::infer::{Engine, Labeling, Tiles};
use ndarray::{Array3, Array4, ArrayView4, ArrayViewMut4, Axis};

/// The order in which the network's axes are walked: `order[0]` outermost. Planes across that
/// axis are finished one after the other.
pub(super) type Walk = [usize; 3];

/// The walk that holds least: along `z` or along `y`, whichever leaves the smaller window.
/// Rows along `x` stay whole.
pub(super) fn cheapest_walk(image: [usize; 3], patch: [usize; 3]) -> Walk {
    let floats = |walk: Walk| Stitcher::floats(walk.map(|k| image[k]), walk.map(|k| patch[k]), 1);
    let (along_z, along_y) = ([0, 1, 2], [1, 0, 2]);
    if floats(along_y) < floats(along_z) { along_y } else { along_z }
}

/// `array` (`[c, z, y, x]`) with its spatial axes in the order of the walk.
pub(super) fn walked<T>(array: ArrayView4<'_, T>, walk: Walk) -> ArrayView4<'_, T> {
    array.permuted_axes([0, walk[0] + 1, walk[1] + 1, walk[2] + 1])
}

/// As [`walked`], for writing.
pub(super) fn walked_mut<T>(array: ArrayViewMut4<'_, T>, walk: Walk) -> ArrayViewMut4<'_, T> {
    array.permuted_axes([0, walk[0] + 1, walk[1] + 1, walk[2] + 1])
}

/// Reads finished planes (`[c, ...]` in the walk's order of axes), given the number of the first
/// one held; returns the number of the first plane it still needs.
pub(super) type Take<'a> =
    dyn FnMut(ArrayView4<'_, f32>, usize, &mut Clock<'_>) -> Result<usize> + 'a;

/// What runs over the tiles.
pub(super) struct Pass<'a> {
    /// In the walk's order of axes.
    pub(super) tiling: &'a Tiling,
    /// Weight per voxel of a tile, `[z, y, x]`.
    pub(super) weights: Array3<f32>,
    pub(super) walk: Walk,
    /// Axes flipped in each pass, see [`mirror_passes`].
    pub(super) mirrors: &'a [Vec<usize>],
    /// What the engine returns, if it runs the image as a whole.
    pub(super) whole_image: Option<Returns>,
    /// What counts as air, where tiles of it are not looked at.
    pub(super) air: Option<&'a Air>,
    /// Answers to tiles of one value that are kept.
    pub(super) answers: usize,
}

/// Runs `engine` over all tiles of `image` (`[c, z, y, x]`) and hands finished planes to `take`;
/// returns how many tiles had a known answer.
pub(super) fn infer(
    image: &Array4<f32>,
    engine: &mut dyn Engine,
    pass: Pass<'_>,
    clock: &mut Clock<'_>,
    take: &mut Take<'_>,
) -> Result<usize> {
    if pass.whole_image == Some(Returns::Means)
        && let Some(map) = whole_image(image, engine, &pass, clock)?
    {
        return take(walked(map.view(), pass.walk), 0, clock).map(|_| 0);
    }
    let mut tiles = Tile::new(engine, unwalked(pass.tiling.patch, pass.walk), &pass);
    let Pass { tiling, weights, walk, .. } = pass;
    let weights = weights.permuted_axes(walk).as_standard_layout().into_owned();
    let image = walked(image.view(), walk);

    let mut stitcher = Stitcher::new(tiling.clone(), weights, tiles.engine.output_channels());
    let mut hand_on =
        |stitcher: &mut Stitcher, plane: usize, clock: &mut Clock<'_>| -> Result<()> {
            stitcher.finish_below(plane);
            let (planes, first) = stitcher.means();
            let needed = take(planes, first, clock)?;
            stitcher.forget_below(needed);
            Ok(())
        };
    for layer in tiling.origins.chunk_by(|a, b| a[0] == b[0]) {
        let plane = layer[0][0].max(0) as usize;
        if stitcher.is_due(plane) {
            hand_on(&mut stitcher, plane, clock)?;
        }
        for &origin in layer {
            tiling.cut(image, origin, walked_mut(tiles.input.view_mut(), walk));
            tiles.add_to(&mut stitcher, origin, clock)?;
        }
    }
    hand_on(&mut stitcher, tiling.image[0], clock)?;
    Ok(tiles.known)
}

/// Whether tiles are stitched as the engine makes them, without an array for one.
pub(super) fn is_direct(engine: &dyn Engine, passes: usize) -> bool {
    passes == 1 && engine.gives_slices()
}

/// One tile after the other.
struct Tile<'a> {
    engine: &'a mut dyn Engine,
    mirrors: &'a [Vec<usize>],
    walk: Walk,
    air: Option<&'a Air>,
    input: Array4<f32>,
    /// What the network gives for a tile, unless that is stitched as it is made.
    output: Option<Array4<f32>>,
    /// A flipped tile and what the network gives for it.
    mirrored: Option<(Array4<f32>, Array4<f32>)>,
    answers: Answers,
    /// Tiles so far whose answer was known.
    known: usize,
}

impl<'a> Tile<'a> {
    fn new(engine: &'a mut dyn Engine, [z, y, x]: [usize; 3], pass: &Pass<'a>) -> Self {
        let input = Array4::zeros([engine.input_channels(), z, y, x]);
        let output = || Array4::zeros([engine.output_channels(), z, y, x]);
        let mirrored = (pass.mirrors.len() > 1).then(|| (input.clone(), output()));
        let output = (!is_direct(engine, pass.mirrors.len())).then(output);
        let &Pass { mirrors, walk, air, .. } = pass;
        let answers = Answers::new(pass.answers);
        Self { engine, mirrors, walk, air, input, output, mirrored, answers, known: 0 }
    }

    /// Stitches what the network gives for the tile that has been cut.
    fn add_to(
        &mut self,
        stitcher: &mut Stitcher,
        origin: [isize; 3],
        clock: &mut Clock<'_>,
    ) -> Result<()> {
        if let Some(air) = self.air {
            air.fill(self.input.view_mut());
        }
        let value = flat::value(self.input.view());
        if let Some(answer) = value.as_ref().and_then(|value| self.answers.find(value)) {
            stitcher.add(origin, walked(answer.view(), self.walk));
            self.known += 1;
            return self.mirrors.iter().try_for_each(|_| clock.advance());
        }
        if let Some(value) = value.filter(|_| self.answers.has_room()) {
            let (_, z, y, x) = self.input.dim();
            let mut answer = Array4::zeros([self.engine.output_channels(), z, y, x]);
            self.run(&mut answer, clock)?;
            stitcher.add(origin, walked(answer.view(), self.walk));
            self.answers.keep(value, answer);
            return Ok(());
        }
        if let Some(mut output) = self.output.take() {
            self.run(&mut output, clock)?;
            stitcher.add(origin, walked(output.view(), self.walk));
            self.output = Some(output);
            return Ok(());
        }
        // The engine gives slices across the first of the network's axes.
        let across = self.walk.iter().position(|&axis| axis == 0).unwrap_or_default();
        let (engine, input) = (&mut *self.engine, self.input.view());
        stitcher.add_parts(origin, across, |take| engine.run_slices(input, take))?;
        clock.advance()
    }

    /// Runs the network, mirrored if asked, into `output`.
    fn run(&mut self, output: &mut Array4<f32>, clock: &mut Clock<'_>) -> Result<()> {
        self.engine.run(self.input.view(), output)?;
        clock.advance()?;
        let Some((flipped, answer)) = &mut self.mirrored else { return Ok(()) };
        for axes in &self.mirrors[1..] {
            flip(flipped.view_mut(), axes).assign(&self.input);
            self.engine.run(flipped.view(), answer)?;
            *output += &flip(answer.view_mut(), axes);
            clock.advance()?;
        }
        *output /= self.mirrors.len() as f32;
        Ok(())
    }
}

/// The same tiles, in the same order, by an engine that takes the image as a whole.
fn whole_image(
    image: &Array4<f32>,
    engine: &mut dyn Engine,
    pass: &Pass<'_>,
    clock: &mut Clock<'_>,
) -> Result<Option<Array4<f32>>> {
    let tiling = pass.unwalked_tiling();
    engine.run_image(pass.tiles(image, &tiling), &mut || clock.advance())
}

/// As [`infer`], by an engine that takes the image as a whole and labels it: the number of each
/// voxel's class, in the walk's order of axes. `None` where it does not.
pub(super) fn label(
    image: &Array4<f32>,
    engine: &mut dyn Engine,
    pass: &Pass<'_>,
    (resize, decision): (&Resize<'_>, &Decision),
    clock: &mut Clock<'_>,
) -> Result<Option<Array3<u16>>> {
    if pass.whole_image != Some(Returns::Labels) {
        return Ok(None);
    }
    let tiling = pass.unwalked_tiling();
    let axes = resize.axes().map(|pairs| {
        let neighbors = pairs.iter().map(|pair| (pair.low, pair.high, pair.t as f32));
        neighbors.collect::<Vec<_>>()
    });
    let axes = unwalked(axes.each_ref().map(Vec::as_slice), pass.walk);
    let labeling = Labeling { axes, above: decision.above() };
    let tiles = pass.tiles(image, &tiling);
    let found = engine.label_image(tiles, labeling, &mut || clock.advance())?;
    Ok(found.map(|found| found.permuted_axes(pass.walk)))
}

impl Pass<'_> {
    /// Where tiles lie, as `[z, y, x]`.
    fn unwalked_tiling(&self) -> Tiling {
        let Tiling { patch, image, origins } = self.tiling;
        Tiling {
            patch: unwalked(*patch, self.walk),
            image: unwalked(*image, self.walk),
            origins: origins.iter().map(|&origin| unwalked(origin, self.walk)).collect(),
        }
    }

    /// What an engine that takes the image as a whole runs over.
    fn tiles<'t>(&'t self, image: &'t Array4<f32>, tiling: &'t Tiling) -> Tiles<'t> {
        Tiles { image: image.view(), tiling, weights: self.weights.view(), passes: self.mirrors }
    }
}

/// Numbers in the walk's order of axes, back as `[z, y, x]`.
fn unwalked<T: Copy + Default>(walked: [T; 3], walk: Walk) -> [T; 3] {
    let mut result = [T::default(); 3];
    walk.iter().zip(walked).for_each(|(&axis, n)| result[axis] = n);
    result
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
    use super::{cheapest_walk, mirror_passes};

    #[test]
    fn passes_follow_the_reference_order() {
        assert_eq!(mirror_passes(&[]), [Vec::<usize>::new()]);
        let all: [&[usize]; 8] = [&[], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
        assert_eq!(mirror_passes(&[0, 1, 2]), all);
        let two: [&[usize]; 4] = [&[], &[0], &[2], &[0, 2]];
        assert_eq!(mirror_passes(&[0, 2]), two);
    }

    #[test]
    fn the_walk_goes_where_the_patch_is_shortest() {
        assert_eq!(cheapest_walk([166, 367, 367], [160, 96, 96]), [1, 0, 2]);
        assert_eq!(cheapest_walk([900, 300, 300], [96, 96, 96]), [0, 1, 2]);
        assert_eq!(cheapest_walk([50, 50, 50], [96, 96, 96]), [0, 1, 2]);
    }
}
