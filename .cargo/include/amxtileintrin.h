// Found before the compiler's own header of this name (`.cargo/config.toml` says where), which
// it includes and repairs. GCC 12 and older tell the optimiser that `ldtilecfg` reads 8 bytes
// of its 64, so the stores of the other 56 are dropped and llama.cpp's AMX kernels crash on a
// processor that has AMX.
#pragma once
#include_next <amxtileintrin.h>

#if defined(__x86_64__) && defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
static inline __attribute__((__always_inline__)) void mesh_llm_tile_loadconfig(const void *config)
{
    __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char(*)[64])config));
}
#define _tile_loadconfig mesh_llm_tile_loadconfig
#endif
