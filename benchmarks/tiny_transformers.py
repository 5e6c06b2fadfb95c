"""Folders with tiny models of transformers architectures: configuration, random weights, tokenizer, processor.

Rules for field names, which most architectures share, make a configuration small. The smallest possible size differs,
because sizes must divide each other, or layers have patterns. So there are levels, from the smallest on, and the first
that works is used.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEVELS = (0, 1, 2)  # all sizes small; all except the number of layers; all except the widths
MOST_PARAMETERS = 150_000_000
VOCABULARY = 300
_WORDS = 260  # in the tokenizer: fewer than in the model's vocabulary, as usual
_LAYERS = 4
_IDS = {"pad": 0, "bos": 1, "cls": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 4, "decoder_start": 1}
_FIRST_OTHER_ID = 262  # for tokens of pictures and sounds

_Rules = tuple[tuple[str, int], ...]
_LAYER_COUNTS: _Rules = (  # a pattern for the whole name, and its maximum
    (r"(num_|n_)?(hidden_|encoder_|decoder_|text_)?(hidden_)?layers?", _LAYERS),
    (r"(encoder|decoder|t2u_encoder|t2u_decoder|speech_encoder|conf_num_hidden)_layers", 2),
)
_COUNTS: _Rules = (
    (r".*vocab(ulary)?_size(_per_layer_input)?|.*_group_vocab|ngram_vocab_size_base", VOCABULARY),
    (r"(moe_|n_|num_)?(n_|num_)?(local_|routed_|total_)?experts", 4),
    (r"(moe_)?(num_experts_per_(tok|token|topk)|top_?k|k)", 2),
    (r"n_groups?|topk_group|num_expert_groups?|expert_group_num", 1),
    (r"zero_expert_num", 2),
    (r"first_k_dense_replace|max_window_layers|num_dense_layers", 1),
    (r"depth|num_self_attends_per_block|n_(input|recurrent|output)_layers|num_layers_per_stack", 2),
)
_WIDTHS: _Rules = (
    (r"(audio_|out_)?hidden_size(_global)?|d_model|n_embd|word_embed_proj_dim|dim_model|embedding_dim", 64),
    (r"lru_width|d_latents|emb_dim|hc_lowrank|adapter_(in_dim|out_dim|input_size)|audio_hidden_size", 64),
    (r".*(intermediate_size|ffn_dim|d_ff|n_inner|feed_forward_size|ffn_hidden_size|mlp_dim|hidden_dim)", 64),
    (r"(num_|n_|encoder_|decoder_|num_encoder_|num_decoder_)?(attention_)?heads?", 4),
    (r"(num_key_value|num_kv|encoder_num_key_value|decoder_num_key_value)_heads", 2),
    (r"head_dim|attention_head_size|d_kv|dim_head|.*(nope|rope|v|qk_rope)_head_dim|global_head_dim|index_head_dim", 16),
    (r"qk_head_dim", 32),
    (r"(q|kv|o)_lora_rank|adapter_rank", 32),
    (r"rotary_dim", 8),
    (r"mamba_n_heads|mamba_num_heads|mamba_heads", 8),
    (r"mamba_(d_head|head_dim|headdim)|linear_(key_|value_)?head_dim", 16),
    (r"linear_num_(key_|value_)?heads|index_n_heads", 4),
    (r"(mamba_)?(d_state|state_size)|(mamba_)?chunk_size|index_topk", 16),
    (r"sliding_window|attention_chunk_size", 8),
    (r"hidden_size_per_layer_input", 16),
)
_PICTURES: _Rules = ((r"image_size", 64), (r"n(um)?_filters", 4))
_QUERY_INDEX = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 16}
_BY_TYPE: Mapping[str, Mapping[str, Any]] = {  # special values of single architectures
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "xlm": {"n_words": VOCABULARY},
    "flaubert": {"n_words": VOCABULARY},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "funnel": {"block_sizes": [1, 1, 1]},
    "distilbert": {"dim": 64},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "lfm2_moe": {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}},
    },
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "esm": {"pad_token_id": 1, "mask_token_id": 4},
    "esmc": {"mask_token_id": 4},
    "qwen4_exp_text": {**_QUERY_INDEX, "indexer_budget": 16, "indexer_compress_ratio": 4},
    "dots3_note_vision_encoder": {"num_hidden_layers": 42},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "gemma4_unified_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    "xmod": {"default_language": "en_XX"},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": 16}},
    "mimi": {"upsample_groups": 16},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2},
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {"axial_pos_shape": [16, 16], "axial_pos_embds_dim": [32, 32]},
}


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder with a tiny model.

    Attributes:
        path: the folder.
        parameters: the model's number of parameters.
    """

    path: Path
    parameters: int


