"""What a decision follows from: one hash for configuration and checkpoint, one for images."""

import hashlib
import json
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pi0_ros.policy.factory import checkpoint_folder

# Parameters that another chunk follows from if they are others.
DECIDES = ('policy', 'tokenizer', 'device', 'dtype', 'engine', 'compile', 'denoising_steps',
           'chunk_length', 'action_rate', 'relative_joints', 'letterbox', 'assets', 'seed',
           'torch_threads', 'mock_amplitude', 'mock_script', 'action_names', 'state_names',
           'conversions', 'adaptation', 'cameras', 'handover', 'jacobian')
READ = ('*.json', '*.safetensors', 'assets/**/*.json', 'tokenizer/*.json')
READ_WHOLE = 2**20   # bytes of a file; of a longer one its beginning and samples
SAMPLES = 64
SAMPLE = 4096


def fingerprint(folder: Path) -> str:
    """Return a hash of a checkpoint's JSON and safetensors files.

    Of a large file it reads the header and samples: training moves every weight. It takes
    milliseconds for gigabytes. What cannot be read counts as such.
    """
    out = hashlib.sha256()
    for path in sorted({path for pattern in READ for path in folder.glob(pattern)}):
        out.update(f'{path.relative_to(folder)}\n'.encode())
        try:
            out.update(_content(path))
        except OSError:  # a link to nothing, for example: whether that matters, loading says
            out.update(b'unreadable')
    return out.hexdigest()[:16]


def _content(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open('rb') as file:
        parts = [f'{size}\n'.encode(), file.read(READ_WHOLE)]
        for at in np.linspace(READ_WHOLE, max(READ_WHOLE, size - SAMPLE), SAMPLES).astype(int):
            file.seek(at)
            parts.append(file.read(SAMPLE))
    return b''.join(parts)


def configuration(values: SimpleNamespace) -> dict[str, object]:
    """Return what decides of the parameters, and the checkpoint's fingerprint."""
    out = {name: getattr(values, name) for name in DECIDES}
    out['checkpoint'] = fingerprint(checkpoint_folder(values.checkpoint)) \
        if values.policy == 'pi0' else ''
    return json.loads(json.dumps(out))


def configuration_hash(decides: dict[str, object]) -> str:
    """Return a hash of what ``configuration`` returned."""
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def image_hash(image: np.ndarray) -> int:
    """Return a checksum of an image's pixels."""
    return zlib.crc32(np.ascontiguousarray(image))
