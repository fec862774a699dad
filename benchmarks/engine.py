# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""
The engine against transformers' own code: kernels, time, memory, growth.

    python benchmarks/engine.py [--only kernels cpu growth demo full gpu] [--network pi05]

Each part runs in a process of its own. Paths are timed in turn, not one after the other. Weights
are random but for the demo checkpoint. full writes a 6 GiB file and deletes it; gpu says 'not
measured' where there is none.
"""

import argparse
import json
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import time

from load import write_checkpoint
from machine import machine
import numpy as np
from pi0_ros.engine.engine import Engine
from pi0_ros.engine.kernels import count_kernels, Graphs
from pi0_ros.engine.paths import Prompt, Reference
from pi0_ros.engine.together import Question, Together
from pi0_ros.training.model import architecture, new_model
from pi0_ros.weights.loading import load_model
import torch

PARTS = ('kernels', 'cpu', 'growth', 'demo', 'full', 'gpu')
CAMERAS, STEPS, CHUNK = 3, 10, 50
PROMPT = {'pi0': 20, 'pi05': 60}  # tokens
NETWORK = 'pi0'
# Physical floor in bf16, ms for 1, 2, 3 cameras: what bandwidth and arithmetic allow.
FLOOR_MS = {'H200': (2.7, 3.9, 5.2), 'H100': (3.7, 4.6, 5.8), '5090': (9.9, 15.7, 21.7),
            '4090': (14.4, 21.8, 29.4), 'Thor': (45, 48, 52), 'Orin': (63, 92, 121)}
COMPUTES = ('mm', 'addmm', 'mkldnn::_linear_pointwise', 'bmm', 'convolution', 'cat', 'clone',
            'add', '_to_copy', 'native_layer_norm', '_scaled_dot_product_flash_attention_for_cpu')


def network(width: int, layers: tuple[int, int], dtype: torch.dtype, head_dim: int = 32
            ) -> torch.nn.Module:
    """Return random weights at real token counts: 256 an image, (image, text) layers."""
    model = new_model(0, architecture(
        width=width, expert_width=width // 2, layers=layers[1], heads=8, head_dim=head_dim,
        image_width=width, image_layers=layers[0], image_heads=8, image_size=224, patch=14,
        vocabulary=600, chunk=CHUNK), NETWORK).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.embed_action_time.action_in_proj.register_forward_pre_hook(
        lambda module, inputs: (inputs[0].to(module.weight.dtype),))
    return model


def inputs(model: torch.nn.Module, cameras: int, tokens: int = 0, seed: int = 0) -> tuple:
    """Return pixels, prompt, state and noise where the model lies."""
    dice = torch.Generator().manual_seed(seed)
    device = model.action_out_proj.weight.device
    ids = torch.randint(2, 500, (tokens or PROMPT[NETWORK],), generator=dice).to(device)
    with torch.no_grad():
        prompt = Prompt(ids, model.model.vlm.get_input_embeddings()(ids))
    return (torch.rand(cameras, 3, 224, 224, generator=dice).to(device) * 2 - 1, prompt,
            torch.randn(32, generator=dice).to(device),
            torch.randn(CHUNK, 32, generator=dice).to(device))


def fast(engine: object) -> object:
    """Return an engine as a path that takes a prompt."""
    return lambda pixels, prompt, state, noise: engine(pixels, prompt.text, state, noise)


def graphs(engine: Engine) -> object:
    """Return an engine as a path of CUDA graphs, for prompts of one length."""
    return fast(Graphs(engine, engine.device))


def timed(paths: dict, given: tuple, rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of every path, called in turn."""
    out: dict[str, list[float]] = {name: [] for name in paths}
    for path in paths.values():
        path(*given)
    for _ in range(rounds):
        for name, path in paths.items():
            started = time.perf_counter()
            path(*given)
            out[name].append(1e3 * (time.perf_counter() - started))
    return out


def summary(values: list[float]) -> dict[str, float]:
    """Return median and spread."""
    return dict(zip(('p5', 'p50', 'p95', 'p99'), map(float, np.percentile(values,
                                                                          (5, 50, 95, 99)))))


