// What CUDA C++ has and C++ has not, for kernels that run as host code: compiler.cpp puts this before each,
// driver.cpp runs them. Some three hundred are compiled with it, so it includes little and launches nothing.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "place.h"

#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static thread_local

using std::isnan;  // where the host's headers do not say so themselves

static thread_local Place place_on_host;
#define blockIdx place_on_host.block_index
#define threadIdx place_on_host.thread_index
#define blockDim place_on_host.block_size
#define gridDim place_on_host.grid_size

// ---- numbers of two bytes

struct __half {
    unsigned short bits;
    __half() = default;
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>>
    __half(T v) {
        _Float16 half(static_cast<float>(v));
        memcpy(&bits, &half, 2);
    }
    operator float() const {
        _Float16 half;
        memcpy(&half, &bits, 2);
        return half;
    }
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

[[maybe_unused]] static void __syncthreads() { place_on_host.wait(Wait::Block); }
[[maybe_unused]] static void __syncwarp(unsigned = ~0u) { place_on_host.wait(Wait::Warp); }

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
    return static_cast<const char*>(p) - place_on_host.shared;
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
        for (int i = 0; i < 4; i++) memcpy(to[i], place_on_host.shared + lanes[i * 8 + lane / 4][0] + lane % 4 * 4, 4);
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

// ---- what driver.cpp asks of a kernel

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}
template <class... A> static void call(void (*kernel)(A...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<A...>());
}
template <class... A> static const size_t* sizes_of(void (*)(A...)) {
    static const size_t sizes[] = {sizeof(A)..., 0};
    return sizes;
}
#define KERNEL(name, waits)                                                                                          \
    extern "C" Kernel kernel_on_host() {                                                                             \
        return {waits, sizes_of(&name), [] { return &place_on_host; }, [](void** a) { call(&name, a); }};            \
    }
