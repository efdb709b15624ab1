//! A GPU, and what is known of it.

use crate::choose::Gpu;
use crate::plan::Precision;
use cubecl::client::Client;
use cubecl::ir::{ElemType, FloatKind};
use std::path::Path;

/// A GPU that runs networks.
#[derive(Clone)]
pub struct Device {
    pub(crate) client: Client,
    pub(crate) gpu: Gpu,
}

impl Device {
    /// The CUDA device of that number. The driver and NVRTC must be there.
    ///
    /// # Errors
    ///
    /// What is missing, in words.
    #[cfg(feature = "cuda")]
    pub fn cuda(index: usize) -> Result<Self, String> {
        let device = cubecl::Device::cuda(index).map_err(|error| format!("{error:?}"))?;
        Ok(Self::new(device.client()))
    }

    /// The first Vulkan device.
    ///
    /// # Errors
    ///
    /// What is missing, in words.
    #[cfg(feature = "vulkan")]
    pub fn vulkan() -> Result<Self, String> {
        let kind = cubecl::device::WgpuDeviceKind::DefaultDevice;
        let device = cubecl::Device::vulkan(kind).map_err(|error| format!("{error:?}"))?;
        Ok(Self::new(device.client()))
    }

    pub(crate) fn new(client: Client) -> Self {
        let hardware = &client.properties().hardware;
        let usual = Gpu::H100;
        let processors =
            hardware.num_streaming_multiprocessors.map_or(usual.processors, |n| n as usize);
        // Our kernels know the instruction of NVIDIA's tensor cores only.
        let matrix = if client.features().matmul.mma.is_empty() { 0.0 } else { usual.matrix };
        let cube_shared = hardware.max_shared_memory_size;
        let gpu = Gpu { processors: processors.max(1), cube_shared, matrix, ..usual };
        Self { client, gpu }
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

/// Keeps compiled kernels of this process in a folder, which is made if it is not there, and uses
/// those that are; `None` keeps them nowhere. Returns whether kernels can be added. It serves CUDA.
///
/// # Errors
///
/// Why the folder is not used, in words: others may write in it, or it cannot be made.
pub fn keep_kernels_in(folder: Option<&Path>) -> Result<bool, String> {
    #[cfg(feature = "cuda")]
    {
        let folder = folder.map(cubecl_llvm::folder::Folder::open).transpose()?;
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
