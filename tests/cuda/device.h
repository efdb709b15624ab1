// What CUDA C++ has and C++ has not, for kernels that run as host code (compiler.cpp puts this before them).
// A block runs on one thread of the host, one of its threads after the other; where they wait for each
// other, each has a stack of its own.
#pragma once
#undef _FORTIFY_SOURCE  // it forbids jumps between stacks
#include <immintrin.h>
#include <setjmp.h>
#include <ucontext.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local

using std::isnan;  // where the host's headers do not say so themselves

struct Dim {
    unsigned x, y, z;
};
static thread_local Dim blockIdx, threadIdx, blockDim, gridDim;
static thread_local char* dynamic_shared;

// ---- numbers of two bytes

struct __half {
    unsigned short bits;
    __half() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
    __half(T v) : bits(_cvtss_sh(float(v), 0)) {}
    operator float() const { return _cvtsh_ss(bits); }
};

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
    __nv_bfloat16(T v) {
        float f(v);
        uint32_t u;
        memcpy(&u, &f, 4);
        bits = std::isnan(f) ? (u >> 16 | 0x40) : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    }
    operator float() const {
        uint32_t u = uint32_t(bits) << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
};

// ---- functions

template <class A, class B> static auto min(A a, B b) { return b < a ? std::common_type_t<A, B>(b) : a; }
template <class A, class B> static auto max(A a, B b) { return a < b ? std::common_type_t<A, B>(b) : a; }
static inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint64_t(a) * b >> 32; }
static inline int __clz(uint32_t v) { return v ? __builtin_clz(v) : 32; }
static inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float sqrt(float v) { return __builtin_sqrtf(v); }

// ---- tensor cores: each lane computes the whole matrix

namespace nvcuda::wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

template <class Use, int M, int N, int K, class T, class Layout = void> struct fragment {
    static constexpr int ROWS = std::is_same_v<Use, matrix_b> ? K : M;
    static constexpr int COLUMNS = std::is_same_v<Use, matrix_a> ? K : N;
    static constexpr int num_elements = ROWS * COLUMNS;
    T x[num_elements];
    T& at(int row, int column) { return x[row * COLUMNS + column]; }
    T at(int row, int column) const { return x[row * COLUMNS + column]; }
};

template <class F, class T> static void load(F& f, const T* from, unsigned stride, bool by_column) {
    for (int r = 0; r < F::ROWS; r++)
        for (int c = 0; c < F::COLUMNS; c++) f.at(r, c) = by_column ? from[c * stride + r] : from[r * stride + c];
}
template <class U, int M, int N, int K, class T, class L>
static void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const T* from, unsigned stride) {
    load(f, from, stride, std::is_same_v<L, col_major>);
}
template <int M, int N, int K, class T>
static void load_matrix_sync(fragment<accumulator, M, N, K, T>& f, const T* from, unsigned stride, layout_t layout) {
    load(f, from, stride, layout == mem_col_major);
}
template <int M, int N, int K, class T>
static void store_matrix_sync(T* to, const fragment<accumulator, M, N, K, T>& f, unsigned stride, layout_t layout) {
    for (int r = 0; r < M; r++)
        for (int c = 0; c < N; c++) to[layout == mem_col_major ? c * stride + r : r * stride + c] = f.at(r, c);
}
template <int M, int N, int K, class A, class B, class LA, class LB, class C>
static void mma_sync(fragment<accumulator, M, N, K, C>& d, const fragment<matrix_a, M, N, K, A, LA>& a,
                     const fragment<matrix_b, M, N, K, B, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
    float rows[K][N];
    for (int k = 0; k < K; k++)
        for (int n = 0; n < N; n++) rows[k][n] = b.at(k, n);
    fragment<accumulator, M, N, K, C> sum = c;
    for (int m = 0; m < M; m++)
        for (int k = 0; k < K; k++) {
            const float factor = a.at(m, k);
            for (int n = 0; n < N; n++) sum.at(m, n) = float(sum.at(m, n)) + factor * rows[k][n];
        }
    d = sum;
}
}  // namespace nvcuda::wmma

// ---- threads that wait for each other

enum class Wait { Nothing, Warp, Block, Done };