def kernels() -> dict:
    """Count at real depth in bfloat16. What torch compiled is counted as it runs."""
    import torch._inductor.config as inductor
    from torch.profiler import profile, ProfilerActivity
    inductor.cpp.enable_kernel_profile = True
    model = network(64, (27, 18), torch.bfloat16, 16)
    given, out = inputs(model, CAMERAS), {}

    def compiled_count(steps: int) -> int:
        path = fast(Engine(model, steps, 900, compiled=True))
        path(*given), path(*given)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            path(*given)
        # A bias that addmm adds is copied on the processor only, so copies do not count.
        return sum(event.count for event in seen.key_averages()
                   if '_fused_' in event.key and event.key.startswith('graph_')
                   or event.key.removeprefix('aten::') in COMPUTES)

    ways = {'transformers': lambda steps: count_kernels(
                lambda path=Reference(model, steps): path(*given)),
            'fast': lambda steps: count_kernels(
                lambda path=fast(Engine(model, steps, 900)): path(*given)),
            'fast compiled': compiled_count}
    print(f'\nkernels, 27 / 18 / 18 layers, bfloat16, {CAMERAS} cameras, {PROMPT[NETWORK]} '
          f'tokens, {STEPS} steps\n{"":16}{"chunk":>8}{"step":>8}{"rest":>8}')
    for name, count in ways.items():
        one, ten = count(1), count(STEPS)
        step = (ten - one) / (STEPS - 1)
        out[name] = {'chunk': ten, 'step': step, 'rest': ten - STEPS * step}
        print(f'{name:16}{ten:8}{step:8.0f}{out[name]["rest"]:8.0f}')
    return out


def cpu() -> dict:
    """Time reduced widths at real token counts, float32, one thread."""
    out: dict = {}
    for title, width, layers, head_dim in (('width 256, 4 / 4 / 4 layers', 256, (4, 4), 32),
                                           ('width 64, 27 / 18 / 18 layers', 64, (27, 18), 16)):
        torch._dynamo.reset()
        model = network(width, layers, torch.float32, head_dim)
        paths = {'transformers': Reference(model, STEPS), 'fast': fast(Engine(model, STEPS, 900)),
                 'fast compiled': fast(Engine(model, STEPS, 900, compiled=True))}
        print(f'\n{title}, float32, {PROMPT[NETWORK]} tokens, chunk {CHUNK}, {STEPS} steps, one '
              'thread, '
              f'ms\n{"":16}{"cameras":>8}{"p50":>9}{"p5":>9}{"p95":>9}{"ratio":>8}')
        for cameras in (1, 2, 3):
            given = inputs(model, cameras)
            rows = {name: summary(values) for name, values in timed(paths, given, 15).items()}
            wanted = paths['transformers'](*given)
            for name, row in rows.items():
                row['ratio'] = row['p50'] / rows['transformers']['p50']
                row['difference'] = float((paths[name](*given) - wanted).abs().max()
                                          / wanted.abs().max())
                print(f'{name:16}{cameras:8}{row["p50"]:9.1f}{row["p5"]:9.1f}{row["p95"]:9.1f}'
                      f'{row["ratio"]:8.2f}')
            out.setdefault(title, {})[cameras] = rows
    return out


def growth() -> dict:
    """Fit lines through the time of the fast path over cameras, tokens and steps."""
    model, out = network(256, (4, 4), torch.float32), {}
    engines = {steps: fast(Engine(model, steps, 900)) for steps in (1, 4, 7, 10)}
    axes = {'camera': [(n, STEPS, n, 0) for n in (1, 2, 3)],
            'token': [(n, STEPS, 2, n) for n in (4, 18, 33, 48)],
            'step': [(n, n, 2, 0) for n in engines]}
    print('\ngrowth of the fast path, same network, ms')
    for name, points in axes.items():
        times = [summary(timed({'fast': engines[steps]}, inputs(model, cameras, tokens), 15)
                         ['fast'])['p50'] for _, steps, cameras, tokens in points]
        slope, start = np.polyfit([point[0] for point in points], times, 1)
        out[name] = {'each': float(slope), 'start': float(start), 'measured': times}
        print(f'{slope:8.2f} for each {name}, from {start:.1f}')
    return out


