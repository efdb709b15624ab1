//! Whether CUDA can run here, told from facts about the machine before cubecl touches it.
//!
//! cubecl panics where something is missing; so everything it needs is asked for first, and what is
//! missing is said in one sentence with what would help.

use std::path::PathBuf;

/// Oldest driver, by the CUDA version it implements: the first whose functions have the
/// form this build was made for.
const OLDEST_DRIVER: (i32, i32) = (12, 0);

/// First compute capability with fp16 arithmetic in all of NVRTC 12's targets.
const OLDEST_GPU: (i32, i32) = (6, 0);

/// What a machine has. Gathered by `Facts::here`, made up by tests.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// CUDA version of the driver; `None` where its library does not load.
    pub(crate) driver: Option<(i32, i32)>,
    /// Number of GPUs, or what the driver said instead.
    pub(crate) gpus: Result<usize, String>,
    /// CUDA version of NVRTC; `None` where its library does not load.
    pub(crate) compiler: Option<(i32, i32)>,
    /// The toolkit's folder as cubecl will look for it, and whether the headers are in it.
    pub(crate) toolkit: Option<(PathBuf, bool)>,
    /// The GPU asked for: name and compute capability.
    pub(crate) gpu: Result<(String, (i32, i32)), String>,
}

/// The reason why GPU number `index` cannot be used, as a sentence without a full stop.
///
/// # Errors
///
/// The reason; it starts with what is missing and ends with what helps.
pub(crate) fn check(facts: &Facts, index: usize) -> Result<(), String> {
    let text = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    let Some(driver) = facts.driver else {
        return Err("there is no NVIDIA driver here (libcuda.so.1 does not load); install one, \
                    or use the CPU"
            .to_owned());
    };
    if driver < OLDEST_DRIVER {
        return Err(format!(
            "the NVIDIA driver is too old: it knows CUDA {}, and {} is needed; update it",
            text(driver),
            text(OLDEST_DRIVER)
        ));
    }
    let gpus = match &facts.gpus {
        Ok(count) => *count,
        Err(said) => return Err(format!("the NVIDIA driver does not start: {said}")),
    };
    if index >= gpus {
        return Err(match gpus {
            0 => "the NVIDIA driver finds no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES".into(),
            1 => "there is one GPU, cuda:0".to_owned(),
            _ => format!("there are {gpus} GPUs, cuda:0 to cuda:{}", gpus - 1),
        });
    }
    let Some(compiler) = facts.compiler else {
        return Err("NVIDIA's run-time compiler is missing (libnvrtc.so does not load); install \
                    the package cuda-nvrtc of CUDA 12 and name its folder in LD_LIBRARY_PATH"
            .to_owned());
    };
    // The driver refuses PTX of a toolkit newer than itself.
    if compiler > driver {
        return Err(format!(
            "NVRTC is of CUDA {} and the driver only knows {}; update the driver, or put an \
             older cuda-nvrtc first in LD_LIBRARY_PATH",
            text(compiler),
            text(driver)
        ));
    }
    match &facts.toolkit {
        Some((_, true)) => {}
        Some((folder, false)) => {
            return Err(format!(
                "the CUDA headers are missing ({}/include/cuda_fp16.h); install the package \
                 cuda-cudart-dev, or point CUDA_PATH at a toolkit",
                folder.display()
            ));
        }
        None => {
            return Err("the CUDA headers are missing; install the package cuda-cudart-dev and \
                        point CUDA_PATH at the folder that holds include/cuda_fp16.h"
                .to_owned());
        }
    }
    let (name, capability) = match &facts.gpu {
        Ok(gpu) => gpu,
        Err(said) => return Err(format!("the GPU does not answer: {said}")),
    };
    if *capability < OLDEST_GPU {
        return Err(format!(
            "{name} is too old: its compute capability is {}, and {} is needed",
            text(*capability),
            text(OLDEST_GPU)
        ));
    }
    Ok(())
}