// A thread of a block: a stack of its own, that runs one block's work after the other's. It is entered
// once by way of its context; after that by jumps, which ask the system for nothing.
struct Fiber {
    ucontext_t context;
    jmp_buf place;
    Dim index;
    Wait wait = Wait::Nothing;
    bool entered = false;
    std::unique_ptr<char[]> stack{new char[STACK]};
    static constexpr size_t STACK = 256 << 10;
};

static thread_local jmp_buf scheduler;
static thread_local Fiber* running;

static void yield_until(Wait wait) {
    running->wait = wait;
    if (!_setjmp(running->place)) _longjmp(scheduler, 1);
}
[[maybe_unused]] static void __syncthreads() { yield_until(Wait::Block); }
[[maybe_unused]] static void __syncwarp(unsigned = ~0u) { yield_until(Wait::Warp); }

// Runs a fiber until it waits.
__attribute__((noinline)) static void resume(Fiber& fiber) {
    running = &fiber;
    threadIdx = fiber.index;
    fiber.wait = Wait::Nothing;
    if (_setjmp(scheduler)) return;
    if (fiber.entered) _longjmp(fiber.place, 1);
    fiber.entered = true;
    setcontext(&fiber.context);
}

template <class Body> static void run_fibers(std::vector<Fiber>& fibers, const Body& body) {
    static thread_local const Body* work;
    work = &body;
    size_t n = 0;
    for (unsigned z = 0; z < blockDim.z; z++)
        for (unsigned y = 0; y < blockDim.y; y++)
            for (unsigned x = 0; x < blockDim.x; x++) {
                Fiber& fiber = fibers[n++];
                fiber.index = {x, y, z};
                fiber.wait = Wait::Nothing;
                if (fiber.entered) continue;
                getcontext(&fiber.context);
                fiber.context.uc_stack = {fiber.stack.get(), 0, Fiber::STACK};
                makecontext(&fiber.context, +[] {
                    for (;; yield_until(Wait::Done)) (*work)();
                }, 0);
            }
    auto all = [&](size_t from, size_t to, Wait wait) {
        for (size_t i = from; i < to; i++)
            if (fibers[i].wait != wait && fibers[i].wait != Wait::Done) return false;
        return true;
    };
    while (!all(0, n, Wait::Done)) {
        for (size_t warp = 0; warp < n; warp += 32) {
            size_t end = warp + 32 < n ? warp + 32 : n;
            bool together = all(warp, end, Wait::Warp);
            for (size_t i = warp; i < end; i++) {
                Fiber& fiber = fibers[i];
                if (fiber.wait == Wait::Nothing || (fiber.wait == Wait::Warp && together)) resume(fiber);
            }
        }
        if (all(0, n, Wait::Block))
            for (size_t i = 0; i < n; i++)
                if (fibers[i].wait == Wait::Block) fibers[i].wait = Wait::Nothing;
    }
}

// ---- what the threads of a warp do together

// Words of each lane of each warp.
static thread_local uint32_t words_of[32][32][6];

// Hands `words` of every lane to all of its warp; `read` gets the lane's number and what they handed over.
template <class Read> static void exchange(const uint32_t* words, int count, const Read& read) {
    const unsigned unit = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    auto& lanes = words_of[unit / 32];
    for (int i = 0; i < count; i++) lanes[unit % 32][i] = words[i];
    __syncwarp();
    read(unit % 32, lanes);
    __syncwarp();
}
template <class T> static T __shfl_xor_sync(unsigned, T value, int mask) {
    uint32_t word;
    static_assert(sizeof(T) == 4);
    memcpy(&word, &value, 4);
    exchange(&word, 1, [&](unsigned lane, auto& lanes) { memcpy(&value, lanes[lane ^ mask], 4); });
    return value;
}
[[maybe_unused]] static unsigned __activemask() { return ~0u; }

// ---- PTX: compiler.cpp makes a call of each such line, results first

