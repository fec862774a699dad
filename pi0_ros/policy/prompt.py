# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What the network is told in words: the instruction, and of pi0.5 the state."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pi0_ros.checkpoint.spec import find_tokenizer, NETWORKS, PALIGEMMA, PI05, PLAIN, PolicySpec
from pi0_ros.weights.files import CheckpointError
from tokenizers import Tokenizer

ZERO_DIGIT = 128  # of a normalised state of 0


def load_tokenizer(name: str, spec: PolicySpec) -> Tokenizer:
    """
    Return the tokenizer that a user named, or that the checkpoint has.

    :raises CheckpointError: there is none, or it is none of PaliGemma's kind.
    """
    folder = spec.tokenizer
    if name:
        folder = find_tokenizer(Path(name).expanduser().absolute(), name)
    if folder is None:
        raise CheckpointError(
            (f"tokenizer '{name}' is neither a folder with tokenizer.json nor in the hub's "
             'cache on this disk' if name else
             f"checkpoint '{spec.folder}' has no tokenizer folder")
            + (": copy the tokenizer.json that its prompts were made with into it"
               if spec.prompt == PLAIN else
               ": set 'tokenizer' to a folder that holds PaliGemma's tokenizer.json, or accept "
               f'the licence of {PALIGEMMA} on the hub and run: hf download {PALIGEMMA} '
               'tokenizer.json'))
    try:
        out = Tokenizer.from_file(str(folder / 'tokenizer.json'))
    except Exception as error:  # the library raises Exception itself
        raise CheckpointError(f"tokenizer '{folder}' is damaged: {error}") from error
    if spec.prompt == PLAIN:  # with its own padding
        return out
    out.no_padding()
    out.no_truncation()
    for text in ('<bos>', '\n'):
        if out.encode(text, add_special_tokens=False).ids != [out.token_to_id(text)]:
            raise CheckpointError(f"tokenizer '{folder}' has no token {text!r}, which "
                                  f"{NETWORKS[spec.network]} reads: take PaliGemma's")
    return out


def state_digits(raw: np.ndarray, spec: PolicySpec, rows: np.ndarray) -> tuple[int, ...]:
    """
    Return the digits of a raw state in a prompt: the robot's own, without what is only padding.

    openpi's statistics may be padded, its states are not when they become digits.

    :param rows: [state_width] which joint each state is, -1 for none.
    """
    digits = spec.state.digits(raw)
    if not spec.widths_recorded:
        digits = digits[:np.flatnonzero(rows >= 0).max(initial=-1) + 1]
    pad = spec.prompt_states - len(digits)
    return tuple(digits.tolist()) + (ZERO_DIGIT,) * max(0, pad)


def prompt_ids(tokenizer: Tokenizer, instruction: str, style: str, digits: Sequence[int] = ()
               ) -> list[int]:
    """
    Return the token ids of an instruction, after one <bos>.

    lerobot: the text as it is, with a newline unless it ends with one. openpi (``tokenizer.py``):
    stripped, underscores and inner newlines become spaces, the newline is a piece of its own.
    pi05: that text and the state's digits, as ``Task: ..., State: ...;``, for either trainer.
    plain: what the tokenizer makes of it, with the tokens that it adds itself.
    """
    if style == PLAIN:
        return tokenizer.encode(instruction).ids
    plain = instruction.strip().replace('_', ' ').replace('\n', ' ')
    if style == PI05:
        text = f"Task: {plain}, State: {' '.join(map(str, digits))};\nAction: "
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    elif style == 'openpi':
        ids = tokenizer.encode(plain, add_special_tokens=False).ids
        ids += tokenizer.encode('\n', add_special_tokens=False).ids
    else:
        text = instruction if instruction.endswith('\n') else instruction + '\n'
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [tokenizer.token_to_id('<bos>'), *ids]
