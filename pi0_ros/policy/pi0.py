"""PI0 through transformers' own classes."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from pi0_ros.observation.images import letterbox
from pi0_ros.observation.observation import Observation
from pi0_ros.policy import checkpoint, weights
from pi0_ros.policy.policy import ActionChunk
from pi0_ros.policy.spec import CheckpointError, Choices

PADDED_WIDTH = 32


class Pi0Policy:
    """Decides with a PI0 checkpoint: normalise, letterbox, tokenise, denoise, restore."""

    def __init__(self, folder: Path, *, dt_ns: int = 0, device: str = 'auto', dtype: str = 'auto',
                 steps: int = 0, seed: int = 0, threads: int = 1,
                 tokenizer: Path | None = None, choices: Choices = Choices()) -> None:
        """Read what the checkpoint is; ``load`` reads the weights.

        :param dt_ns: control period of the training data; 0 takes the checkpoint's.
        :param device: auto, cpu or cuda. :param dtype: auto, float32 or bfloat16.
        :param steps: denoising steps; 0 takes the checkpoint's.
        :param threads: processor threads of torch in the thread that infers.
        :param tokenizer: folder with tokenizer.json, for checkpoints that lack it.
        :raises CheckpointError: the checkpoint cannot be used.
        """
        self.spec = checkpoint.read(folder, choices)
        self.dt_ns = dt_ns or round((self.spec.dt_s or 0) * 1e9)
        if not self.dt_ns:
            raise CheckpointError(
                f"checkpoint '{folder}' does not record its control rate: set parameter "
                "'action_rate' to the fps of the training data (meta/info.json of the data set)")
        if device == 'cuda' and not torch.cuda.is_available():
            raise CheckpointError("device 'cuda' was asked for, but torch finds no GPU: check the "
                                  "driver and the torch build, or set 'device' to 'cpu'")
        if device == 'auto':
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        if dtype == 'auto':
            dtype = 'bfloat16' if device == 'cuda' else 'float32'
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        self.steps, self.threads = steps or self.spec.denoising_steps, threads
        self._noise = np.random.default_rng(seed)
        self._tokenizer_folder = tokenizer or self.spec.tokenizer
        self._prompt: tuple[str, torch.Tensor] | None = None
        self.model, self.number = None, 0

    def load(self) -> None:
        """Load weights and tokenizer.

        :raises CheckpointError: either cannot be used.
        """
        torch.set_num_threads(self.threads)
        folder = self._tokenizer_folder
        if folder is None or not (folder / 'tokenizer.json').exists():
            raise CheckpointError(
                f"checkpoint '{self.spec.folder}' has no tokenizer folder: set parameter "
                "'tokenizer' to a folder that holds PaliGemma's tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        for text in ('<bos>', '\n'):
            if len(self._tokenizer.encode(text, add_special_tokens=False).ids) != 1:
                raise CheckpointError(f"tokenizer '{folder}' has no token {text!r}, which PI0 "
                                      "reads: take PaliGemma's")
        self.model = weights.load_model(self.spec.folder, self.dtype, self.device)

    def warm_up(self) -> None:
        """Infer once on grey images."""
        height, width = self.spec.image_size
        images = {name: np.full((height, width, 3), 128, np.uint8) for name in self.spec.cameras}
        state = self.spec.state.restore(np.zeros(self.spec.state_width))
        self.infer(Observation(0, state, images, {}, 'warm up'),
                   np.zeros((self.spec.chunk_length, PADDED_WIDTH)))
        self.number = 0

    def infer(self, observation: Observation, noise: np.ndarray | None = None) -> ActionChunk:
        """Decide a chunk of [chunk_length, action_width] absolute joint positions.

        :raises ValueError: the observation does not fit the checkpoint.
        """
        if noise is None:
            noise = self._noise.standard_normal((self.spec.chunk_length, PADDED_WIDTH))
        pixels = self._pixels(observation)
        ids = self._input_ids(observation.instruction, len(pixels))
        state = np.zeros(PADDED_WIDTH)
        state[:self.spec.state_width] = self.spec.state.normalise(observation.state)
        with torch.inference_mode():
            actions = self.model.sample_actions(
                state=torch.tensor(state, dtype=self.dtype, device=self.device)[None],
                input_ids=ids, pixel_values=pixels[None],
                noise=torch.tensor(noise, dtype=torch.float32, device=self.device)[None],
                attention_mask=torch.ones_like(ids),
                pixel_attention_mask=torch.ones((1, len(pixels)), dtype=torch.bool,
                                                device=self.device),
                num_steps=self.steps)
        normalised = actions[0, :, :self.spec.action_width].double().cpu().numpy()
        positions = self.spec.action.restore(normalised)
        relative = self.spec.relative
        positions[:, relative] += observation.state[:len(relative)][relative]
        number, self.number = self.number, self.number + 1
        return ActionChunk(observation.t_obs_ns, self.dt_ns, positions, observation.instruction,
                           number)

    def _pixels(self, observation: Observation) -> torch.Tensor:
        """Return the images that are there, (cameras, 3, S, S), in the checkpoint's order."""
        unknown = set(observation.images) - set(self.spec.cameras)
        if unknown or not observation.images:
            raise ValueError(f"cameras {sorted(observation.images)} do not fit the checkpoint's "
                             f'{list(self.spec.cameras)}')
        if len(observation.state) != self.spec.state_width:
            raise ValueError(f'state has {len(observation.state)} joints, the checkpoint expects '
                             f'{self.spec.state_width}')
        names = [name for name in self.spec.cameras if name in observation.images]
        out = np.empty((len(names), 3, *self.spec.image_size), np.float32)
        for name, target in zip(names, out):
            letterbox(observation.images[name], *self.spec.image_size, self.spec.letterbox, target)
        return torch.from_numpy(out).to(self.device, self.dtype)

    def _input_ids(self, instruction: str, cameras: int) -> torch.Tensor:
        """Return image placeholders and the prompt, (1, L), un-padded."""
        if self._prompt is None or self._prompt[0] != instruction:
            ids = prompt_ids(self._tokenizer, instruction, self.spec.prompt)
            self._prompt = instruction, torch.tensor([ids[:self.spec.max_prompt_tokens]],
                                                     device=self.device)
        vision = self.model.config.vlm_config.vision_config
        tokens = cameras * (vision.image_size // vision.patch_size) ** 2
        images = torch.full((1, tokens), self.model.config.vlm_config.image_token_id,
                            device=self.device)
        return torch.cat([images, self._prompt[1]], dim=1)

    def close(self) -> None:
        """Free the network."""
        self.model = None
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()


def prompt_ids(tokenizer: Tokenizer, instruction: str, style: str) -> list[int]:
    """Return the token ids of an instruction: one <bos>, the text, one newline.

    lerobot: the text as it is, with a newline unless it ends with one. openpi (``tokenizer.py``):
    stripped, underscores and inner newlines become spaces, the newline is a piece of its own.
    """
    if style == 'openpi':
        text = instruction.strip().replace('_', ' ').replace('\n', ' ')
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        ids += tokenizer.encode('\n', add_special_tokens=False).ids
    else:
        text = instruction if instruction.endswith('\n') else instruction + '\n'
        ids = tokenizer.encode(text, add_special_tokens=False).ids
    return [tokenizer.token_to_id('<bos>'), *ids]