[[maybe_unused]] static uint32_t __cvta_generic_to_shared(const void* p) {
    return static_cast<const char*>(p) - dynamic_shared;
}
template <class H> static uint32_t two(float low, float high) {
    H pair[2] = {H(low), H(high)};
    uint32_t word;
    memcpy(&word, pair, 4);
    return word;
}
[[maybe_unused]] static void ptx_cvt_rn_f16x2_f32(uint32_t& d, float high, float low) { d = two<__half>(low, high); }
[[maybe_unused]] static void ptx_cvt_rn_bf16x2_f32(uint32_t& d, float high, float low) { d = two<__nv_bfloat16>(low, high); }
[[maybe_unused]] static void ptx_ldmatrix_sync_aligned_m8n8_x4_shared__cta_b16(uint32_t& a, uint32_t& b, uint32_t& c,
                                                                              uint32_t& d, uint32_t from) {
    exchange(&from, 1, [&](unsigned lane, auto& lanes) {
        uint32_t* to[] = {&a, &b, &c, &d};
        for (int i = 0; i < 4; i++) memcpy(to[i], dynamic_shared + lanes[i * 8 + lane / 4][0] + lane % 4 * 4, 4);
    });
}
template <class H>
static void mma(float& d0, float& d1, float& d2, float& d3, const uint32_t (&words)[6], float c0, float c1, float c2, float c3) {
    exchange(words, 6, [&](unsigned lane, auto& lanes) {
        float* d[] = {&d0, &d1, &d2, &d3};
        const float c[] = {c0, c1, c2, c3};
        for (int i = 0; i < 4; i++) {
            const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            float sum = c[i];
            for (unsigned k = 0; k < 16; k++) {
                H a, b;
                memcpy(&a, reinterpret_cast<char*>(&lanes[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2]) + k % 2 * 2, 2);
                memcpy(&b, reinterpret_cast<char*>(&lanes[column * 4 + k % 8 / 2][4 + k / 8]) + k % 2 * 2, 2);
                sum += float(a) * float(b);
            }
            *d[i] = sum;
        }
    });
}
#define MMA(name, H)                                                                                                 \
    [[maybe_unused]] static void name(float& d0, float& d1, float& d2, float& d3, uint32_t a0, uint32_t a1,          \
                                      uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, float c0, float c1,        \
                                      float c2, float c3) {                                                          \
        mma<H>(d0, d1, d2, d3, {a0, a1, a2, a3, b0, b1}, c0, c1, c2, c3);                                            \
    }
MMA(ptx_mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, __half)
MMA(ptx_mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, __nv_bfloat16)

// ---- launch

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

// A copy of a kernel's arguments that stays.
template <class... A, size_t... I>
static void** keep(void (*)(A...), void** arguments, std::index_sequence<I...>) {
    return new void*[]{new std::remove_const_t<std::remove_reference_t<A>>(
        *static_cast<std::remove_reference_t<A>*>(arguments[I]))...};
}
template <class... A> static void** keep(void (*kernel)(A...), void** arguments) {
    return keep(kernel, arguments, std::index_sequence_for<A...>());
}

template <class... A>
static void launch(void (*kernel)(A...), bool waits, const unsigned* grid, const unsigned* block, unsigned shared,
                   void** arguments) {
    uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
    std::atomic<uint64_t> next{0};
    auto work = [&] {
        gridDim = {grid[0], grid[1], grid[2]};
        blockDim = {block[0], block[1], block[2]};
        // It ends in bytes that nobody may change.
        std::vector<char> memory(128 + shared + 4096, 0x5a);
        dynamic_shared = memory.data() + (128 - reinterpret_cast<uintptr_t>(memory.data()) % 128);
        std::vector<Fiber> fibers(waits ? block[0] * block[1] * block[2] : 0);
        auto body = [&] { call(kernel, arguments, std::index_sequence_for<A...>()); };
        for (uint64_t i; (i = next++) < blocks;) {
            blockIdx = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]), unsigned(i / grid[0] / grid[1])};
            if (waits) {
                run_fibers(fibers, body);
                continue;
            }
            for (threadIdx.z = 0; threadIdx.z < block[2]; threadIdx.z++)
                for (threadIdx.y = 0; threadIdx.y < block[1]; threadIdx.y++)
                    for (threadIdx.x = 0; threadIdx.x < block[0]; threadIdx.x++) body();
        }
        for (int i = 0; i < 3968; i++)
            if (dynamic_shared[shared + i] != 0x5a) {
                fprintf(stderr, "device.h: a kernel wrote %d bytes behind its %u of shared memory\n", i, shared);
                abort();
            }
    };
    unsigned n = std::thread::hardware_concurrency();
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < n && i < blocks; i++) helpers.emplace_back(work);
    work();
    for (auto& helper : helpers) helper.join();
}
