// Serves this machine's CPU over ggml's RPC protocol, as llama.cpp's own rpc-server does:
//
//     rpc_server ADDRESS:PORT THREADS
#include "ggml-backend.h"
#include "ggml-rpc.h"

#include <cstdio>
#include <cstdlib>

int main(int argc, char ** argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: %s ADDRESS:PORT THREADS\n", argv[0]);
        return 2;
    }
    ggml_backend_load_all();
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!device) {
        fprintf(stderr, "there is no CPU device\n");
        return 1;
    }
    // Without a cache of weights: ours cuts its layers afresh at each start, too.
    ggml_backend_rpc_start_server(argv[1], nullptr, strtoul(argv[2], nullptr, 10), 1, &device);
    return 1; // It returns only if it can't serve.
}
