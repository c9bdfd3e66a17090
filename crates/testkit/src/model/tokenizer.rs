//! Owns the synthetic models' tokenizer: byte-level BPE with every byte a token, a few merges,
//! ChatML's special tokens, and made-up words that fill the vocabulary.
//!
//! Every digit is one token, so a caller can build prompts of an exact length.

use gguf::{Metadata, StringArray};

use super::ModelSpec;
use super::architecture::Architecture;

/// ChatML without tools: the template of models that have one.
pub const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// Merges in order of rank, with the byte alphabet's sign for a space. A pair is written with a
/// space between its halves.
pub const MERGES: &[(&str, &str)] = &[
    ("Ġ", "t"),
    ("h", "e"),
    ("Ġ", "a"),
    ("i", "n"),
    ("r", "e"),
    ("Ġt", "he"),
];

/// Id of the first special token: after the bytes and the merges.
pub const FIRST_SPECIAL: u32 = 256 + MERGES.len() as u32;
/// Id of `<|endoftext|>`, the first token of a text where one is wanted.
pub const END_OF_TEXT: u32 = FIRST_SPECIAL;
/// Id of `<|im_start|>`.
pub const IM_START: u32 = FIRST_SPECIAL + 1;
/// Id of `<|im_end|>`, which ends an answer.
pub const IM_END: u32 = FIRST_SPECIAL + 2;

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Token types as llama.cpp numbers them.
const TYPE_NORMAL: i32 = 1;
const TYPE_CONTROL: i32 = 3;

/// The sign that byte-level BPE writes for each byte: printable bytes stand for themselves, the
/// others get the signs from U+0100 on, in order.
fn byte_alphabet() -> Vec<String> {
    let mut spare = 256u32;
    let sign = |byte: u8| {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable { u32::from(byte) } else { spare };
        spare += u32::from(!printable);
        char::from_u32(code).map(String::from).unwrap_or_default()
    };
    (0..=255).map(sign).collect()
}

/// Adds the tokenizer's keys.
pub(crate) fn add(spec: &ModelSpec, out: &mut Metadata) {
    let mut tokens: StringArray = byte_alphabet().iter().collect();
    MERGES
        .iter()
        .for_each(|(a, b)| tokens.push(format!("{a}{b}")));
    SPECIAL.iter().for_each(|s| tokens.push(s));
    while (tokens.len() as u64) < u64::from(spec.vocab) {
        tokens.push(format!("Ġw{}", tokens.len()));
    }
    let mut types = vec![TYPE_NORMAL; tokens.len()];
    types[FIRST_SPECIAL as usize..][..SPECIAL.len()].fill(TYPE_CONTROL);
    let merges: StringArray = MERGES.iter().map(|(a, b)| format!("{a} {b}")).collect();
    out.set("tokenizer.ggml.model", "gpt2");
    // The rules by which text is cut into words before merging. These split digits one by one.
    out.set("tokenizer.ggml.pre", "qwen2");
    out.set("tokenizer.ggml.tokens", tokens);
    out.set("tokenizer.ggml.token_type", types);
    out.set("tokenizer.ggml.merges", merges);
    out.set("tokenizer.ggml.bos_token_id", END_OF_TEXT);
    out.set("tokenizer.ggml.eos_token_id", IM_END);
    out.set("tokenizer.ggml.padding_token_id", END_OF_TEXT);
    out.set("tokenizer.ggml.add_bos_token", false);
    if spec.architecture == Architecture::Qwen3Embedding {
        // Models that pool the last token put one of a fixed meaning there.
        out.set("tokenizer.ggml.add_eos_token", true);
    }
    if spec.architecture.is_bert() {
        out.set(
            "tokenizer.ggml.token_type_count",
            super::tensors::TOKEN_TYPES,
        );
    }
    if let Some(template) = &spec.chat_template {
        out.set("tokenizer.chat_template", template.as_str());
    }
}
