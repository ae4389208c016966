// A stand-in for the CUDA driver: host memory for device memory, and a log of the calls that order work. Compiled by the
// test with -DWITHOUT_<group> to leave functions out, as an old driver does. FAKE_CUDA_FAIL=<function>:<code> makes that
// function fail from its second call on (from the first, as <function>!:<code>).

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int R;
typedef void* H;

// Whether a launch has not been waited for.
static int busy;
static long next_handle = 100;
static H handle(void) { return (H)(next_handle += 1); }

static R called(const char* name) {
    static char seen[64][48];
    static int count;
    const char* fail = getenv("FAKE_CUDA_FAIL");
    if (fail == NULL) return 0;
    size_t length = strlen(name);
    if (strncmp(fail, name, length) != 0) return 0;
    if (fail[length] == '!') return (R)atoi(fail + length + 2);
    if (fail[length] != ':') return 0;
    for (int i = 0; i < count; i++) {
        if (strcmp(seen[i], name) == 0) return (R)atoi(fail + length + 1);
    }
    if (count < 64) strcpy(seen[count++], name);
    return 0;
}

#define ENTER(...)                       \
    do {                                 \
        R code = called(__func__);       \
        printf("%s", __func__);          \
        printf(__VA_ARGS__);             \
        printf(code ? " fails\n" : "\n"); \
        fflush(stdout);                  \
        if (code) return code;           \
    } while (0)
#define N(h) ((long)(h))

R cuInit(unsigned flags) { ENTER(""); return flags; }
R cuDriverGetVersion(int* version) { *version = 12020; return 0; }
R cuGetErrorName(R code, const char** name) { *name = code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : NULL; return *name == NULL; }
R cuDeviceGetCount(int* count) {
    *count = getenv("FAKE_CUDA_DEVICES") ? atoi(getenv("FAKE_CUDA_DEVICES")) : 1;
    return 0;
}
R cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
R cuDeviceGetName(char* name, int length, int device) { snprintf(name, length, "NVIDIA H20"); return device; }
R cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = 96ul << 30; return device; }
R cuDeviceGetAttribute(int* value, int attribute, int device) {
    switch (attribute) {
        case 13: *value = 1980000; break;
        case 16: *value = 78; break;
        case 36: *value = 2619000; break;
        case 37: *value = 6144; break;
        case 38: *value = 60 << 20; break;
        case 75: *value = 9; break;
        case 76: *value = 0; break;
        case 81: *value = 233472; break;
        case 97: *value = 232448; break;
        case 115: *value = getenv("FAKE_CUDA_NO_POOLS") == NULL; break;
        default: return 1;
    }
    return device;
}
R cuDevicePrimaryCtxRetain(H* context, int device) { ENTER(""); *context = (H)7; return device; }
R cuDevicePrimaryCtxRelease_v2(int device) { ENTER(""); return device; }
R cuCtxSetCurrent(H context) { return context != (H)7; }
R cuCtxGetCurrent(H* context) { *context = (H)7; return 0; }
R cuCtxSynchronize(void) { return busy = 0; }