impl Facts {
    /// Asks this machine. Stops asking where the driver or the GPU is missing.
    pub(crate) fn here(index: usize) -> Self {
        use crate::driver;
        let driver = driver::driver_version();
        let usable = driver.is_some_and(|version| version >= OLDEST_DRIVER);
        let gpus = if usable { driver::gpu_count() } else { None }.unwrap_or(Ok(0));
        let gpu = if gpus.as_ref().is_ok_and(|&count| index < count) {
            driver::gpu(index).map(|gpu| (gpu.name, gpu.capability))
        } else {
            Err("not asked".to_owned())
        };
        let toolkit = cubecl::cuda::install::cuda_path().map(|folder| {
            let headers = folder.join("include").join("cuda_fp16.h").is_file();
            (folder, headers)
        });
        Self { driver, gpus, compiler: driver::compiler_version(), toolkit, gpu }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            driver: Some((12, 8)),
            gpus: Ok(2),
            compiler: Some((12, 4)),
            toolkit: Some((PathBuf::from("/usr/local/cuda"), true)),
            gpu: Ok(("GPU".to_owned(), (8, 9))),
        }
    }

    #[test]
    fn a_good_machine_passes() {
        assert_eq!(check(&good(), 1), Ok(()));
        assert_eq!(check(&Facts { compiler: Some((12, 8)), ..good() }, 0), Ok(()));
    }

    #[test]
    fn each_failure_names_what_is_missing_and_what_helps() {
        // (case, facts, words the sentence has)
        let cases: [(&str, Facts, &[&str]); 11] = [
            ("no driver", Facts { driver: None, ..good() }, &["no NVIDIA driver", "the CPU"]),
            ("old driver", Facts { driver: Some((11, 8)), ..good() }, &["11.8", "12.0", "update"]),
            ("no start", Facts { gpus: Err("code 999".into()), ..good() }, &["code 999"]),
            ("no GPU", Facts { gpus: Ok(0), ..good() }, &["no GPU", "CUDA_VISIBLE_DEVICES"]),
            ("one GPU", Facts { gpus: Ok(1), ..good() }, &["one GPU", "cuda:0"]),
            (
                "no NVRTC",
                Facts { compiler: None, ..good() },
                &["libnvrtc", "cuda-nvrtc", "LD_LIBRARY_PATH"],
            ),
            (
                "NVRTC newer than the driver",
                Facts { compiler: Some((12, 9)), ..good() },
                &["12.9", "12.8", "LD_LIBRARY_PATH"],
            ),
            ("no toolkit", Facts { toolkit: None, ..good() }, &["headers", "CUDA_PATH"]),
            (
                "no headers",
                Facts { toolkit: Some((PathBuf::from("/opt/cuda"), false)), ..good() },
                &["/opt/cuda/include", "cuda-cudart-dev", "CUDA_PATH"],
            ),
            ("silent GPU", Facts { gpu: Err("code 46".into()), ..good() }, &["code 46"]),
            ("old GPU", Facts { gpu: Ok(("GPU".to_owned(), (5, 2))), ..good() }, &["5.2", "6.0"]),
        ];
        for (case, facts, words) in cases {
            let reason = check(&facts, 1).expect_err(case);
            assert!(!reason.contains('\n') && !reason.ends_with('.'), "{case}: {reason}");
            for word in words {
                assert!(reason.contains(word), "{case}: {reason} lacks {word}");
            }
        }
        let beyond = check(&good(), 2).expect_err("the third of two");
        assert!(beyond.contains("cuda:0 to cuda:1"), "{beyond}");
    }

    /// The first thing that is missing is named, not what only looks missing because of it.
    #[test]
    fn reasons_come_in_the_order_of_their_causes() {
        let nothing = Facts {
            driver: None,
            gpus: Ok(0),
            compiler: None,
            toolkit: None,
            gpu: Err("not asked".to_owned()),
        };
        assert!(check(&nothing, 0).expect_err("nothing").contains("driver"));
        let driver = Facts { driver: Some((12, 8)), ..nothing };
        assert!(check(&driver, 0).expect_err("no GPU").contains("no GPU"));
    }
}
