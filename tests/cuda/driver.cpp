// A CUDA driver for tests without a GPU: its memory is the host's, its kernels are the host code that
// compiler.cpp made, and everything is done when the call returns. It has what cubecl calls and no more.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "blocks.h"

using Result = int;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };
static const size_t MEMORY = size_t(8) << 30;
static const unsigned THREADS = 1024, THREADS_Z = 64, BLOCKS_X = 0x7fffffff, BLOCKS_YZ = 65535, SHARED = 96 << 10;
static int context;

#define API extern "C" __attribute__((visibility("default"))) Result

API cuInit(unsigned) { return SUCCESS; }
API cuDriverGetVersion(int* v) { *v = 12080; return SUCCESS; }
API cuDeviceGetCount(int* n) { *n = 1; return SUCCESS; }
API cuDeviceGet(int* d, int i) { *d = i; return i == 0 ? SUCCESS : INVALID_DEVICE; }
API cuDeviceGetName(char* name, int n, int) { snprintf(name, n, "host code"); return SUCCESS; }
API cuDeviceGetPCIBusId(char* s, int n, int) { snprintf(s, n, "0000:00:00.0"); return SUCCESS; }
API cuDeviceTotalMem_v2(size_t* n, int) { *n = MEMORY; return SUCCESS; }
API cuMemGetInfo_v2(size_t* f, size_t* t) { *f = *t = MEMORY; return SUCCESS; }
API cuDeviceGetAttribute(int* v, int attribute, int) {
    const char* wanted = getenv("CUDA_ON_HOST_CAPABILITY");
    int capability = wanted ? atoi(wanted) : 80;
    switch (attribute) {
        case 1: case 2: case 3: *v = THREADS; break;  // of a block, along x and y
        case 4: *v = THREADS_Z; break;
        case 5: *v = BLOCKS_X; break;
        case 6: case 7: *v = BLOCKS_YZ; break;
        case 8: *v = SHARED / 2; break;               // shared memory of a block
        case 10: *v = 32; break;                      // threads of a warp
        case 16: *v = 16; break;                      // multiprocessors
        case 75: *v = capability / 10; break;
        case 76: *v = capability % 10; break;
        case 97: *v = SHARED; break;                  // shared memory of a block that asks for it
        case 115: *v = 1; break;                      // memory pools
        default: *v = 0;
    }
    return SUCCESS;
}
API cuDevicePrimaryCtxRetain(void** c, int) { *c = &context; return SUCCESS; }
API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API cuCtxSetCurrent(void*) { return SUCCESS; }
API cuCtxGetCurrent(void** c) { *c = &context; return SUCCESS; }
API cuCtxGetStreamPriorityRange(int* a, int* b) { *a = *b = 0; return SUCCESS; }

// Allocations end in bytes that nobody may change: pages of other buffers follow on a device.
static const size_t FENCE = 4096;
static std::map<char*, size_t> allocations;
static std::mutex allocations_lock;

static Result give(uint64_t* p, size_t n) {
    void* got = nullptr;
    if (posix_memalign(&got, 512, n + FENCE)) return OUT_OF_MEMORY;
    memset(got, 0x7f, n);  // what no kernel wrote shows
    memset(static_cast<char*>(got) + n, 0x5a, FENCE);
    std::lock_guard<std::mutex> guard(allocations_lock);
    allocations[static_cast<char*>(got)] = n;
    *p = reinterpret_cast<uint64_t>(got);
    return SUCCESS;
}
static Result take(void* p) {
    std::lock_guard<std::mutex> guard(allocations_lock);
    allocations.erase(static_cast<char*>(p));
    free(p);
    return SUCCESS;
}
static void check_fences(const char* kernel) {
    std::lock_guard<std::mutex> guard(allocations_lock);
    for (auto& [start, n] : allocations)
        for (size_t i = 0; i < FENCE; i++)
            if (start[n + i] != 0x5a) {
                fprintf(stderr, "driver.cpp: %s wrote %zu bytes behind a buffer of %zu\n", kernel, i, n);
                abort();
            }
}
API cuMemAlloc_v2(uint64_t* p, size_t n) { return give(p, n); }
API cuMemAllocAsync(uint64_t* p, size_t n, void*) { return give(p, n); }
API cuMemFree_v2(uint64_t p) { return take(reinterpret_cast<void*>(p)); }
API cuMemFreeAsync(uint64_t p, void*) { return take(reinterpret_cast<void*>(p)); }
API cuMemAllocHost_v2(void** p, size_t n) { return give(reinterpret_cast<uint64_t*>(p), n); }
API cuMemFreeHost(void* p) { return take(p); }
API cuMemcpyHtoDAsync_v2(uint64_t d, const void* s, size_t n, void*) { memcpy(reinterpret_cast<void*>(d), s, n); return SUCCESS; }
API cuMemcpyDtoHAsync_v2(void* d, uint64_t s, size_t n, void*) { memcpy(d, reinterpret_cast<void*>(s), n); return SUCCESS; }
API cuMemcpyDtoDAsync_v2(uint64_t d, uint64_t s, size_t n, void*) { memmove(reinterpret_cast<void*>(d), reinterpret_cast<void*>(s), n); return SUCCESS; }

