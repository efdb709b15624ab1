// Runs a kernel's blocks. A block runs on one thread of the host, one of its threads after the other; where
// they wait for each other, each has a stack of its own.
#pragma once
#undef _FORTIFY_SOURCE  // it forbids jumps between stacks
#include <setjmp.h>
#include <ucontext.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "place.h"

// A thread of a block: a stack of its own, that runs one block's work after the other's. It is entered
// once by way of its context; after that by jumps, which ask the system for nothing.
struct Fiber {
    ucontext_t context;
    jmp_buf left_at;
    Dim index;
    Wait wait = Wait::Nothing;
    bool entered = false;
    std::unique_ptr<char[]> stack{new char[STACK]};
    static constexpr size_t STACK = 256 << 10;
};

// What this thread of the host runs.
struct Work {
    const Kernel* kernel;
    void** arguments;
    Place* place;
};
static thread_local Work work;
static thread_local jmp_buf scheduler;
static thread_local Fiber* running;

static void yield_until(Wait wait) {
    running->wait = wait;
    if (!_setjmp(running->left_at)) _longjmp(scheduler, 1);
}

// Runs a fiber until it waits.
__attribute__((noinline)) static void resume(Fiber& fiber) {
    running = &fiber;
    work.place->thread_index = fiber.index;
    fiber.wait = Wait::Nothing;
    if (_setjmp(scheduler)) return;
    if (fiber.entered) _longjmp(fiber.left_at, 1);
    fiber.entered = true;
    setcontext(&fiber.context);
}

__attribute__((noinline)) static void prepare(Fiber& fiber) {
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, Fiber::STACK};
    makecontext(&fiber.context, +[] {
        for (;; yield_until(Wait::Done)) work.kernel->run(work.arguments);
    }, 0);
}

static void run_fibers(std::vector<Fiber>& fibers) {
    const Dim block = work.place->block_size;
    size_t n = 0;
    for (unsigned z = 0; z < block.z; z++)
        for (unsigned y = 0; y < block.y; y++)
            for (unsigned x = 0; x < block.x; x++) {
                Fiber& fiber = fibers[n++];
                fiber.index = {x, y, z};
                fiber.wait = Wait::Nothing;
                if (!fiber.entered) prepare(fiber);
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

// Runs blocks until none is left: what one thread of the host does of a launch.
static void run_blocks(const Kernel& kernel, Dim grid, Dim block, unsigned shared, void** arguments,
                       std::atomic<uint64_t>& next) {
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    Place& place = *kernel.place();
    work = {&kernel, arguments, &place};
    // It ends in bytes that nobody may change.
    std::vector<char> memory(128 + shared + 4096, 0x5a);
    place.grid_size = grid, place.block_size = block, place.wait = yield_until;
    place.shared = memory.data() + (128 - reinterpret_cast<uintptr_t>(memory.data()) % 128);
    std::vector<Fiber> fibers(kernel.waits ? block.x * block.y * block.z : 0);
    for (uint64_t i; (i = next++) < blocks;) {
        place.block_index = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
        if (kernel.waits) {
            run_fibers(fibers);
            continue;
        }
        Dim& thread = place.thread_index;
        for (thread.z = 0; thread.z < block.z; thread.z++)
            for (thread.y = 0; thread.y < block.y; thread.y++)
                for (thread.x = 0; thread.x < block.x; thread.x++) kernel.run(arguments);
    }
    for (int i = 0; i < 3968; i++)
        if (place.shared[shared + i] != 0x5a) {
            fprintf(stderr, "blocks.h: a kernel wrote %d bytes behind its %u of shared memory\n", i, shared);
            abort();
        }
}

static void launch(const Kernel& kernel, Dim grid, Dim block, unsigned shared, void** arguments) {
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    std::atomic<uint64_t> next{0};
    auto share = [&] { run_blocks(kernel, grid, block, shared, arguments, next); };
    std::vector<std::thread> helpers;
    for (unsigned i = 1; i < std::thread::hardware_concurrency() && i < blocks; i++) helpers.emplace_back(share);
    share();
    for (auto& helper : helpers) helper.join();
}
