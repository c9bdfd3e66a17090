"""Turns the GGUF file back into a checkpoint and a vocabulary, so that training can go on from it.

    python resume.py --model ../../assets/starter.gguf --checkpoint build/start.pt --vocabulary build/vocabulary.json

Q8_0 loses a little, which a few steps of training make good.
"""
import argparse
from pathlib import Path

import gguf
import torch

from convert import NAMES
from model import Shape
from vocabulary import CONTROL, VISIBLE, assemble


def shape_of(reader):
    """The network's sizes from the metadata."""

    def number(key):
        return reader.get_field(f"qwen3.{key}").contents()

    return Shape(
        vocab=len(reader.get_field("tokenizer.ggml.tokens").contents()), width=number("embedding_length"), layers=number("block_count"),
        heads=number("attention.head_count"), kv_heads=number("attention.head_count_kv"), head_width=number("attention.key_length"),
        feed_forward=number("feed_forward_length"), context=number("context_length"), rope_base=number("rope.freq_base"),
        norm_eps=number("attention.layer_norm_rms_epsilon"),
    )


def own_name(name):
    """The parameter's name in `model.py` for a tensor of the file."""
    parts = name.split(".")
    if parts[0] == "blk":
        back = {v: k for k, v in NAMES.items()}
        return f"blocks.{parts[1]}.{back[parts[2]]}.weight"
    return {"token_embd": "embed.weight", "output_norm": "norm.weight"}[parts[0]]


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--model", type=Path, required=True)
    arg.add_argument("--checkpoint", type=Path, required=True)
    arg.add_argument("--vocabulary", type=Path, required=True)
    args = arg.parse_args()
    reader = gguf.GGUFReader(str(args.model))
    model = {
        own_name(t.name): torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors
    }
    args.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model, "shape": shape_of(reader).as_dict(), "seconds": 0.0, "tokens": 0}, args.checkpoint)
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    merges = [tuple(m.split(" ")) for m in reader.get_field("tokenizer.ggml.merges").contents()]
    plain = tokens[:tokens.index(CONTROL[0])]
    assert tokens[len(plain):len(plain) + len(CONTROL + VISIBLE)] == CONTROL + VISIBLE
    assemble(plain, merges).save(str(args.vocabulary))


if __name__ == "__main__":
    main()