def config_of(model_type: str, auto_class: str, level: int) -> Any:
    """Create a configuration of a level's size; for a causal language model, a decoder's."""
    from transformers import CONFIG_MAPPING

    nested: dict[str, Any] = {
        name: value for name, value in _BY_TYPE.get(model_type, {}).items() if isinstance(value, dict)
    }
    try:
        usual = CONFIG_MAPPING[model_type]()
    except Exception:  # gemma4_assistant's defaults fail its own check
        usual = CONFIG_MAPPING[model_type](**nested)
    required: dict[str, Any] = {}
    if auto_class == "AutoModelForCausalLM" and not usual.is_encoder_decoder:
        names = {spec.name for spec in dataclasses.fields(usual)}
        required = {name: True for name in ("is_decoder", "causal") if name in names}
    return _small(usual, level, required)


def write(model_type: str, auto_class: str, keeps: tuple[str, ...], level: int, path: Path) -> Folder:
    """Write a folder like `save_pretrained` does.

    Args:
        model_type: transformers' name of the architecture.
        auto_class: the transformers class that builds it.
        keeps: its parts beside the weights, see `Companions`.
        level: the level of its size.
        path: the folder.

    Raises:
        Exception: transformers can't build it that small.
    """
    import torch
    import transformers
    from transformers.initialization import no_init_weights

    config = config_of(model_type, auto_class, level)
    config.architectures = []
    loader = getattr(transformers, auto_class)
    with torch.device("meta"), no_init_weights():
        parameters = sum(weight.numel() for weight in loader.from_config(config).parameters())
    if parameters > MOST_PARAMETERS:
        raise MemoryError(f"{parameters} parameters at level {level}")
    torch.manual_seed(0)
    module = loader.from_config(config)
    settings = getattr(module, "generation_config", None)
    if config.is_encoder_decoder and settings is not None and settings.decoder_start_token_id is None:
        settings.decoder_start_token_id = settings.bos_token_id or settings.pad_token_id or 0
    module.save_pretrained(path)
    if type(module.config) is not type(
        config
    ):  # a language model inside a vision model: folders have the outer configuration
        config.save_pretrained(path)
    if "tokenizer" in keeps:
        _tokenizer(config).save_pretrained(path)
    for name, mapping in (("processor", "IMAGE_PROCESSOR_MAPPING"), ("features", "FEATURE_EXTRACTOR_MAPPING")):
        hears = config.is_encoder_decoder or auto_class == "AutoModelForCTC"  # others are rejected earlier
        if name in keeps and (name != "features" or hears):
            _preparing(mapping, config, module.main_input_name).save_pretrained(path)
    return Folder(path, parameters)


def _small(usual_config: Any, level: int, own: Mapping[str, Any]) -> Any:
    """Shrink a configuration with all defaults, and those inside it; `own` has values that it must contain."""
    from transformers import PretrainedConfig

    own = {**_BY_TYPE.get(usual_config.model_type, {}), **own}
    fields = dataclasses.fields(usual_config)
    values = {spec.name: spec.default for spec in fields if spec.default is not dataclasses.MISSING}
    attributes = vars(usual_config)  # getattr fails for values that differ by layer
    for spec in fields:  # lists, and nested configurations
        if spec.name not in values or isinstance(attributes.get(spec.name), PretrainedConfig):
            values[spec.name] = attributes.get(spec.name)
    small_fields: dict[str, Any] = {}
    other_ids = iter(range(_FIRST_OTHER_ID, VOCABULARY))
    usual = next((values[name] for name in ("num_hidden_layers", "num_layers", "n_layer") if name in values), None)
    for name, value in values.items():
        if isinstance(value, PretrainedConfig):
            inner = own.get(name, {})
            small_fields[name] = {**_small(value, level, inner).to_dict(), **inner}
        elif name in own:
            small_fields[name] = own[name]
        elif name == "vocab_size" and value is None:
            small_fields[name] = VOCABULARY
        elif (token_id := _token_id(name, value, other_ids)) is not None:
            small_fields[name] = token_id
        elif isinstance(value, int) and not isinstance(value, bool):
            if (limit := _most(name, level)) is not None and value > limit:
                small_fields[name] = limit
        elif isinstance(value, (list, tuple)) and len(value) == usual and len(value) > _LAYERS and level != 1:
            small_fields[name] = type(value)(value[:_LAYERS])
        elif (
            name == "conv_dim" and isinstance(value, (list, tuple)) and level != 2
        ):  # convolutions over single samples of a sound
            small_fields[name] = [16] * len(value)
        elif name == "depths" and isinstance(value, (list, tuple)) and level == 0:
            small_fields[name] = [1] * len(value)
    if "kv_lora_rank" in values and "num_attention_heads" in small_fields:  # each head has its own keys
        small_fields["num_key_value_heads"] = small_fields["num_attention_heads"]
    return type(usual_config)(**{**own, **small_fields})


