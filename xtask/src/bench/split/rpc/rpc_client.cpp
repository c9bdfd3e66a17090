// A host that keeps some layers and the head of a model, and has the others on RPC servers:
//
//     rpc_client MODEL THREADS CONTEXT SEQUENCES OWN_LAYERS [ADDRESS:PORT LAYERS]...
//
// That is what `llama-server --rpc A,B --n-gpu-layers N --tensor-split X,Y --override-tensor output=CPU` does,
// without HTTP, templates and sampling. It says as JSON how long loading took and where each layer went, then
// obeys lines on its standard input:
//
//     STREAMS PROMPT TOKENS SEED
//
// evaluates so many prompts of that length, in one batch, and decodes so many tokens of each, greedily, with one
// row of each stream in a batch.
#include "ggml-backend.h"
#include "ggml-rpc.h"
#include "llama.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

using seconds = std::chrono::duration<double>;
using std::chrono::steady_clock;

static double since(steady_clock::time_point began) {
    return seconds(steady_clock::now() - began).count();
}

[[noreturn]] static void fail(const char * what) {
    fprintf(stderr, "failed: %s\n", what);
    exit(1);
}

// What llama.cpp's log says of the layers.
struct Placement {
    std::map<int, std::string> layers;
    bool head_is_here = false;
};

static void listen(enum ggml_log_level level, const char * text, void * data) {
    auto * placement = static_cast<Placement *>(data);
    int layer = 0;
    char device[64];
    if (sscanf(text, "load_tensors: layer %d assigned to device %63[^,]", &layer, device) == 2) {
        placement->layers[layer] = device;
    }
    // To some kind of the CPU's own memory; those of servers are called RPC.
    if (strstr(text, "tensor output.weight ") && strstr(text, "overridden to ") && !strstr(text, "RPC")) {
        placement->head_is_here = true;
    }
    if (level != GGML_LOG_LEVEL_DEBUG) {
        fputs(text, stderr);
    }
}

static llama_token best_of(const float * logits, int count) {
    int best = 0;
    for (int i = 1; i < count; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

static void add(llama_batch & batch, llama_token token, int position, int sequence, bool output) {
    const int row = batch.n_tokens++;
    batch.token[row] = token;
    batch.pos[row] = position;
    batch.n_seq_id[row] = 1;
    batch.seq_id[row][0] = sequence;
    batch.logits[row] = output;
}

struct Host {
    llama_context * context;
    int vocabulary;
    llama_batch batch;

    // Draws the next token of each stream from rows whose numbers are given.
    void draw(const std::vector<int> & rows, std::vector<llama_token> & tokens) {
        for (size_t i = 0; i < rows.size(); i++) {
            tokens[i] = best_of(llama_get_logits_ith(context, rows[i]), vocabulary);
        }
    }

    void run(int streams, int prompt, int count, unsigned seed) {
        llama_memory_clear(llama_get_memory(context), true);
        std::vector<llama_token> tokens(streams);
        std::vector<int> rows;
        batch.n_tokens = 0;
        for (int stream = 0; stream < streams; stream++) {
            for (int i = 0; i < prompt; i++) {
                const int token = (seed + stream * 7919 + i * 131) % vocabulary;
                add(batch, token, i, stream, i + 1 == prompt);
            }
            rows.push_back(batch.n_tokens - 1);
        }
        auto began = steady_clock::now();
        if (llama_decode(context, batch)) {
            fail("the prompt");
        }
        draw(rows, tokens);
        const double prefill = since(began);
        for (int stream = 0; stream < streams; stream++) {
            rows[stream] = stream;
        }
        began = steady_clock::now();
        for (int i = 0; i < count; i++) {
            batch.n_tokens = 0;
            for (int stream = 0; stream < streams; stream++) {
                add(batch, tokens[stream], prompt + i, stream, true);
            }
            if (llama_decode(context, batch)) {
                fail("decoding");
            }
            draw(rows, tokens);
        }
        printf("{\"prefill_s\": %.6f, \"decode_s\": %.6f}\n", prefill, since(began));
        fflush(stdout);
    }
};

int main(int argc, char ** argv) {
    if (argc < 6 || argc % 2 != 0) {
        fprintf(stderr, "usage: %s MODEL THREADS CONTEXT SEQUENCES OWN_LAYERS [ADDRESS:PORT LAYERS]...\n", argv[0]);
        return 2;
    }
    const int threads = atoi(argv[2]), cells = atoi(argv[3]), sequences = atoi(argv[4]);
    Placement placement;
    llama_log_set(listen, &placement);
    llama_backend_init();

    const auto began = steady_clock::now();
    std::vector<ggml_backend_dev_t> devices;
    std::vector<float> shares(llama_max_devices(), 0.0f);
    int away = 0;
    for (int i = 6; i < argc; i += 2) {
        ggml_backend_reg_t server = ggml_backend_rpc_add_server(argv[i]);
        if (!server) {
            fail("an RPC server does not answer");
        }
        const int layers = atoi(argv[i + 1]);
        shares[devices.size()] = (float) layers;
        away += layers;
        devices.push_back(ggml_backend_reg_dev_get(server, 0));
    }
    if (!devices.empty()) {
        // The head counts as one more layer of the last device, which the override below takes back.
        shares[devices.size() - 1] += 1.0f;
    }
    devices.push_back(nullptr);
    const llama_model_tensor_buft_override head_here[] = {
        { "^output", ggml_backend_cpu_buffer_type() },
        { nullptr, nullptr },
    };
    llama_model_params of_model = llama_model_default_params();
    of_model.devices = devices.data();
    of_model.n_gpu_layers = away > 0 ? away + 1 : 0;
    of_model.tensor_split = shares.data();
    of_model.tensor_buft_overrides = head_here;
    llama_model * model = llama_model_load_from_file(argv[1], of_model);
    if (!model) {
        fail("loading the model");
    }
    llama_context_params of_context = llama_context_default_params();
    of_context.n_ctx = cells;
    of_context.n_seq_max = sequences;
    of_context.kv_unified = true;
    of_context.n_threads = of_context.n_threads_batch = threads;
    llama_context * context = llama_init_from_model(model, of_context);
    if (!context) {
        fail("the context");
    }
    printf("{\"load_s\": %.6f, \"head_is_here\": %s, \"layers\": [", since(began), placement.head_is_here ? "true" : "false");
    const int layers = llama_model_n_layer(model);
    for (int i = 0; i < layers; i++) {
        printf("%s\"%s\"", i ? ", " : "", placement.layers[i].c_str());
    }
    printf("]}\n");
    fflush(stdout);

    Host host = { context, llama_vocab_n_tokens(llama_model_get_vocab(model)), llama_batch_init(cells, 0, 1) };
    int streams, prompt, count;
    unsigned seed;
    while (scanf("%d %d %d %u", &streams, &prompt, &count, &seed) == 4) {
        if (streams < 1 || streams > sequences || prompt < 1 || count < 0 || streams * (prompt + count) > cells) {
            fail("the numbers make no sense");
        }
        host.run(streams, prompt, count, seed);
    }
    llama_batch_free(host.batch);
    llama_free(context);
    llama_model_free(model);
    llama_backend_free();
}
