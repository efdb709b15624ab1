//! The names cubecl-cuda needs to compile when its kernels go through NVRTC
//! (`cubecl/cuda-cpp`). Nothing here compiles a kernel: asked to, it returns an error.

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;
use std::convert::Infallible;
use std::ffi::c_char;
use std::fmt;

/// Where code would have been generated for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA GPUs.
    #[default]
    Nvptx,
}

/// The compiler that is not there.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// Ignored.
    pub target: LlvmTarget,
}

/// Options of the compiler that is not there.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// Ignored.
    pub arch: Option<Infallible>,
    /// Ignored.
    pub sm_arch: Option<SmArch>,
    /// Always `None`.
    pub ptx_version: Option<nvptx::ptx_version::PtxVersion>,
    /// Ignored.
    pub grid_constants: bool,
}

/// A compiled kernel; none can exist.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text.
    pub ptx: Vec<c_char>,
    /// Name of the kernel in it.
    pub entrypoint: String,
    /// The text it was made from.
    pub ir: String,
    /// Bytes of shared memory per launch.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
    /// Keeps anyone from making one.
    pub impossible: Infallible,
}

/// What compilation would have produced.
#[derive(Clone)]
pub enum PlironArtifact {
    /// Code for NVIDIA GPUs.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NvptxCode(module) = self;
        f.write_str(&module.ir)
    }
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _kernel: KernelDefinition,
        _options: &PlironOptions,
    ) -> Result<PlironArtifact, CompilationError> {
        Err(CompilationError::Generic {
            reason: "this build has no LLVM backend, only NVRTC".to_owned(),
            backtrace: cubecl_environment::backtrace::BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
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
    /// What a device may advertise to kernels of the LLVM backend.
    pub mod lowered_features {
        use cubecl_core::ir::DeviceProperties;

        /// The kind of GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum GpuTarget {
            /// NVIDIA GPUs.
            Nvptx,
        }

        /// Called for the LLVM backend only, which never runs: without matrix instructions
        /// a kernel asks for nothing this crate would have to compile.
        pub fn restrict_features(properties: &mut DeviceProperties, _target: GpuTarget) {
            properties.features.matmul = Default::default();
        }
    }
}