def _most(name: str, level: int) -> int | None:
    """Return the maximum of a field; None if it is not limited."""
    layers = () if level == 1 else _LAYER_COUNTS
    rules = (*layers, *_COUNTS, *(() if level == 2 else (*_WIDTHS, *_PICTURES)))
    return next((limit for pattern, limit in rules if re.fullmatch(pattern, name)), None)


def _token_id(name: str, value: Any, token_ids: Any) -> Any:
    """Return another id for a token that is not in the small vocabulary; None if no change is needed."""
    match = re.fullmatch(r"(.*?)_?(token_id|token_index|token_ids)", name)
    ids = value if isinstance(value, (list, tuple)) else [value]
    if match is None or not any(isinstance(token, int) and token >= _WORDS for token in ids):
        return None
    standard = _IDS.get(match[1])
    token_id = next(token_ids) if standard is None else standard
    return [token_id] if isinstance(value, (list, tuple)) else token_id


def _tokenizer(config: Any) -> Any:
    """Create a byte tokenizer with exactly the special tokens of the configuration."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    text = config.get_text_config(decoder=True)
    words = min(_WORDS, getattr(text, "vocab_size", None) or _WORDS)
    special: dict[int, str] = {}
    names: dict[str, str] = {}
    for kind in ("pad", "bos", "eos", "sep", "cls", "mask"):
        token = getattr(text, f"{kind}_token_id", None)
        token = token[0] if isinstance(token, (list, tuple)) and token else token
        if isinstance(token, int) and 0 <= token < words:
            names[f"{kind}_token"] = special.setdefault(token, f"<{kind}>")
    characters = iter([*bytes_to_unicode().values(), *(f"<extra{index}>" for index in range(_WORDS))])
    vocabulary = {special.get(index) or next(characters): index for index in range(words)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    if config.is_encoder_decoder and "eos_token" in names:
        eos = names["eos_token"]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"$A {eos}", special_tokens=[(eos, vocabulary[eos])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _preparing(mapping: str, config: Any, main_input: str) -> Any:
    """Create the image processor or feature extractor of an architecture, with its defaults."""
    import transformers

    usual_kind = {
        "IMAGE_PROCESSOR_MAPPING": "ViTImageProcessor",
        "FEATURE_EXTRACTOR_MAPPING": "WhisperFeatureExtractor",
    }
    if main_input in ("input_values", "inputs"):  # raw sound
        usual_kind["FEATURE_EXTRACTOR_MAPPING"] = "Wav2Vec2FeatureExtractor"
    kind = getattr(transformers, mapping).get(type(config), None) or getattr(transformers, usual_kind[mapping])
    kinds = kind if isinstance(kind, (list, tuple)) else [*kind.values()] if isinstance(kind, Mapping) else [kind]
    side = getattr(config, "image_size", None)
    processor = next(kind for kind in kinds if kind is not None)()
    if getattr(processor, "clusters", ()) is None:  # ImageGPT's clusters of colours
        processor.clusters = [[shade, shade, shade] for shade in (-1.0, 0.0, 1.0)]
    counts = (getattr(part, "num_mel_bins", None) for part in (config, getattr(config, "encoder_config", None)))
    bins = next((count for count in counts if count), None)
    if bins and getattr(processor, "feature_size", bins) != bins:
        processor = type(processor)(feature_size=bins)
    usual = dict(getattr(processor, "size", None) or {})
    if isinstance(side, int) and usual:
        square = {"height": side, "width": side}
        size = {"shortest_edge": side} if "shortest_edge" in usual else square
        processor = type(processor)(size=size, crop_size=square)
    return processor
