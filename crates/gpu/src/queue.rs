//! Where launches go: to the device, or to a list of kernels that are compiled before it gets them.

use crate::device::Device;
use crate::kernels::image;
use cubecl::CubeKernel;
use cubecl::client::Client;
use cubecl::future::block_on;
use cubecl::prelude::*;
use cubecl::server::Handle;
use std::cell::RefCell;
use std::collections::HashSet;

/// Takes launches.
pub(crate) struct Queue<'a> {
    pub client: &'a Client,
    /// Kernels of launches that are not to run.
    pub noted: Option<RefCell<Vec<Box<dyn CubeKernel>>>>,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, noted: None }
    }
}

/// Launches a kernel with so many cubes of so many threads, without checks, or notes it.
macro_rules! start {
    ($queue:expr, $($kernel:ident)::+, $count:expr, $dim:expr, $($argument:expr),* $(,)?) => {{
        let queue: &$crate::queue::Queue<'_> = $queue;
        match &queue.noted {
            None => $($kernel)::+::launch_unchecked(queue.client, $count, $dim, $($argument),*),
            Some(noted) => noted.borrow_mut().push(Box::new($($kernel)::+::create_dummy_kernel(
                queue.client.properties_shared(),
                queue.client.target_properties_shared(),
                $count,
                $dim,
                $($argument),*
            ))),
        }
    }};
}
pub(crate) use start;

/// Compiles all kernels that `launches` needs, at once where the device's compiler can. Others are
/// compiled when they are launched.
pub(crate) fn compile_ahead(device: &Device, launches: impl FnOnce(&Queue<'_>)) {
    if !cfg!(feature = "cuda") {
        return;
    }
    // The compiler learns from a first kernel what it compiles for.
    let word = device.client.empty(4);
    // SAFETY: one number is cleared, and the buffer has it.
    #[allow(unsafe_code, reason = "a launch")]
    unsafe {
        start!(
            &Queue::new(&device.client),
            image::clear,
            cubes(1),
            CubeDim::new_1d(image::THREADS as u32),
            whole(word, 4),
            1
        );
    }
    drop(block_on(device.client.sync()));
    let queue = Queue { client: &device.client, noted: Some(RefCell::default()) };
    launches(&queue);
    let mut kernels = queue.noted.map(RefCell::into_inner).unwrap_or_default();
    let mut known = HashSet::new();
    kernels.retain(|kernel| known.insert(kernel.id()));
    #[cfg(feature = "cuda")]
    cubecl_llvm::compile_ahead(kernels);
}

/// A buffer as an argument, in vectors of so many bytes.
pub(crate) fn whole(handle: Handle, bytes: usize) -> BufferArg {
    let length = handle.size_in_used() as usize / bytes;
    // SAFETY: the length is that of the handle's own bytes.
    #[allow(unsafe_code, reason = "an argument of a launch")]
    unsafe {
        BufferArg::from_raw_parts(handle, length)
    }
}

/// A grid of so many cubes: along x as long as it takes them.
pub(crate) fn cubes(count: usize) -> CubeCount {
    const MOST: usize = 65535;
    if count <= MOST {
        return CubeCount::Static(count as u32, 1, 1);
    }
    // Kernels that take grids with more cubes than asked for leave early.
    let y = count.div_ceil(MOST);
    CubeCount::Static(count.div_ceil(y) as u32, y as u32, 1)
}
