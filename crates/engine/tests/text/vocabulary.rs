//! Made-up vocabularies: every byte, then pieces of text as real tokenizers have them, then
//! control tokens.

use engine::TokenId;
use engine::text::Vocabulary;

/// Control tokens, after all others. `END` comes first.
pub(crate) const SPECIAL: [&str; 12] = [
    END,
    "<|im_start|>",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<|start|>",
    "<|end|>",
    "<|call|>",
];
pub(crate) const END: &str = "<|im_end|>";

/// Pieces that cross the places where grammars change their mind.
const PIECES: &[&str] = &[
    "\"",
    "\":",
    "\": ",
    "\": \"",
    "\", \"",
    "\",",
    "\"}",
    "\"]",
    "{\"",
    "[{\"",
    "}]",
    "}}",
    "},",
    "},{",
    "{}",
    "[]",
    "[\"",
    "[[",
    "]]",
    "],",
    " {",
    " [",
    " \"",
    ", ",
    ": ",
    "\n",
    "\n\n",
    "\n  ",
    "  ",
    "    ",
    "\t",
    "\r\n",
    "true",
    "false",
    "null",
    " true",
    " false",
    "tr",
    "ue",
    "fal",
    "se",
    "nu",
    "ll",
    "-1",
    "0.",
    "00",
    "10",
    "12",
    "123",
    "e+",
    "E-",
    "\\n",
    "\\\"",
    "\\u00",
    "\\\\",
    "name",
    "arguments",
    "parameters",
    "\"name",
    "\"name\": \"",
    "\"arguments\": {",
    "type",
    "get",
    "_weather",
    "city",
    "</",
    "think",
    "</think>",
    "<think>",
    "</think>\n\n",
    ">\n",
    "<tool",
    "tool_call",
    "::=",
    " + ",
    "(x",
    ")",
    "é",
    "ü",
    "€",
    "中",
    "中文",
    "日本",
    "👍",
    "\u{e9}t",
    "ing",
    "ed ",
    "the ",
    " the",
    "and",
    " of",
];

/// Words that fill a vocabulary up to `count` tokens.
fn words(count: usize) -> impl Iterator<Item = String> {
    const SYLLABLES: [&str; 32] = [
        "ba", "be", "co", "da", "de", "el", "en", "er", "es", "fi", "ga", "ho", "in", "is", "ka",
        "le", "lo", "ma", "mi", "no", "on", "or", "pa", "ra", "re", "si", "ta", "te", "ti", "un",
        "ve", "zu",
    ];
    (0..count).map(|mut number| {
        let mut word = String::from(if number % 2 == 0 { " " } else { "" });
        number /= 2;
        loop {
            word.push_str(SYLLABLES[number % SYLLABLES.len()]);
            number /= SYLLABLES.len();
            if number == 0 {
                return word;
            }
        }
    })
}

/// The bytes of all tokens of a vocabulary with at least `size` tokens.
pub(crate) fn token_bytes(size: usize) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    tokens.extend(
        PIECES
            .iter()
            .filter(|piece| piece.len() > 1)
            .map(|piece| piece.as_bytes().to_vec()),
    );
    let missing = size.saturating_sub(tokens.len() + SPECIAL.len());
    tokens.extend(words(missing).map(String::into_bytes));
    tokens.extend(SPECIAL.iter().map(|name| name.as_bytes().to_vec()));
    tokens
}

/// A vocabulary with at least `size` tokens.
pub(crate) fn vocabulary(size: usize) -> Vocabulary {
    let tokens = token_bytes(size);
    let special = (0..tokens.len())
        .map(|index| index + SPECIAL.len() >= tokens.len())
        .collect();
    let end = (tokens.len() - SPECIAL.len()) as TokenId;
    Vocabulary::new(tokens, special, vec![end])
}