def demo() -> dict:
    """Time the demo checkpoint, whole inferences, one thread."""
    from pi0_ros.observation.observation import Observation
    from pi0_ros.policy.factory import DEMO
    from pi0_ros.policy.pi0 import Pi0Policy
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    paths = {}
    for name, engine, compiled in (('transformers', 'reference', 'off'), ('fast', 'fast', 'off'),
                                   ('fast compiled', 'fast', 'on')):
        policy = Pi0Policy(DEMO, device='cpu', engine=engine, compiled=compiled)
        policy.load()
        policy.warm_up()
        seen = Observation(0, policy.spec.state.middle, dict.fromkeys(policy.cameras, image), {},
                           'take the red block')
        paths[name] = lambda policy=policy, seen=seen: policy.infer(seen)
    rows = {name: summary(values) for name, values in timed(paths, (), 60).items()}
    print(f'\ndemo checkpoint, two 640x480 cameras, whole inference, one thread, ms\n{"":16}'
          f'{"p50":>9}{"p5":>9}{"p95":>9}')
    for name, row in rows.items():
        print(f'{name:16}{row["p50"]:9.1f}{row["p5"]:9.1f}{row["p95"]:9.1f}')
    return rows


def full() -> dict:
    """Load and run the full size in bfloat16 on the processor: seconds and peak memory."""
    def peak() -> float:
        return int(re.search(r'VmHWM:\s*(\d+)', Path('/proc/self/status').read_text())[1]) / 2**20

    torch.set_num_threads(2)
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        # In another process: what the writing needs must not count.
        subprocess.run([sys.executable, '-c', 'import sys; from pathlib import Path; from load '
                        'import write_checkpoint as write; write(Path(sys.argv[1]), sys.argv[2])',
                        folder, NETWORK], check=True, cwd=Path(__file__).parent)
        written = time.perf_counter()
        model = load_model(Path(folder), torch.bfloat16, torch.device('cpu'))
    loaded = time.perf_counter()
    engine = fast(Engine(model, STEPS, 900))
    packed = time.perf_counter()
    out = {'write_s': written - started, 'load_s': loaded - written, 'pack_s': packed - loaded,
           'chunk_s': {}}
    for cameras in (1, 3):
        given = inputs(model, cameras)
        times = timed({'fast': engine}, given, 2)['fast']
        out['chunk_s'][cameras] = min(times) / 1e3
    out['peak_gib'] = peak() - before
    print(f'\nfull size, bfloat16, two threads: loaded in {out["load_s"]:.1f} s, packed in '
          f'{out["pack_s"]:.1f} s, a chunk with 1 camera {out["chunk_s"][1]:.1f} s, with 3 '
          f'{out["chunk_s"][3]:.1f} s; peak memory {out["peak_gib"]:.2f} GiB')
    return out


def gpu() -> dict | str:
    """Time the full size on a GPU, four ways, and check that a replay is the eager result."""
    if not torch.cuda.is_available():
        print('\nGPU: not measured, torch finds none')
        return 'not measured'
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), NETWORK)
        started = time.perf_counter()
        model = load_model(Path(folder), torch.bfloat16, torch.device('cuda'))
        torch.cuda.synchronize()
    out: dict = {'load_s': time.perf_counter() - started}
    plain = Engine(model, STEPS, 900)
    torch.cuda.reset_peak_memory_stats()
    graphs(plain)(*inputs(model, 3))
    torch.cuda.synchronize()
    out['memory_gib'] = torch.cuda.max_memory_reserved() / 2**30
    # transformers' own code cannot be captured while its text table is on the host.
    table = model.model.vlm.get_input_embeddings().cuda()
    table._forward_pre_hooks.clear(), table._forward_hooks.clear()
    reference = Reference(model, STEPS)
    name = torch.cuda.get_device_name()
    floor = next((value for key, value in FLOOR_MS.items() if key in name), None)
    print(f'\n{name}, full size, bfloat16, loaded in {out["load_s"]:.1f} s, memory '
          f'{out["memory_gib"]:.2f} GiB, ms\n{"":24}{"cameras":>8}{"p50":>8}{"p99":>8}{"floor":>8}'
          f'{"captured s":>12}', flush=True)
    gpu_rows(model, {'transformers': reference, 'fast in a graph': plain}, floor, out)
    wanted = reference(*inputs(model, 3))
    out['difference'] = float((fast(plain)(*inputs(model, 3)) - wanted).abs().max()
                              / wanted.abs().max())
    print(f"fast differs from transformers by {out['difference']:.1e} of the largest action",
          flush=True)
    try:
        started = time.perf_counter()
        compiled = Engine(model, STEPS, 900, compiled=True)
        fast(compiled)(*inputs(model, 3))
        out['compile_s'] = time.perf_counter() - started
        print(f"compiled in {out['compile_s']:.0f} s", flush=True)
        gpu_rows(model, {'fast compiled in a graph': compiled}, floor, out)
    except Exception as error:
        out['compile'] = repr(error)[:300]
        print(f"compiling failed: {out['compile']}", flush=True)
    out['together'] = several(model)
    print(f"replay equals eager, A B A: {out['replay_equals_eager']}")
    return out


