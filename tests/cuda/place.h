// What a kernel (device.h) and the driver that runs it (driver.cpp) know of each other.
#pragma once
#include <cstddef>
#include <cstdint>

struct Dim {
    unsigned x, y, z;
};

// What a thread waits for.
enum class Wait { Nothing, Warp, Block, Done };

// Where a thread is: each thread of the host has one for each kernel.
struct Place {
    Dim block_index, thread_index, block_size, grid_size;
    char* shared;
    void (*wait)(Wait);
};

struct Kernel {
    // Whether threads of a block wait for each other.
    bool waits;
    // Bytes of each argument, and a zero behind the last.
    const size_t* sizes;
    // Of the calling thread.
    Place* (*place)();
    // One thread's work.
    void (*run)(void** arguments);
};
