# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Small random PI0 networks, and inputs for them."""

from pi0_ros.engine.paths import Prompt
from pi0_ros.training.model import architecture, new_model
from pi0_ros.weights.pi05 import AdaptiveNorm
import torch
from torch import nn

TINY = {'width': 64, 'expert_width': 32, 'layers': 3, 'heads': 4, 'head_dim': 16,
        'image_width': 48, 'image_layers': 2, 'image_heads': 4, 'image_size': 56, 'patch': 14,
        'vocabulary': 100, 'chunk': 10}


class Float64Waves(nn.Module):
    """The time embedding as LeRobot computes it; transformers' in float32 is 2e-5 off."""

    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, time):
        config = self.config
        fraction = torch.linspace(0, 1, config.dit_config.hidden_size // 2, dtype=torch.float64)
        period = config.min_period * (config.max_period / config.min_period) ** fraction
        angle = time.double()[:, None] * 2 * torch.pi / period
        return torch.cat([angle.sin(), angle.cos()], 1).float()


def network(seed=0, dtype=torch.float32, pi05=False, **changes):
    """Return a random network in evaluation mode, as weights.load_model would."""
    model = new_model(seed, architecture(**{**TINY, **changes}), 'pi05' if pi05 else 'pi0')
    model = model.eval().requires_grad_(False)
    if pi05:
        torch.manual_seed(seed)
        for norm in (module for module in model.modules() if isinstance(module, AdaptiveNorm)):
            torch.nn.init.normal_(norm.dense.weight, std=0.1)
            torch.nn.init.normal_(norm.dense.bias, std=0.3)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.embed_action_time.action_in_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    if not pi05:
        model.embed_action_time.sinusoid_embeds = Float64Waves(model.config)
    return model


def prompt(model, ids):
    return Prompt(ids, model.model.vlm.get_input_embeddings()(ids).detach())


def inputs(model, cameras=2, tokens=7, seed=0):
    """Return what a path takes: pixels, prompt, state, noise."""
    dice = torch.Generator().manual_seed(seed)
    size = model.config.vlm_config.vision_config.image_size
    ids = torch.randint(2, model.config.vlm_config.text_config.vocab_size - 1, (tokens,),
                        generator=dice)
    return (torch.rand(cameras, 3, size, size, generator=dice) * 2 - 1, prompt(model, ids),
            torch.randn(32, generator=dice),
            torch.randn(model.config.chunk_size, 32, generator=dice))


def error(wanted, got):
    return float((got - wanted).abs().max() / wanted.abs().max())