def gpu_rows(model: torch.nn.Module, of: dict, floor: tuple | None, out: dict) -> None:
    """Time paths, engines in graphs, for every number of cameras; print and keep the rows."""
    for cameras in (1, 2, 3):
        given, other = inputs(model, cameras), inputs(model, cameras, seed=1)
        paths = {name: graphs(one) if isinstance(one, Engine) else one
                 for name, one in of.items()}
        ready = {}
        for label, path in paths.items():
            torch.cuda.synchronize()
            started = time.perf_counter()
            path(*given)
            torch.cuda.synchronize()
            ready[label] = time.perf_counter() - started
        replay = captured(paths['transformers'], given) if 'transformers' in paths else None
        if replay:
            paths['transformers in a graph'] = replay
        waited = {label: lambda *values, path=path: (path(*values), torch.cuda.synchronize())
                  for label, path in paths.items()}
        for label, times in timed(waited, given, 50).items():
            row = {**summary(times), 'captured_s': ready.get(label, 0.0)}
            row['of_floor'] = floor[cameras - 1] / row['p50'] if floor else None
            print(f'{label:24}{cameras:8}{row["p50"]:8.2f}{row["p99"]:8.2f}'
                  f'{row["of_floor"] or 0:8.0%}{row["captured_s"]:12.2f}', flush=True)
            out.setdefault(label, {})[cameras] = row
        for engine in of.values():
            if isinstance(engine, Engine):
                graph, eager = graphs(engine), fast(engine)
                same = all(torch.equal(graph(*x), eager(*x)) for x in (given, other, given))
                out.setdefault('replay_equals_eager', []).append(same)


def several(model: torch.nn.Module) -> dict:
    """Time questions that are computed together, three cameras each, as CUDA graphs."""
    compute, out = Together(model, STEPS), {}
    print(f'\n{"together":>24}{"ms":>8}{"each":>8}{"apart":>10}')
    for count in (2, 4, 8):
        asked = []
        for seed in range(count):
            pixels, prompt, state, noise = inputs(model, 3, seed=seed)
            asked.append(Question(pixels, prompt, state, noise))
        row = summary(timed({'': lambda: (compute(asked), torch.cuda.synchronize())}, (), 30)[''])
        got = compute(asked)
        wanted = [Reference(model, STEPS)(one.pixels, one.prompt, one.state, one.noise)
                  for one in asked]
        row['difference'] = max(float((a - b).abs().max() / b.abs().max())
                                for a, b in zip(got, wanted))
        out[count] = row
        print(f'{count:24}{row["p50"]:8.1f}{row["p50"] / count:8.1f}{row["difference"]:10.1e}',
              flush=True)
    return out


def captured(path: Reference, given: tuple) -> object | None:
    """Return transformers' own code as one CUDA graph, for these inputs, if that is possible."""
    path(*given)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            out = path(*given)
    except RuntimeError as error:
        torch.cuda.set_stream(stream)
        print(f'transformers cannot be captured: {str(error).splitlines()[0]}')
        return None
    return lambda *values: (graph.replay(), out)[1]


def main() -> None:
    """Run every part in a process of its own, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--out', type=Path, default=Path('out/engine.json'))
    parser.add_argument('--network', choices=tuple(PROMPT), default='pi0')
    parser.add_argument('--part', choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    global NETWORK
    NETWORK = args.network
    if args.part:
        torch.set_num_threads(1)
        args.out.write_text(json.dumps(globals()[args.part](), indent=1) + '\n')
        return
    print(f'{machine()}; {args.network}')
    results: dict = {'machine': machine(), 'network': args.network}
    for part in args.only:
        subprocess.run([sys.executable, __file__, '--part', part, '--out', str(args.out),
                        '--network', args.network], check=True)
        results[part] = json.loads(args.out.read_text())
    args.out.write_text(json.dumps(results, indent=1) + '\n')


if __name__ == '__main__':
    main()
