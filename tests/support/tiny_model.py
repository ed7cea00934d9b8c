"""A tiny Llama and tiny adapters, made on the spot with numpy: no download, no torch, a second.

It answers nonsense, but it is served, probed and trained exactly like a real one. The tokenizer is
trained here on a few sentences; the template is SmolLM2's ChatML, with tools.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
# Heads of 80: with a multiple of 32, vLLM's CPU build computes attention with AMX, for which the
# process has no permission until a larger matrix product than any here has asked for it (SIGILL).
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 160, 4, 2, 1, 80, 480
VOCABULARY = 2048
FORMAT = "float32"  # for serving and training it: the one that every processor is fast in
MAX_POSITIONS = 2048
CHAT_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}\
{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\\n\\n' }}{%- endif %}\
{{- 'You may call one or more of these functions:\\n<tools>' }}\
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}\
{{- '\\n</tools><|im_end|>\\n' }}\
{%- elif messages[0]['role'] != 'system' %}\
{{- '<|im_start|>system\\nYou are a helpful AI assistant.<|im_end|>\\n' }}{%- endif %}\
{%- for message in messages %}\
{%- if not (tools and loop.first and message['role'] == 'system') %}\
{{- '<|im_start|>' + message['role'] + '\\n' }}\
{%- if message['content'] %}{{- message['content'] }}{%- endif %}\
{%- for call in message.get('tool_calls') or [] %}\
{{- '<tool_call>\\n{"name": "' + call['function']['name'] + '", "arguments": ' }}\
{{- (call['function']['arguments'] | tojson) + '}\\n</tool_call>' }}{%- endfor %}\
{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}\
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
_SENTENCES = (
    "My card was declined at the supermarket and I do not know why.",
    "Where is my parcel? The tracking page has not changed for three days.",
    "Please cancel the subscription and refund the last payment.",
    "I forgot my password and the reset mail never arrives.",
    "Answer with the intent only: card_declined, lost_parcel, refund, login_problem.",
    '{"name": "get_order", "arguments": {"id": 17, "city": "Madrid"}}',
    "What is the capital of France? The capital of France is Paris.",
    "¿Dónde está mi pedido? Señor, naïve café, Größe, 東京, Привет.",
)


def make_tiny_base(out: Path, *, seed: int = 0) -> Path:
    """Write a complete model directory (bf16 safetensors, tokenizer, template) and return it."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    _write_json(out / "tokenizer_config.json", _tokenizer_config())
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    _write_json(out / "config.json", _config(tokenizer.get_vocab_size()))
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    _write_json(out / "generation_config.json", generation)
    save_bf16(out / "model.safetensors", _weights(tokenizer.get_vocab_size(), seed))
    return out


def make_tiny_adapter(
    out: Path,
    *,
    seed: int = 1,
    rank: int = 8,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    size: float = 0.1,
    layers: int = LAYERS,
) -> Path:
    """Write a LoRA adapter in PEFT's format with random weights of the given size, and return it.

    At size 0.1 its log-probs differ clearly from the base's; at 0 it has no effect.
    """
    out.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(layers):
        for target in targets:
            rows, columns = _SHAPES[target]
            stem = f"base_model.model.model.layers.{layer}.{_block(target)}.{target}"
            tensors[f"{stem}.lora_A.weight"] = generator.normal(0, columns**-0.5, (rank, columns))
            tensors[f"{stem}.lora_B.weight"] = generator.normal(0, size, (rows, rank))
    save_bf16(out / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    config |= {"target_modules": sorted(targets), "bias": "none", "lora_dropout": 0.0}
    _write_json(out / "adapter_config.json", config | {"base_model_name_or_path": "tiny"})
    return out


def save_bf16(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write tensors as bf16 safetensors: header length, JSON header, bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        data = _bf16(tensor)
        span = [offset, offset := offset + len(data)]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": span}
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def _bf16(tensor: np.ndarray) -> bytes:
    """The upper half of each float32, rounded to nearest even."""
    bits = tensor.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


_SHAPES = {
    "q_proj": (HEADS * HEAD_DIM, HIDDEN),
    "k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
    "v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
    "o_proj": (HIDDEN, HEADS * HEAD_DIM),
    "gate_proj": (INNER, HIDDEN),
    "up_proj": (INNER, HIDDEN),
    "down_proj": (HIDDEN, INNER),
}


def _block(module: str) -> str:
    return "self_attn" if module in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"


def _weights(vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": generator.normal(0, 1, (vocabulary, HIDDEN))}
    tensors["lm_head.weight"] = generator.normal(0, 2 * HIDDEN**-0.5, (vocabulary, HIDDEN))
    tensors["model.norm.weight"] = np.ones(HIDDEN)
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        for module, (rows, columns) in _SHAPES.items():
            matrix = generator.normal(0, columns**-0.5, (rows, columns))
            tensors[f"{stem}.{_block(module)}.{module}.weight"] = matrix
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{stem}.{norm}.weight"] = np.ones(HIDDEN)
    return tensors


def _config(vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": vocabulary,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    return tokenizer


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1))
