"""Reads and writes GGUF with the PyPI package `gguf`, for the Rust test beside it.

    check.py read FILE          prints metadata and tensors as JSON
    check.py write FILE         writes a file with every value type
    check.py parts FILE         writes a model in parts, the first with metadata only
    check.py sizes              prints name, number, block size and bytes of every tensor type
"""
import hashlib
import json
import sys

import gguf
import numpy as np


def read(path):
    reader = gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    tensors = [
        {
            "name": t.name,
            "dims": [int(d) for d in t.shape],
            "type": t.tensor_type.name,
            "start": int(t.data_offset),
            "bytes": int(t.n_bytes),
            "sha256": hashlib.sha256(t.data.tobytes()).hexdigest(),
        }
        for t in reader.tensors
    ]
    print(json.dumps({"metadata": fields, "tensors": tensors}))


def add_all_types(writer):
    writer.add_uint8("t.u8", 200)
    writer.add_int8("t.i8", -8)
    writer.add_uint16("t.u16", 60000)
    writer.add_int16("t.i16", -300)
    writer.add_uint32("t.u32", 4000000000)
    writer.add_int32("t.i32", -70000)
    writer.add_uint64("t.u64", 2**63)
    writer.add_int64("t.i64", -(2**62))
    writer.add_float32("t.f32", 0.5)
    writer.add_float64("t.f64", 0.1)
    writer.add_bool("t.bool", True)
    writer.add_string("t.string", "grüße")
    writer.add_array("a.i32", [1, -2, 3])
    writer.add_array("a.f32", [0.5, 1.5])
    writer.add_array("a.bool", [True, False, True])
    writer.add_array("a.string", ["", "a", "ü"])


def add_tensors(writer):
    writer.add_tensor("one", np.arange(7, dtype=np.float32))
    writer.add_tensor("two", np.arange(12, dtype=np.float16).reshape(3, 4))
    q8 = gguf.GGMLQuantizationType.Q8_0
    values = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)
    writer.add_tensor("three", gguf.quants.quantize(values, q8), raw_dtype=q8)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    add_all_types(writer)
    add_tensors(writer)
    finish(writer)


def parts(path):
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=2, small_first_shard=True)
    writer.add_block_count(3)
    add_tensors(writer)
    finish(writer)


def sizes():
    rows = [(t.name, int(t), *gguf.GGML_QUANT_SIZES[t]) for t in gguf.GGMLQuantizationType]
    print(json.dumps(rows))


if __name__ == "__main__":
    {"read": read, "write": write, "parts": parts, "sizes": sizes}[sys.argv[1]](*sys.argv[2:])