struct Copy2D {
    size_t sx, sy; int stype; const void* shost; uint64_t sdev; void* sarr; size_t spitch;
    size_t dx, dy; int dtype; void* dhost; uint64_t ddev; void* darr; size_t dpitch;
    size_t width, height;
};
API cuMemcpy2DAsync_v2(const Copy2D* c, void*) {
    const char* s = c->stype == 1 ? static_cast<const char*>(c->shost) : reinterpret_cast<const char*>(c->sdev);
    char* d = c->dtype == 1 ? static_cast<char*>(c->dhost) : reinterpret_cast<char*>(c->ddev);
    for (size_t y = 0; y < c->height; y++)
        memcpy(d + (y + c->dy) * c->dpitch + c->dx, s + (y + c->sy) * c->spitch + c->sx, c->width);
    return SUCCESS;
}

API cuStreamCreate(void** s, unsigned) { *s = malloc(1); return SUCCESS; }
API cuStreamCreateWithPriority(void** s, unsigned, int) { *s = malloc(1); return SUCCESS; }
API cuStreamDestroy_v2(void* s) { free(s); return SUCCESS; }
API cuStreamSynchronize(void*) { return SUCCESS; }
API cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }
API cuEventCreate(void** e, unsigned) { *e = malloc(1); return SUCCESS; }
API cuEventRecord(void*, void*) { return SUCCESS; }
API cuEventSynchronize(void*) { return SUCCESS; }
API cuEventElapsedTime(float* t, void*, void*) { *t = 1; return SUCCESS; }
API cuEventElapsedTime_v2(float* t, void*, void*) { *t = 1; return SUCCESS; }
API cuEventDestroy_v2(void* e) { free(e); return SUCCESS; }

// The "image" names a library: `compiler.cpp`.
API cuModuleLoadData(void** module, const void* image) {
    *module = dlopen(static_cast<const char*>(image), RTLD_NOW | RTLD_LOCAL);
    if (!*module) fprintf(stderr, "driver.cpp: %s\n", dlerror());
    return *module ? SUCCESS : INVALID_IMAGE;
}
struct Function {
    Kernel kernel;
    std::string name;
};
API cuModuleGetFunction(void** function, void* module, const char* name) {
    auto* kernel = reinterpret_cast<Kernel (*)()>(dlsym(module, "kernel_on_host"));
    if (!kernel) return NOT_FOUND;
    *function = new Function{kernel(), name};
    return SUCCESS;
}
// A device lags behind the program now and then, and nothing may depend on how far.
static void lag() {
    static unsigned seed = 1;  // kernels are launched by one thread
    unsigned r = rand_r(&seed);
    if (r % 8 == 0) usleep(rand_r(&seed) % (r % 64 == 0 ? 40000 : 2000));
}
API cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

// Launches of a graph, with copies of their arguments.
struct Node {
    Kernel kernel;
    Dim grid, block;
    unsigned shared;
    std::vector<void*> arguments;
};
using Graph = std::vector<Node>;
static std::vector<void*> keep(const size_t* sizes, void** arguments) {
    std::vector<void*> kept;
    for (size_t i = 0; sizes[i]; i++) {
        kept.push_back(aligned_alloc(128, (sizes[i] + 127) / 128 * 128));
        memcpy(kept[i], arguments[i], sizes[i]);
    }
    return kept;
}
static Graph* recorded;  // while a stream is captured
API cuStreamBeginCapture_v2(void*, int) { recorded = new Graph; return SUCCESS; }
API cuStreamEndCapture(void*, void** graph) { *graph = recorded; recorded = nullptr; return SUCCESS; }
API cuGraphGetNodes(void*, void**, size_t* n) { *n = 0; return SUCCESS; }
API cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
    *exec = new Graph(*static_cast<Graph*>(graph));
    return SUCCESS;
}
API cuGraphDestroy(void* graph) { delete static_cast<Graph*>(graph); return SUCCESS; }
API cuGraphExecDestroy(void* exec) { delete static_cast<Graph*>(exec); return SUCCESS; }
API cuGraphUpload(void*, void*) { return SUCCESS; }
API cuGraphLaunch(void* exec, void*) {
    lag();
    for (Node& node : *static_cast<Graph*>(exec))
        launch(node.kernel, node.grid, node.block, node.shared, node.arguments.data());
    return SUCCESS;
}
API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void*, void** arguments, void**) {
    const bool some = gx && gy && gz && bx && by && bz;
    const bool fits = bx * by * bz <= THREADS && bz <= THREADS_Z && gx <= BLOCKS_X && gy <= BLOCKS_YZ && gz <= BLOCKS_YZ;
    if (!some || !fits || shared > SHARED) return INVALID_VALUE;
    lag();
    const auto& [kernel, name] = *static_cast<Function*>(function);
    const Dim grid{gx, gy, gz}, block{bx, by, bz};
    if (recorded)
        recorded->push_back({kernel, grid, block, shared, keep(kernel.sizes, arguments)});
    else {
        launch(kernel, grid, block, shared, arguments);
        check_fences(name.c_str());
    }
    return SUCCESS;
}

API cuGetErrorName(int, const char** s) { *s = "CUDA_ON_HOST"; return SUCCESS; }
API cuGetErrorString(int, const char** s) { *s = "an error of tests/cuda/driver.cpp"; return SUCCESS; }
