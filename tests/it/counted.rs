//! An engine that counts what is asked of it.

use fastnnunet::Result;
use fastnnunet::infer::{Engine, Labeling, LinearHead, Precision, Tiles};
use ndarray::{Array3, Array4, ArrayView4};

/// An engine that counts what is asked of it, and may hide that it runs whole images or labels them.
pub(crate) struct Counted {
    engine: Box<dyn Engine>,
    pub(crate) takes_images: bool,
    pub(crate) labels_images: bool,
    pub(crate) patches: usize,
    pub(crate) images: usize,
    pub(crate) labeled: usize,
}

impl Counted {
    pub(crate) fn new(engine: Box<dyn Engine>) -> Self {
        let (takes_images, labels_images) = (true, true);
        Self { engine, takes_images, labels_images, patches: 0, images: 0, labeled: 0 }
    }
}

impl Engine for Counted {
    fn device(&self) -> &str {
        self.engine.device()
    }

    fn precision(&self) -> Precision {
        self.engine.precision()
    }

    fn input_channels(&self) -> usize {
        self.engine.input_channels()
    }

    fn output_channels(&self) -> usize {
        self.engine.output_channels()
    }

    fn head(&self) -> Option<&LinearHead> {
        self.engine.head()
    }

    fn memory_bytes(&self, threads: usize) -> u64 {
        self.engine.memory_bytes(threads)
    }

    fn run(&mut self, input: ArrayView4<'_, f32>, output: &mut Array4<f32>) -> Result<()> {
        self.patches += 1;
        self.engine.run(input, output)
    }

    fn image_bytes(&self, shape: [usize; 3], patch: [usize; 3]) -> Option<u64> {
        self.engine.image_bytes(shape, patch).filter(|_| self.takes_images)
    }

    fn label_bytes(&self, shape: [usize; 3], patch: [usize; 3], target: [usize; 3]) -> Option<u64> {
        let bytes = self.engine.label_bytes(shape, patch, target);
        bytes.filter(|_| self.takes_images && self.labels_images)
    }

    fn run_image(
        &mut self,
        tiles: Tiles<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array4<f32>>> {
        self.images += 1;
        self.engine.run_image(tiles, advance)
    }

    fn label_image(
        &mut self,
        tiles: Tiles<'_>,
        labeling: Labeling<'_>,
        advance: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Array3<u16>>> {
        self.labeled += 1;
        self.engine.label_image(tiles, labeling, advance)
    }
}