static R allocate(uint64_t* address, size_t bytes) {
    void* memory = NULL;
    if (bytes > 1ul << 40) return 2;
    if (posix_memalign(&memory, 256, bytes)) return 2;
    memset(memory, 0xAB, bytes);
    *address = (uint64_t)memory;
    return 0;
}
R cuMemAlloc_v2(uint64_t* address, size_t bytes) { ENTER(" %zu", bytes); return allocate(address, bytes); }
R cuMemFree_v2(uint64_t address) { ENTER(""); free((void*)address); return 0; }
#ifndef WITHOUT_POOLS
R cuMemAllocAsync(uint64_t* address, size_t bytes, H stream) { ENTER(" on %ld", N(stream)); return allocate(address, bytes); }
R cuMemFreeAsync(uint64_t address, H stream) { ENTER(" on %ld", N(stream)); free((void*)address); return 0; }
#endif
R cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    memcpy((void*)to, from, bytes);
    return 0;
}
R cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    memcpy(to, (void*)from, bytes);
    return 0;
}
R cuMemsetD8Async(uint64_t to, uint8_t value, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    memset((void*)to, value, bytes);
    return 0;
}
R cuStreamCreate(H* stream, unsigned flags) { *stream = handle(); ENTER(" %ld", N(*stream)); return flags != 1; }
R cuStreamDestroy_v2(H stream) { ENTER(" %ld", N(stream)); return 0; }
R cuStreamSynchronize(H stream) { ENTER(" %ld", N(stream)); return busy = 0; }
R cuStreamWaitEvent(H stream, H event, unsigned flags) { ENTER(" %ld for %ld", N(stream), N(event)); return flags; }
R cuStreamIsCapturing(H stream, int* status) { *status = getenv("FAKE_CUDA_CAPTURING") != NULL; return stream == NULL; }
R cuStreamBeginCapture_v2(H stream, int mode) { ENTER(" %ld", N(stream)); return mode != 2; }
R cuStreamEndCapture(H stream, H* graph) { ENTER(" %ld", N(stream)); *graph = handle(); return 0; }
R cuEventCreate(H* event, unsigned flags) { *event = handle(); (void)flags; return 0; }
R cuEventDestroy_v2(H event) { ENTER(" %ld", N(event)); return 0; }
R cuEventRecord(H event, H stream) { ENTER(" %ld on %ld", N(event), N(stream)); return 0; }
R cuEventQuery(H event) { return event == NULL ? 1 : busy ? 600 : 0; }
R cuEventSynchronize(H event) { ENTER(" %ld", N(event)); return busy = 0; }
#ifndef WITHOUT_ELAPSED
R cuEventElapsedTime(float* milliseconds, H start, H end) { *milliseconds = (float)(N(end) - N(start)); return 0; }
#endif
R cuModuleLoadData(H* module, const void* image) { ENTER(" %.4s", (const char*)image); *module = handle(); return 0; }
R cuModuleUnload(H module) { ENTER(" %ld", N(module)); return 0; }
R cuModuleGetFunction(H* function, H module, const char* name) { ENTER(" %s", name); *function = handle(); return module == NULL; }
R cuFuncSetAttribute(H function, int attribute, int value) { ENTER(" %d %d", attribute, value); return function == NULL; }
R cuLaunchKernelEx(const unsigned* config, H function, void** parameters, void** extra) {
    H stream;
    unsigned attributes;
    memcpy(&stream, config + 8, sizeof stream);
    memcpy(&attributes, config + 12, sizeof attributes);
    uint64_t first;
    memcpy(&first, parameters[0], sizeof first);
    ENTER(" grid %u block %u on %ld, %u attributes", config[0], config[3], N(stream), attributes);
    busy = 1;
    return function == NULL || extra != NULL || first == 0;
}
R cuGraphInstantiateWithFlags(H* executable, H graph, uint64_t flags) { *executable = handle(); return graph == NULL || flags; }
R cuGraphDestroy(H graph) { ENTER(""); return graph == NULL; }
R cuGraphExecDestroy(H executable) { ENTER(""); return executable == NULL; }
R cuGraphLaunch(H executable, H stream) { ENTER(" on %ld", N(stream)); return executable == NULL; }
#ifndef WITHOUT_TENSOR_MAPS
R cuTensorMapEncodeTiled(
    void* map, unsigned type, unsigned rank, void* address, const uint64_t* extents, const uint64_t* strides,
    const uint32_t* tile, const uint32_t* steps, unsigned interleave, unsigned swizzle, unsigned promotion, unsigned fill) {
    ENTER(" type %u rank %u swizzle %u", type, rank, swizzle);
    (void)extents, (void)strides, (void)tile, (void)promotion;
    memset(map, 1, 128);
    return address == NULL || steps[rank - 1] != 1 || interleave || fill || (uintptr_t)map % 64;
}
#endif
