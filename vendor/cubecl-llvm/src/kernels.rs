//! Compiled kernels: those of this process in memory, those of others in a folder.

use crate::folder::Folder;
use crate::nvrtc;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};

/// Changes when kernels of the same source would be compiled otherwise.
const FORMAT: &str = "1 nvrtc cubin";

static FOLDER: RwLock<Option<Folder>> = RwLock::new(None);
static COMPILED: AtomicUsize = AtomicUsize::new(0);
static LOADED: AtomicUsize = AtomicUsize::new(0);
static KNOWN: LazyLock<Mutex<HashMap<String, Kernel>>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();

/// A kernel of this process.
enum Kernel {
    /// A thread is at it.
    Begun,
    Ready(Arc<Vec<u8>>),
    Refused(String),
}

fn known() -> MutexGuard<'static, HashMap<String, Kernel>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where kernels are kept from now on; `None` for nowhere but in memory.
pub fn keep_in(folder: Option<Folder>) {
    *FOLDER.write().unwrap_or_else(PoisonError::into_inner) = folder;
}

/// How many kernels this process has compiled, and how many it has read from the folder.
#[must_use]
pub fn counts() -> (usize, usize) {
    (COMPILED.load(Ordering::Relaxed), LOADED.load(Ordering::Relaxed))
}

/// The binary of a kernel for an architecture. Who asks for one that another thread is at waits.
pub(crate) fn binary(source: &str, arch: &str) -> Result<Arc<Vec<u8>>, String> {
    let key = key(source, arch);
    let mut kernels = known();
    loop {
        match kernels.get(&key) {
            Some(Kernel::Ready(binary)) => return Ok(Arc::clone(binary)),
            Some(Kernel::Refused(reason)) => return Err(reason.clone()),
            Some(Kernel::Begun) => {
                kernels = CHANGED.wait(kernels).unwrap_or_else(PoisonError::into_inner);
            }
            None => break,
        }
    }
    kernels.insert(key.clone(), Kernel::Begun);
    drop(kernels);
    // cudarc panics where NVRTC is not there, and nobody may wait for ever.
    let made = std::panic::catch_unwind(|| make(&key, source, arch))
        .unwrap_or_else(|_| Err("NVRTC is not there".to_owned()));
    let kernel = match &made {
        Ok(binary) => Kernel::Ready(Arc::clone(binary)),
        Err(reason) => Kernel::Refused(reason.clone()),
    };
    known().insert(key, kernel);
    CHANGED.notify_all();
    made
}

/// Reads a kernel from the folder, or compiles it and puts it there.
fn make(key: &str, source: &str, arch: &str) -> Result<Arc<Vec<u8>>, String> {
    let folder = FOLDER.read().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(binary) = folder.as_ref().and_then(|folder| folder.get(key)) {
        LOADED.fetch_add(1, Ordering::Relaxed);
        return Ok(Arc::new(binary));
    }
    let binary = nvrtc::compile(source, arch)?;
    COMPILED.fetch_add(1, Ordering::Relaxed);
    if let Some(folder) = folder {
        folder.put(key, &binary);
    }
    Ok(Arc::new(binary))
}

/// What decides about a binary: source, architecture, and the compiler.
fn key(source: &str, arch: &str) -> String {
    let (major, minor) = nvrtc::version().unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [FORMAT, arch, &format!("{major}.{minor}"), source] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
