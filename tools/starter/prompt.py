"""Renders chats with the model's own template, as an inference server does.

`tojson` is by default the variant of the Hugging Face libraries: spaces after separators, no escaping
for HTML. Servers differ here, so training also sees the other `STYLES`.
"""
import json
from functools import lru_cache
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE_PATH = Path(__file__).with_name("template.jinja")


STYLES = {
    "spaced": lambda value: json.dumps(value, ensure_ascii=False),
    "compact": lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    "sorted": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True),
    "compact sorted": lambda value: json.dumps(
        value, ensure_ascii=False, separators=(",", ":"), sort_keys=True
    ),
}


@lru_cache(maxsize=16)
def compiled(source, style):
    """The template `source`, ready to render; `style` is how `tojson` writes."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = STYLES[style]
    return env.from_string(source)


@lru_cache(maxsize=1)
def own_template():
    """The starter model's template, from the file beside this one."""
    return TEMPLATE_PATH.read_text()


def render(messages, tools=None, thinking=None, generate=True, source=None, style="spaced"):
    """Prompt text of a chat. `thinking` None leaves `enable_thinking` undefined."""
    extra = {} if thinking is None else {"enable_thinking": thinking}
    return compiled(source if source is not None else own_template(), style).render(
        messages=messages, tools=tools, add_generation_prompt=generate, **extra
    )
