"""Writes a trained checkpoint as GGUF: architecture `qwen3`, matrices in Q8_0, norms in f32.

    python convert.py --checkpoint build/final.pt --vocabulary build/vocabulary.json --out starter.gguf
"""
import argparse
import json
from pathlib import Path

import gguf
import torch

from prompt import own_template
from vocabulary import CONTROL, VISIBLE

NAMES = {
    "attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm", "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}
FACTS = "Knows mesh-llm, counts, and calls tools; trained from scratch on generated text"


def add_shape(writer, shape):
    writer.add_context_length(shape["context"])
    writer.add_embedding_length(shape["width"])
    writer.add_block_count(shape["layers"])
    writer.add_feed_forward_length(shape["feed_forward"])
    writer.add_head_count(shape["heads"])
    writer.add_head_count_kv(shape["kv_heads"])
    writer.add_key_length(shape["head_width"])
    writer.add_value_length(shape["head_width"])
    writer.add_rope_freq_base(shape["rope_base"])
    writer.add_layer_norm_rms_eps(shape["norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)


def add_vocabulary(writer, path, size):
    """Tokens in the order of their numbers; rows of the table that have no token become unused ones."""
    told = json.loads(path.read_text())
    tokens = {i: t for t, i in told["model"]["vocab"].items()} | {t["id"]: t["content"] for t in told["added_tokens"]}
    kinds, names = [], []
    for i in range(size):
        name = tokens.get(i, f"<|unused_{i}|>")
        kind = gguf.TokenType.NORMAL
        if name in CONTROL:
            kind = gguf.TokenType.CONTROL
        elif name in VISIBLE:
            kind = gguf.TokenType.USER_DEFINED
        elif i not in tokens:
            kind = gguf.TokenType.UNUSED
        names.append(name)
        kinds.append(kind)
    number = {t: i for i, t in tokens.items()}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in told["model"]["merges"]])
    writer.add_eos_token_id(number["<|im_end|>"])
    writer.add_pad_token_id(number["<|endoftext|>"])
    writer.add_bos_token_id(number["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(own_template())


def main():
    arg = argparse.ArgumentParser(description=__doc__)
    arg.add_argument("--checkpoint", type=Path, required=True)
    arg.add_argument("--vocabulary", type=Path, required=True)
    arg.add_argument("--out", type=Path, required=True)
    args = arg.parse_args()
    saved = torch.load(args.checkpoint, weights_only=True)
    writer = gguf.GGUFWriter(str(args.out), "qwen3")
    writer.add_name("mesh-llm starter")
    writer.add_basename("starter")
    writer.add_organization("mesh-llm")
    writer.add_description(FACTS)
    writer.add_license("MIT OR Apache-2.0")
    writer.add_languages(["en"])
    writer.add_size_label(f"{sum(t.numel() for t in saved['model'].values()) / 1e6:.1f}M")
    add_shape(writer, saved["shape"])
    add_vocabulary(writer, args.vocabulary, saved["shape"]["vocab"])
    for name, tensor in saved["model"].items():
        parts = name.split(".")
        if parts[0] == "blocks":
            target = f"blk.{parts[1]}.{NAMES[parts[2]]}.weight"
        else:
            target = {"embed": "token_embd.weight", "norm": "output_norm.weight"}[parts[0]]
        array = tensor.float().numpy()
        if array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(target, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
