"""What the API fuzzer can't know from the description alone.

Random model names would only ever find `model_not_found`, and which token ids exist is up to the
model, as the width of embeddings is: the ones of this test have 256 and 4.
"""

import schemathesis

TOKENS = 256
WIDTH = 4
IDS_END = 2**31


def within(value):
    """`value` with all token ids brought into the vocabulary; anything else stays."""
    if isinstance(value, list):
        return [within(item) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < IDS_END:
        return value % TOKENS
    return value


@schemathesis.hook
def before_call(context, case, **kwargs):
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model"), str):
        body["model"] = "auto"
    for field in ("prompt", "input", "tokens"):
        if field in body:
            body[field] = within(body[field])
    dimensions = body.get("dimensions")
    if isinstance(dimensions, int) and not isinstance(dimensions, bool) and dimensions > 0:
        body["dimensions"] = 1 + dimensions % WIDTH
    biases = body.get("logit_bias")
    if isinstance(biases, dict):
        body["logit_bias"] = {
            str(int(key) % TOKENS) if key.isdecimal() and key.isascii() else key: bias
            for key, bias in biases.items()
        }
