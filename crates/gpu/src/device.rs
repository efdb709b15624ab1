//! A GPU, and what is known of it.

use crate::choose::Gpu;
use crate::network::Error;
use crate::plan::Precision;
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use std::path::Path;

/// A GPU that runs networks.
#[derive(Clone)]
pub struct Device {
    pub(crate) client: Client,
    pub(crate) gpu: Gpu,
    /// Bytes that were free when it was opened, where it says so.
    free_bytes: Option<u64>,
}

/// Bytes of a device left to the driver's context and to kernels.
#[cfg(feature = "cuda")]
const RESERVED_BYTES: u64 = 300 << 20;

/// Memory assumed where a device does not say how much is free.
const ASSUMED_BYTES: u64 = 4 << 30;

impl Device {
    /// The CUDA device of that number.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], as of [`check_cuda`].
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Result<Self, Error> {
        check_cuda(index)?;
        let device = cubecl::Device::cuda(index);
        let device = device.map_err(|error| Error::Missing(error.to_string()))?;
        let free = crate::driver::gpu(index).map_or(ASSUMED_BYTES, |gpu| gpu.free_bytes);
        let free_bytes = Some(free.saturating_sub(RESERVED_BYTES));
        Ok(Self { free_bytes, ..Self::new(device.client()) })
    }

    /// The Vulkan device of that number: discrete GPUs come first, software drivers last.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if there is no device of that number.
    #[cfg(feature = "vulkan")]
    pub fn vulkan(index: usize) -> Result<Self, Error> {
        let found = vulkan_devices();
        let reason = match found.len() {
            0 => "no Vulkan driver offers a device here; install the GPU's driver (on Linux a package \
                  such as mesa-vulkan-drivers), or use the CPU"
                .to_owned(),
            1 => "there is one Vulkan device, vulkan:0".to_owned(),
            n => format!("there are {n} Vulkan devices, vulkan:0 to vulkan:{}", n - 1),
        };
        let found = found.into_iter().nth(index);
        let (is_software, device) = found.ok_or(Error::Missing(reason))?;
        let mut device = Self::new(device.client());
        // Mesa 22.3's driver crashes while it compiles kernels whose threads share memory.
        device.gpu.shares = !is_software;
        Ok(device)
    }

    pub(crate) fn new(client: Client) -> Self {
        let hardware = &client.properties().hardware;
        let usual = Gpu::H100;
        let processors =
            hardware.num_streaming_multiprocessors.map_or(usual.processors, |n| n as usize);
        // Our kernels know one instruction of NVIDIA's tensor cores; those before 8.0 lack it.
        let mut instructions = client.features().matmul.mma.iter();
        let known = instructions.any(|of| (of.m, of.n, of.k) == (16, 8, 16));
        let matrix = if known { usual.matrix } else { 0.0 };
        let cube_shared = hardware.max_shared_memory_size;
        let gpu = Gpu { processors: processors.max(1), cube_shared, matrix, ..usual };
        Self { client, gpu, free_bytes: None }
    }

    /// Bytes of its memory to plan with: what is free, or what may be assumed.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let all = self.client.properties().memory.max_memory();
        self.free_bytes.unwrap_or_else(|| all.unwrap_or(u64::MAX).min(ASSUMED_BYTES))
    }

    /// Most bytes of it to plan with for a caller who knows how much is free.
    #[must_use]
    pub fn most_bytes(&self) -> u64 {
        self.free_bytes.or(self.client.properties().memory.max_memory()).unwrap_or(u64::MAX)
    }

    /// Most bytes of one buffer.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.client.properties().memory.max_page_size
    }

    /// Whether the device holds numbers of that precision.
    #[must_use]
    pub fn has(&self, precision: Precision) -> bool {
        let kind = match precision {
            Precision::F32 => FloatKind::F32,
            Precision::F16 => FloatKind::F16,
            Precision::Bf16 => FloatKind::BF16,
        };
        self.client.properties().supports_type(ElemType::Float(kind))
    }
}

/// Whether the CUDA device of that number can be used.
///
/// # Errors
///
/// [`Error::Missing`] if it cannot.
#[cfg(feature = "cuda")]
pub fn check_cuda(index: usize) -> Result<(), Error> {
    crate::probe::check(&crate::probe::Facts::here(index), index).map_err(Error::Missing)
}

/// All Vulkan devices there are, and whether each is a program of the CPU.
#[cfg(feature = "vulkan")]
fn vulkan_devices() -> Vec<(bool, cubecl::Device)> {
    use cubecl::device::{WgpuBackend, WgpuDevice, WgpuDeviceKind as Kind};
    let kinds = [
        Kind::DiscreteGpu(0),
        Kind::IntegratedGpu(0),
        Kind::VirtualGpu(0),
        Kind::Cpu,
        Kind::Other(0),
    ];
    // Each asks for its own kind.
    let like =
        |kind: Kind| cubecl::Device::Wgpu(WgpuDevice::new(kind).on(WgpuBackend::Vulkan)).to_id();
    let of = |kind: Kind| {
        let is_software = kind == Kind::Cpu;
        let found = cubecl::Device::enumerate(like(kind)).into_iter();
        found.map(move |id| (is_software, cubecl::Device::from_id(id)))
    };
    kinds.into_iter().flat_map(of).collect()
}

/// Keeps compiled kernels of this process in a folder, which is made if it is not there, and uses
/// those that are; `None` keeps them nowhere. Returns whether kernels can be added. It serves CUDA.
///
/// # Errors
///
/// [`Error::Folder`] if the folder is not used: others may write in it, or it cannot be made.
pub fn keep_kernels_in(folder: Option<&Path>) -> Result<bool, Error> {
    #[cfg(feature = "cuda")]
    {
        let folder = folder.map(cubecl_llvm::folder::Folder::open).transpose();
        let folder = folder.map_err(Error::Folder)?;
        let writable = folder.as_ref().is_none_or(cubecl_llvm::folder::Folder::is_writable);
        cubecl_llvm::kernels::keep_in(folder);
        Ok(writable)
    }
    #[cfg(not(feature = "cuda"))]
    Ok(folder.is_none())
}

/// How many kernels this process has compiled, and how many it has read from the folder.
#[must_use]
pub fn kernel_counts() -> (usize, usize) {
    #[cfg(feature = "cuda")]
    return cubecl_llvm::kernels::counts();
    #[cfg(not(feature = "cuda"))]
    (0, 0)
}
