"""The embedded model's tokenizer and text model, in CLIP's format and size one hundredth of it."""

import json

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rcv.world.backgrounds import BACKGROUNDS
from rcv.world.palette import COLORS
from rcv.world.pretrain.images import SUBJECT_INDEX, attributes
from rcv.world.pretrain.loop import train
from rcv.world.pretrain.words import WORDS
from rcv.world.scene import all_captions

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 24
"""Tokens of a prompt: twice the longest caption's, and a third of CLIP's, whose every token costs attention."""
SUFFIX = "</w>"
SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's pre-tokenization (Radford et al., 2021)."""


def build_tokenizer(vocabulary):
    """Return a CLIPTokenizer of `vocabulary` tokens: all bytes, then merges learnt from captions and common words.

    Any text can be tokenized: what has no merge falls apart into bytes. The words of captions are one token each.
    """
    learner = Tokenizer(BPE(end_of_word_suffix=SUFFIX))
    learner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    single = [*letters, *(letter + SUFFIX for letter in letters)]
    trainer = BpeTrainer(
        vocab_size=vocabulary + len(letters),
        # by number it decides between pairs that are equally frequent: numbered here, not as they turn up in threads
        special_tokens=single,
        end_of_word_suffix=SUFFIX,
        show_progress=False,
    )
    learner.train_from_iterator([*all_captions(), " ".join(WORDS)], trainer)
    learnt = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = learnt[: vocabulary - len(single) - 2]
    tokens = [*single, *("".join(pair) for pair in merges), START, END]
    vocab = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=LENGTH)


def tokenize(tokenizer, captions):
    """Return token ids [len(captions), LENGTH]."""
    return tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def build_text_model(tokenizer, config):
    """Return a CLIPTextModel with random weights for `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=max(1, config.text_width // 32),
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class AttributeReader(nn.Module):
    """A text model with three linear readouts of its last state: subject, colour, background.

    Training it before the UNet gives the captions' words their meaning apart from each other in half a minute, which
    images alone teach slowly.
    """

    def __init__(self, text_model, width):
        super().__init__()
        self.text_model = text_model
        sizes = (len(SUBJECT_INDEX), len(COLORS), len(BACKGROUNDS))
        self.readouts = nn.ModuleList(nn.Linear(width, size) for size in sizes)

    def forward(self, ids):
        """Return the three logits for token ids [n, L]."""
        state = self.text_model(ids).pooler_output
        return [readout(state) for readout in self.readouts]


def train_text_model(tokenizer, scenes, config, progress=None):
    """Return a CLIPTextModel that has learnt to name what captions say."""
    reader = AttributeReader(build_text_model(tokenizer, config), config.text_width)
    ids = tokenize(tokenizer, [scene.caption for scene in scenes])
    truth = torch.tensor([attributes(scene) for scene in scenes])

    def loss_at(step, generator):
        chosen = torch.randint(len(ids), (128,), generator=generator)
        answers = reader(ids[chosen])
        return sum(F.cross_entropy(a.float(), truth[chosen, i]) for i, a in enumerate(answers))

    train(
        "text", reader, loss_at, folder=config.output, steps=config.text_steps,
        learning_rate=config.text_learning_rate, config=config, progress=progress,
    )  # fmt: skip
    return reader.text_model
