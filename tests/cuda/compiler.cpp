// NVIDIA's run-time compiler for tests without a GPU: each kernel is compiled by the real one, which must
// take it, and then by g++ with device.h, as a library that driver.cpp runs.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <regex>
#include <string>

enum { SUCCESS = 0, COMPILATION = 6 };

struct Program {
    void* real;
    std::string source;
    // Path of the library: this compiler's "PTX".
    std::string image;
};

static void* real() {
    static void* lib = dlopen(getenv("CUDA_ON_HOST_NVRTC"), RTLD_NOW | RTLD_LOCAL);
    if (!lib) {
        fprintf(stderr, "CUDA_ON_HOST_NVRTC: %s\n", dlerror());
        abort();
    }
    return lib;
}
template <class F> static F* of(F*, const char* name) { return reinterpret_cast<F*>(dlsym(real(), name)); }
#define REAL(name) of(static_cast<decltype(&name)>(nullptr), #name)
#define API extern "C" __attribute__((visibility("default")))

API int nvrtcVersion(int* a, int* b) { return REAL(nvrtcVersion)(a, b); }
API const char* nvrtcGetErrorString(int e) { return REAL(nvrtcGetErrorString)(e); }
API int nvrtcCreateProgram(void** p, const char* s, const char* n, int k, const char* const* h, const char* const* i) {
    auto* program = new Program{nullptr, s, ""};
    *p = program;
    return REAL(nvrtcCreateProgram)(&program->real, s, n, k, h, i);
}
API int nvrtcGetPTXSize(void* p, size_t* n) { *n = static_cast<Program*>(p)->image.size() + 1; return SUCCESS; }
API int nvrtcGetPTX(void* p, char* t) {
    auto& image = static_cast<Program*>(p)->image;
    t[image.copy(t, image.size())] = 0;
    return SUCCESS;
}
// What is loaded is the library's path, whatever it is called.
API int nvrtcGetCUBINSize(void* p, size_t* n) { return nvrtcGetPTXSize(p, n); }
API int nvrtcGetCUBIN(void* p, char* t) { return nvrtcGetPTX(p, t); }
API int nvrtcGetProgramLogSize(void* p, size_t* n) { return REAL(nvrtcGetProgramLogSize)(static_cast<Program*>(p)->real, n); }
API int nvrtcGetProgramLog(void* p, char* t) { return REAL(nvrtcGetProgramLog)(static_cast<Program*>(p)->real, t); }
API int nvrtcDestroyProgram(void** p) {
    auto* program = static_cast<Program*>(*p);
    int result = REAL(nvrtcDestroyProgram)(&program->real);
    delete program;
    return result;
}

// The kernel's lines of PTX as calls of functions in device.h, named after the instruction.
static std::string without_ptx(const std::string& text) {
    std::string out;
    const std::regex line("asm +(?:volatile)?\\(\"([a-z0-9_.:]+) [^\"]*\" : ([^\\n]*)\\);\\n");
    auto last = text.cbegin();
    for (std::sregex_iterator at(text.begin(), text.end(), line), end; at != end; ++at) {
        std::string name = (*at)[1], operands = (*at)[2];
        for (char& c : name)
            if (c == '.' || c == ':') c = '_';
        operands = std::regex_replace(operands, std::regex(" *: *\"memory\""), "");
        operands = std::regex_replace(operands, std::regex("\"=?[a-z]\""), "");
        operands = std::regex_replace(operands, std::regex(" : "), ", ");
        out.append(last, (*at)[0].first);
        out += "ptx_" + name + "(" + operands + ");\n";
        last = (*at)[0].second;
    }
    return out.append(last, text.cend());
}

// The kernel, and what the driver asks of it.
static std::string host_code(const std::string& source) {
    using std::regex;
    // The source says itself what these types are, in other words than the host's headers.
    std::string text = std::regex_replace(without_ptx(source), regex("typedef [a-z ]+ u?int(8|16|32|64)_t;\n"), "");
    text = std::regex_replace(text, regex("#include <[a-z0-9_]+\\.h>"), "");
    text = std::regex_replace(text, regex("extern __shared__ __align__\\([0-9]+\\) char ([a-z0-9_]+)\\[\\];"),
                              "char* const $1 = place_on_host.shared;");
    std::smatch name;
    std::regex_search(text, name, regex("__launch_bounds__\\([0-9, ]+\\) *([A-Za-z0-9_]+)\\("));
    const bool waits = std::regex_search(text, regex("__sync|__shfl|ptx_(ldmatrix|mma)"));
    return "#include \"device.h\"\n" + text + "\nKERNEL(" + name[1].str() + ", " + (waits ? "true" : "false") + ")\n";
}

API int nvrtcCompileProgram(void* p, int count, const char* const* options) {
    auto* program = static_cast<Program*>(p);
    const std::string folder = getenv("CUDA_ON_HOST_FOLDER"), code = host_code(program->source);
    const std::string base = folder + "/" + std::to_string(std::hash<std::string>()(code));
    program->image = base + ".so";
    const bool known = !access(program->image.c_str(), R_OK);
    // .ci/cuda asks whether there is a library for each of these.
    if (!known) std::ofstream(base + ".cpp") << code;
    if (!known) std::ofstream(base + ".cu") << program->source;  // for loops.py
    if (int result = REAL(nvrtcCompileProgram)(program->real, count, options)) {
        unlink(program->image.c_str());  // made for another architecture
        return result;
    }
    if (!known) {
        // Tests may compile the same kernel at the same time.
        const std::string mine = base + "." + std::to_string(getpid());
        const std::string command = "g++ -std=c++17 -O1 -fno-strict-aliasing -march=native -w -shared -fPIC -I" + folder + " -o " + mine + " " + base +
                                    ".cpp && mv " + mine + " " + program->image;
        if (system(command.c_str())) {
            fprintf(stderr, "compiler.cpp: g++ refused %s.cpp\n", base.c_str());
            return COMPILATION;
        }
    }
    return SUCCESS;
}
