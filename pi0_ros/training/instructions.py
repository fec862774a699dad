# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""What people say to the demo robot, and the small tokenizer that reads it."""

import random

from pi0_ros.sim.expert import NO_BLOCK
from pi0_ros.sim.world import COLOURS
from tokenizers import (AddedToken, decoders, models, normalizers, pre_tokenizers, processors,
                        Tokenizer, trainers)

VERBS = ('pick up', 'take', 'grab', 'get', 'grasp', 'lift', 'fetch', 'pick', 'reach for',
         'move to', 'go to', 'bring me', 'hold', 'find')
NOUNS = ('block', 'cube', 'one', 'box', 'brick', 'object')
TEMPLATES = ('{verb} the {colour} {noun}', 'please {verb} the {colour} {noun}', '{verb} {colour}',
             'the {colour} {noun}', '{colour} {noun}', '{colour}',
             'now {verb} the {colour} {noun}',
             'pick the {colour} {noun} up', 'can you {verb} the {colour} {noun}',
             'i want the {colour} {noun}', '{verb} the {noun} that is {colour}',
             'robot, {verb} the {colour} {noun}', 'now the {colour} {noun}')
ENDINGS = ('', '', '', '', '.', '!', '?', ' please', ' now')
OTHER_COLOURS = ('yellow', 'purple', 'white', 'black', 'orange', 'pink', 'brown', 'grey')
CHATTER = ('stop', 'wait', 'hello robot', 'do nothing', 'dance', 'wave your hand', 'go home',
           'what is this', 'open the door', 'fold the towel', 'stay where you are', 'good morning',
           'sing a song', 'clean the table', 'look around', 'be careful', 'thank you')
MAX_TOKENS = {'pi0': 48, 'pi05': 64}
DIGITS = range(-1, 256)  # of a state in pi0.5's prompt
ADDED = {'pi0': 0, 'pi05': len(DIGITS) - 10}  # tokens; 0 to 9 are letters already


def sample(rng: random.Random, target: int) -> str:
    """Return an instruction that names block ``target``, or none of them for ``NO_BLOCK``."""
    if target == NO_BLOCK:
        kind = rng.random()
        if kind < 0.4:
            return rng.choice(CHATTER) + rng.choice(ENDINGS)
        if kind < 0.6:
            return ' '.join(''.join(rng.choice('abcdefghijklmnopqrstuvwxyz')
                                    for _ in range(rng.randint(2, 7)))
                            for _ in range(rng.randint(1, 3)))
        colour = rng.choice(OTHER_COLOURS)
    else:
        colour = COLOURS[target]
    text = rng.choice(TEMPLATES).format(verb=rng.choice(VERBS), noun=rng.choice(NOUNS),
                                        colour=colour)
    return text + rng.choice(ENDINGS)


def build_tokenizer(vocabulary: int, network: str = 'pi0') -> Tokenizer:
    """
    Return a byte-pair tokenizer with whole words for the corpus and letters for the rest.

    Like PaliGemma's it starts a text with ``<bos>`` and knows the newline as a token of its own.
    For pi05 every digit of a state is a token of its own, too, behind the others.
    """
    tokenizer = Tokenizer(models.BPE(unk_token='<unk>', fuse_unk=True))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(prepend_scheme='always')])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme='always')
    special = ['<pad>', '<eos>', '<bos>', '<unk>']
    letters = [chr(code) for code in range(33, 127) if chr(code) == chr(code).lower()]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary - 1, special_tokens=special,
                                  initial_alphabet=letters + ['▁'], show_progress=False)
    rng = random.Random(0)
    targets = list(range(len(COLOURS))) * 2 + [NO_BLOCK]
    corpus = [sample(rng, rng.choice(targets)) for _ in range(20000)]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken('\n', normalized=False)])
    if network == 'pi05':
        tokenizer.add_tokens([AddedToken(str(digit), single_word=True, lstrip=True,
                                         normalized=False) for digit in DIGITS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single='<bos> $A', special_tokens=[('<bos>', tokenizer.token_to_id('<bos>'))])
    return tokenizer
