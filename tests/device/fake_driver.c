// A stand-in for the CUDA driver: host memory for device memory, and a log of the calls that order work. It ends the
// process when something is used that was destroyed or freed, and when something is released twice. Compiled by the
// tests with -DWITHOUT_<group> to leave functions out, as an old driver does. FAKE_CUDA_FAIL=<function>:<code> makes
// that function fail from its second call on, <function>!:<code> from the first, <function>@<n>:<code> the n-th alone.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned int R;
typedef void* H;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void unlock(int* unused) { (void)unused; pthread_mutex_unlock(&mutex); }
// For the rest of the function.
#define LOCK int locked __attribute__((cleanup(unlock), unused)) = pthread_mutex_lock(&mutex)

static void misuse(const char* function, const char* what) {
    fprintf(stderr, "MISUSE in %s: %s\n", function, what);
    abort();
}

// Whether a launch has not been waited for.
static int busy;

enum { FIRST = 100, HANDLES = 1 << 16 };
static char alive[HANDLES];
static int next_handle = FIRST;
static H handle(void) {
    if (next_handle == HANDLES) misuse("handle", "too many");
    alive[next_handle] = 1;
    return (H)(long)next_handle++;
}
static void use(const char* function, H h) {
    // Streams 0 to 2 belong to the driver.
    if ((long)h > 2 && ((long)h < FIRST || (long)h >= HANDLES || !alive[(long)h])) misuse(function, "a dead handle");
}
static void destroy(const char* function, H h) {
    if ((long)h <= 2) misuse(function, "not a handle");
    use(function, h);
    alive[(long)h] = 0;
}
#define USE(h) use(__func__, h)
#define DESTROY(h) destroy(__func__, h)

static struct { uint64_t address; size_t bytes; } blocks[4096];
static void inside(const char* function, uint64_t address, size_t bytes) {
    for (int i = 0; i < 4096; i++) {
        if (blocks[i].address <= address && address + bytes <= blocks[i].address + blocks[i].bytes) return;
    }
    misuse(function, "memory that is not allocated");
}

static R called(const char* name) {
    static char seen[64][48];
    static int calls[64];
    int at = 0;
    while (at < 63 && seen[at][0] && strcmp(seen[at], name) != 0) at++;
    strcpy(seen[at], name);
    calls[at] += 1;
    const char* fail = getenv("FAKE_CUDA_FAIL");
    if (fail == NULL) return 0;
    size_t length = strlen(name);
    if (strncmp(fail, name, length) != 0) return 0;
    const char* code = strchr(fail, ':') + 1;
    switch (fail[length]) {
        case '!': return (R)atoi(code);
        case '@': return calls[at] == atoi(fail + length + 1) ? (R)atoi(code) : 0;
        case ':': return calls[at] > 1 ? (R)atoi(code) : 0;
        default: return 0;
    }
}

