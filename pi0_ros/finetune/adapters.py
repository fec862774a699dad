# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Low-rank adapters (LoRA, arXiv 2106.09685) by PEFT; what is saved has them in its weights."""

import logging

import torch
from torch import nn, Tensor

# As LeRobot's ``_get_default_peft_targets`` of pi0, under transformers' names.
TARGETS = (r'.*model\.dit\..*\.self_attn\.(q|v)_proj|action_out_proj|embed_action_time\.'
           r'(state_proj|action_in_proj|action_time_mlp_in|action_time_mlp_out|time_mlp_in|'
           r'time_mlp_out)')
MISSING = ('--lora-rank needs PEFT, which is not installed: pip install -r '
           'requirements/train.txt')


def adapt(model: nn.Module, rank: int) -> None:
    """
    Put adapters of ``rank`` beside what LeRobot adapts, and freeze everything else.

    :raises ValueError: PEFT is not installed.
    """
    try:
        from peft import inject_adapter_in_model, LoraConfig
    except ImportError as error:
        raise ValueError(MISSING) from error
    inject_adapter_in_model(LoraConfig(r=rank, target_modules=TARGETS), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_('.lora_' in name)
    logging.getLogger('peft').setLevel(logging.ERROR)


@torch.no_grad()
def merged(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights under their own names, with what adapters add to them."""
    adapted = {name: module for name, module in model.named_modules()
               if hasattr(module, 'get_delta_weight') and hasattr(module, 'base_layer')}
    out = {}
    for name, value in model.state_dict().items():
        owner, _, leaf = name.rpartition('.')
        if '.lora_' in name:
            continue
        layer = adapted.get(owner.removesuffix('.base_layer'))
        if layer is None or not owner.endswith('.base_layer'):
            out[name] = value
            continue
        whole = f"{owner.removesuffix('.base_layer')}.{leaf}"
        out[whole] = value.float() + layer.get_delta_weight('default').float() \
            if leaf == 'weight' else value
    return out
