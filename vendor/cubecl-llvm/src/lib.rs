//! The names that cubecl-cuda asks of its LLVM backend, over NVIDIA's own compiler.
//!
//! A kernel becomes CUDA C++ (`cubecl-cpp`), and that a binary for the GPU at hand (NVRTC): what
//! cubecl-cuda calls PTX and hands to the driver unread may be either. [`kernels`] keeps binaries,
//! in memory and in a folder.

pub mod folder;
pub mod kernels;
mod nvrtc;
mod settled;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::{ExecutionMode, KernelDefinition};
use cubecl_cpp::shared::{CompilationOptions, CppCompiler, CppSupportedFeatures};
use cubecl_cpp::target::Cuda;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::{BufferIOAttr, CubeKernel, define_kernel};
use std::ffi::c_char;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// What code is generated for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA GPUs.
    #[default]
    Nvptx,
}

/// The compiler.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Always the same.
    pub target: LlvmTarget,
}

/// What the compiler is told.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Not used.
    pub arch: Option<std::convert::Infallible>,
    /// The GPU.
    pub sm_arch: Option<SmArch>,
    /// Always `None`.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Whether parameters of a launch are constants of the grid.
    pub grid_constants: bool,
}

/// A compiled kernel.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// The binary.
    pub ptx: Vec<c_char>,
    /// Name of the kernel in it.
    pub entrypoint: String,
    /// Empty.
    pub ir: String,
    /// Bytes of shared memory per launch.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What compilation produces.
#[derive(Clone)]
pub enum PlironArtifact {
    /// Code for NVIDIA GPUs.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        kernel: KernelDefinition,
        options: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(options.clone());
        let failed = |reason: String| CompilationError::Generic {
            reason,
            backtrace: cubecl_environment::backtrace::BackTrace::capture(),
        };
        let arch = options.sm_arch.ok_or_else(|| failed("no GPU was named".to_owned()))?;
        let name = kernel.settings.kernel_name.clone();
        let mut compiler = CppCompiler::<Cuda>::default();
        let code = compiler.compile(kernel, &cpp_options(arch, options.grid_constants))?;
        let (source, entrypoint) = settled::settled(&code.source, &name);
        let binary = kernels::binary(&source, &arch.target_cpu()).map_err(failed)?;
        Ok(PlironArtifact::NvptxCode(NvptxModule {
            ptx: binary.iter().map(|&byte| byte as c_char).collect(),
            entrypoint,
            ir: String::new(),
            shared_memory_size: code.shared_memory_size,
            io: code.io,
        }))
    }

    fn extension(&self) -> &'static str {
        "cubin"
    }

    fn lang_tag(&self) -> &'static str {
        "cuda"
    }
}

/// What the compiler was told last.
static LAST: Mutex<Option<PlironOptions>> = Mutex::new(None);

/// Compiles kernels before they are launched (without checks), by as many threads at once as the
/// machine has processors, for the GPU that a kernel was compiled for last. What fails here fails
/// again, with its reason, where it is launched.
pub fn compile_ahead(kernels: Vec<Box<dyn CubeKernel>>) {
    let options = LAST.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(options) = options else { return };
    let most = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
    let waiting = Mutex::new(kernels.into_iter());
    let work = || {
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(kernel) = next else { return };
            let Ok(mut definition) = define_kernel(&*kernel) else { continue };
            definition.settings.execution_mode = ExecutionMode::Unchecked;
            drop(PlironCompiler::default().compile(definition, &options));
        }
    };
    std::thread::scope(|scope| (0..most).for_each(|_| drop(scope.spawn(work))));
}

/// What cubecl-cuda sets for its C++ backend on such a GPU.
fn cpp_options(arch: SmArch, grid_constants: bool) -> CompilationOptions {
    let newer = arch.version() >= 90;
    CompilationOptions {
        warp_size: 32,
        supports_features: CppSupportedFeatures {
            grid_constants,
            fast_math: true,
            dp4a: arch.version() >= 61,
            fast_tanh: arch.version() >= 75,
            clusters: newer,
            elect_sync: newer,
        },
        ..CompilationOptions::default()
    }
}

/// NVIDIA GPUs.
pub mod nvptx {
    /// Versions of the PTX language.
    pub mod ptx_version {
        use std::fmt;

        /// A version this crate could emit: there is none.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum PtxVersion {}

        impl PtxVersion {
            /// The newest version to emit for a driver: none.
            pub fn for_driver(_driver: i32) -> Option<Self> {
                None
            }
        }

        impl fmt::Display for PtxVersion {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {}
            }
        }
    }
}

/// What every GPU target shares.
pub mod shared {
    /// What a device may advertise to kernels of this backend.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// The kind of GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA GPUs.
            Nvptx,
        }

        /// Nothing: kernels are written as C++, which knows all that a device advertises.
        pub fn restrict_features(_properties: &mut DeviceProperties, _target: GpuTarget) {}
    }
}
