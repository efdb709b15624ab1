//! Times of networks and of their layers on a device (`benches/gpu`).

mod lab;
mod nets;

use crate::choose::Known;
use crate::conv::Kernel;
use crate::device::Device;
use crate::network::Error;
use crate::plan::{Action, Precision, Settings, plan};
use crate::queue::{Queue, compile_ahead};
use crate::run::{Program, download, numbers};
use cubecl::client::Graph;
use cubecl::future::block_on;
use cubecl::server::Handle;
use fastnnunet_model::network::Network;
use lab::seconds;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use nets::seeded;

/// A network on a device, and what it took to get there.
pub struct Patch {
    device: Device,
    network: Network,
    precision: Precision,
    images: usize,
    program: Program,
    results: Handle,
    graph: Option<Graph>,
}

impl Patch {
    /// Plans a network, puts it on the device and compiles its kernels.
    ///
    /// # Errors
    ///
    /// As of [`Network::open`](crate::Network::open).
    pub fn new(
        device: &Device,
        network: Network,
        precision: Precision,
        images: usize,
    ) -> Result<Self, Error> {
        Self::with(device, network, precision, images, Known::default())
    }

    fn with(
        device: &Device,
        network: Network,
        precision: Precision,
        images: usize,
        known: Known,
    ) -> Result<Self, Error> {
        let settings = Settings { precision, images, gpu: device.gpu, known: Arc::new(known) };
        let plan = plan(network.clone(), settings)?;
        let program = Program::new(device.client.clone(), plan, None);
        let results = numbers(&device.client, program.results());
        compile_ahead(device, |queue| {
            program.launch(queue);
            program.leave(queue, &results);
        });
        let device = device.clone();
        Ok(Self { device, network, precision, images, program, results, graph: None })
    }

    /// Launches, bytes of buffers, bytes of weights, and kinds of convolution kernels.
    #[must_use]
    pub fn facts(&self) -> (usize, u64, u64, usize) {
        let plan = &self.program.plan;
        let mut kernels: Vec<Kernel> = Vec::new();
        for step in &plan.steps {
            if let Action::Conv { way, .. } = step
                && !kernels.contains(&way.kernel)
            {
                kernels.push(way.kernel);
            }
        }
        (plan.steps.len(), plan.buffer_bytes(), self.program.weight_bytes(), kernels.len())
    }

    fn queue(&self) -> Queue<'_> {
        Queue::new(&self.device.client)
    }

    /// Numbers of the input.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.images * self.network.input.channels * self.network.input.voxels()
    }

    /// One run with copies: input from the host, results back.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] if the device fails.
    pub fn round(&mut self, input: &[f32]) -> Result<Vec<f32>, Error> {
        self.program.write_input(input);
        if let Some(graph) = &self.graph {
            // SAFETY: the program's buffers live on, and this is the one stream that uses them.
            #[allow(unsafe_code)]
            drop(unsafe { graph.replay() });
        } else {
            self.program.launch(&self.queue());
            self.program.leave(&self.queue(), &self.results);
        }
        let count = self.program.results();
        Ok(download(&self.device.client, &self.results, count)?)
    }

    /// Records the launches of a run, so that the device gets them at once; it must have run before.
    pub fn record(&mut self) -> bool {
        let client = &self.device.client;
        let run = || {
            self.program.launch(&self.queue());
            self.program.leave(&self.queue(), &self.results);
        };
        self.graph = client.graph_prepare().ok().and_then(|()| {
            run();
            client.start_capture().ok()?;
            run();
            client.stop_capture().ok()
        });
        self.graph.is_some()
    }

    /// Seconds on the device without copies: all steps, and with the results channel after channel.
    #[must_use]
    pub fn on_device(&self) -> (f64, f64) {
        let client = &self.device.client;
        let (steps, _) = seconds(client, &|| self.program.launch(&self.queue()));
        let (all, _) = seconds(client, &|| {
            self.program.launch(&self.queue());
            self.program.leave(&self.queue(), &self.results);
        });
        (steps, all)
    }

    /// Seconds until the device has done a run, without copies.
    #[must_use]
    pub fn waited(&self) -> f64 {
        let start = Instant::now();
        self.program.launch(&self.queue());
        let _ = block_on(self.device.client.sync());
        start.elapsed().as_secs_f64()
    }

    /// Times every launch alone.
    pub fn steps(&self, report: &mut dyn FnMut(String)) {
        let mut sum = 0.0;
        let size = self.precision.bytes();
        for step in &self.program.plan.steps {
            let (seconds, _) =
                seconds(&self.device.client, &|| self.program.act(&self.queue(), step));
            sum += seconds;
            let rates = match step {
                Action::Conv { conv, way, .. } => format!(
                    "cubes {} {:.1} TF/s {:.0} GB/s",
                    way.cubes(conv, self.images),
                    conv.flops() * self.images as f64 / seconds / 1e12,
                    conv.numbers() * (self.images * size) as f64 / seconds / 1e9,
                ),
                _ => String::new(),
            };
            report(format!("{:9.2} us {} {rates}", seconds * 1e6, describe(step)));
        }
        report(format!("{:9.2} us sum of launches timed alone", sum * 1e6));
    }

    /// Measures ways to run each convolution and takes the quickest.
    ///
    /// # Errors
    ///
    /// As of [`Network::open`](crate::Network::open).
    pub fn tune(
        self,
        most: usize,
        limit: Duration,
        report: &mut dyn FnMut(String),
    ) -> Result<Self, Error> {
        let until = Instant::now() + limit;
        let known = lab::tune(&self.device, &self.program.plan, most, until, report);
        Self::with(&self.device, self.network, self.precision, self.images, known)
    }
}

fn describe(action: &Action) -> String {
    match action {
        Action::Conv { conv, way, .. } => {
            let up = if conv.scattered() > 1 { " up" } else { "" };
            format!(
                "{:?}>{} {:?}{up} {} split {}",
                conv.inputs,
                conv.outputs,
                conv.input,
                way.kernel.text(),
                way.splits
            )
        }
        Action::Merge { pieces, .. } => format!("merge {pieces}"),
        Action::Finish { voxels, piece, splits, .. } => {
            format!("finish {voxels} by {piece}, {splits} parts")
        }
        other => format!("{other:?}").chars().take(60).collect(),
    }
}