#define ENTER(...)                        \
    LOCK;                                 \
    do {                                  \
        R code = called(__func__);        \
        printf("%s", __func__);           \
        printf(__VA_ARGS__);              \
        printf(code ? " fails\n" : "\n"); \
        fflush(stdout);                   \
        if (code) return code;            \
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
        case 75: *value = getenv("FAKE_CUDA_OLD_CARD") ? 8 : 9; break;
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
R cuCtxSynchronize(void) { LOCK; return busy = 0; }

static R allocate(uint64_t* address, size_t bytes) {
    void* memory = NULL;
    if (bytes > 1ul << 40) return 2;
    if (posix_memalign(&memory, 256, bytes)) return 2;
    memset(memory, 0xAB, bytes);
    *address = (uint64_t)memory;
    for (int i = 0; i < 4096; i++) {
        if (blocks[i].address == 0) {
            blocks[i].address = *address;
            blocks[i].bytes = bytes;
            return 0;
        }
    }
    return 2;
}
static R release(const char* function, uint64_t address) {
    for (int i = 0; i < 4096; i++) {
        if (blocks[i].address == address) {
            blocks[i].address = 0;
            blocks[i].bytes = 0;
            free((void*)address);
            return 0;
        }
    }
    misuse(function, "memory that is not allocated");
    return 1;
}
R cuMemAlloc_v2(uint64_t* address, size_t bytes) { ENTER(" %zu", bytes); return allocate(address, bytes); }
R cuMemFree_v2(uint64_t address) { ENTER(""); return release(__func__, address); }
#ifndef WITHOUT_POOLS
R cuMemAllocAsync(uint64_t* address, size_t bytes, H stream) { ENTER(" on %ld", N(stream)); USE(stream); return allocate(address, bytes); }
R cuMemFreeAsync(uint64_t address, H stream) { ENTER(" on %ld", N(stream)); USE(stream); return release(__func__, address); }
#endif
R cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    USE(stream);
    inside(__func__, to, bytes);
    memcpy((void*)to, from, bytes);
    return 0;
}
R cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    USE(stream);
    inside(__func__, from, bytes);
    memcpy(to, (void*)from, bytes);
    return 0;
}
R cuMemsetD8Async(uint64_t to, uint8_t value, size_t bytes, H stream) {
    ENTER(" on %ld", N(stream));
    USE(stream);
    inside(__func__, to, bytes);
    memset((void*)to, value, bytes);
    return 0;
}
R cuStreamCreate(H* stream, unsigned flags) {
    ENTER(" %d", next_handle);
    *stream = handle();
    return flags != 1;
}
R cuStreamDestroy_v2(H stream) { ENTER(" %ld", N(stream)); DESTROY(stream); return 0; }
R cuStreamSynchronize(H stream) { ENTER(" %ld", N(stream)); USE(stream); return busy = 0; }
R cuStreamWaitEvent(H stream, H event, unsigned flags) {
    ENTER(" %ld for %ld", N(stream), N(event));
    USE(stream);
    USE(event);
    return flags;
}
R cuStreamIsCapturing(H stream, int* status) { *status = getenv("FAKE_CUDA_CAPTURING") != NULL; return stream == NULL; }
R cuStreamBeginCapture_v2(H stream, int mode) { ENTER(" %ld", N(stream)); USE(stream); return mode != 2; }
R cuStreamEndCapture(H stream, H* graph) { ENTER(" %ld", N(stream)); USE(stream); *graph = handle(); return 0; }
R cuEventCreate(H* event, unsigned flags) { ENTER(" %u", flags); *event = handle(); return 0; }
R cuEventDestroy_v2(H event) { ENTER(" %ld", N(event)); DESTROY(event); return 0; }
R cuEventRecord(H event, H stream) { ENTER(" %ld on %ld", N(event), N(stream)); USE(event); USE(stream); return 0; }
R cuEventQuery(H event) { LOCK; USE(event); return event == NULL ? 1 : busy ? 600 : 0; }
R cuEventSynchronize(H event) { ENTER(" %ld", N(event)); USE(event); return busy = 0; }
#ifndef WITHOUT_ELAPSED
R cuEventElapsedTime(float* milliseconds, H start, H end) { *milliseconds = (float)(N(end) - N(start)); return 0; }
#endif
R cuModuleLoadData(H* module, const void* image) { ENTER(" %.4s", (const char*)image); *module = handle(); return 0; }
R cuModuleUnload(H module) { ENTER(" %ld", N(module)); DESTROY(module); return 0; }
R cuModuleGetFunction(H* function, H module, const char* name) { ENTER(" %s", name); USE(module); *function = handle(); return 0; }
R cuFuncSetAttribute(H function, int attribute, int value) { ENTER(" %d %d", attribute, value); USE(function); return 0; }
R cuLaunchKernelEx(const unsigned* config, H function, void** parameters, void** extra) {
    H stream;
    unsigned attributes;
    memcpy(&stream, config + 8, sizeof stream);
    memcpy(&attributes, config + 12, sizeof attributes);
    uint64_t first;
    memcpy(&first, parameters[0], sizeof first);
    ENTER(" grid %u block %u on %ld, %u attributes", config[0], config[3], N(stream), attributes);
    USE(stream);
    USE(function);
    busy = 1;
    return function == NULL || extra != NULL || first == 0;
}
R cuGraphInstantiateWithFlags(H* executable, H graph, uint64_t flags) { ENTER(""); USE(graph); *executable = handle(); return flags != 0; }
R cuGraphDestroy(H graph) { ENTER(""); DESTROY(graph); return 0; }
R cuGraphExecDestroy(H executable) { ENTER(""); DESTROY(executable); return 0; }
R cuGraphLaunch(H executable, H stream) { ENTER(" on %ld", N(stream)); USE(executable); USE(stream); busy = 1; return 0; }
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
