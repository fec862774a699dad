# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Many bags at once: the same bytes whoever made them, whatever dies meanwhile."""

from contextlib import contextmanager
import errno
from functools import partial
import hashlib
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
import json
import os
import re
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

from bags import Tape
import numpy as np
from pi0_ros import jobs
from pi0_ros.bags import stores
from pi0_ros.bags.bag import BagError
from pi0_ros.dataset.manifest import Manifest, only_one
from pi0_ros.dataset.part import Part
from pi0_ros.dataset.writer import DatasetWriter
from pi0_ros.jobs import JobError, Runner
from pi0_ros.verbs import export
import pytest

ROOT = Path(__file__).parents[1]
BAGS = 5


# What workers do; they are found by their names in this module.

def double(value):
    return 2 * value


def refuse(value):
    if value == 'disk':
        raise OSError(errno.ENOSPC, 'No space left on device', '/data')
    raise ValueError(f'{value} is wrong')


def die(job):
    """Die so often as the file of the job says."""
    left = int(job.read_text())
    if left:
        job.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return job.name


def lack(job):
    """Lack something on the machines that a file names; others wait until one has said so."""
    import ray
    said = job.with_name('said')
    if ray.get_runtime_context().get_node_id() not in job.read_text():
        wait_for(said)
        return job.name
    said.touch()
    if job.name == 'power':
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    raise {'disk': OSError(errno.ENOSPC, 'No space left on device', '/data'),
           'module': ModuleNotFoundError("No module named 'av'")}[job.name]


def fill(job):
    """Fill the disk of the first machine, once; another job there ends when it is told to."""
    import ray
    folder, second = job
    if ray.get_runtime_context().get_node_id() == second:
        (folder / 'there').touch()
        wait_for(folder / 'full')
        return 'second'
    wait_for(folder / 'there')  # else the next job comes here, too
    try:
        (folder / 'full').touch(exist_ok=False)
    except FileExistsError:
        wait_for(folder / 'over')
        return 'first'
    raise OSError(errno.ENOSPC, 'No space left on device', '/data')


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def results(runner, work, given):
    return {number: (out, error) for number, out, error in runner.run(
        work, given, dict.fromkeys(given, 1))}


@pytest.mark.parametrize('count', [1, 2, 4])
def test_every_job_is_done_once(count):
    found = list(Runner(count).run(double, {n: n for n in range(9)}, dict.fromkeys(range(9), 1)))
    assert sorted(found) == [(n, 2 * n, None) for n in range(9)]


@pytest.mark.parametrize('count', [1, 2])
def test_what_goes_wrong_comes_as_an_error(count):
    found = results(Runner(count), refuse, {0: 'this', 1: 'disk'})
    assert isinstance(found[0][1], ValueError) and str(found[0][1]) == 'this is wrong'
    assert isinstance(found[1][1], OSError) and found[1][1].errno == errno.ENOSPC


def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(tmp_path):
    for name, times in (('well', 0), ('twice', 2), ('ever', 9)):
        (tmp_path / name).write_text(str(times))
    given = dict(enumerate(sorted(tmp_path.iterdir())))
    found = {given[number].name: outcome for number, outcome in results(
        Runner(2), die, given).items()}
    assert found['well'] == ('well', None) and found['twice'] == ('twice', None)
    assert isinstance(found['ever'][1], JobError)
    assert 'died 3 times, the last time by SIGKILL: out of memory' in str(found['ever'][1])
    assert (tmp_path / 'ever').read_text() == '6'


def test_usual_jobs_leave_memory_to_each(monkeypatch):
    assert 1 <= jobs.usual_jobs() <= os.cpu_count()
    monkeypatch.setattr(jobs, 'MEMORY', 2**60)
    assert jobs.usual_jobs() == 1


def test_half_a_line_is_forgotten_and_the_last_word_counts(tmp_path):
    (tmp_path / 'd').mkdir()
    path = tmp_path / 'd' / 'bags.jsonl'
    first = Manifest(path, {'fps': 5})
    first.tell(0, 'failed', reason='no disk')
    first.tell(0, 'done', told=[])
    first.tell(1, 'failed', reason='damaged')
    with path.open('a') as file:
        file.write('{"number": 2, "sta')
    again = Manifest(path, {'fps': 5})
    assert again.done(0)['told'] == [] and again.done(1) is None and again.done(2) is None
    again.tell(2, 'done', told=['x'])
    assert Manifest(path, {'fps': 5}).done(2)['told'] == ['x']
    with pytest.raises(ValueError, match='the beginning of another data set'):
        Manifest(path, {'fps': 6})


# Export.

def tape(path, number, length=1600):
    """Write a bag with an instruction of its own, a swing and pictures."""
    out = Tape(path)
    for at_ms in range(0, length, 20):
        out.joints(at_ms, [np.sin(at_ms / 300 + number), 0.1 * number])
        if at_ms % 40 == 0:
            out.image(at_ms, (at_ms // 40 + 30 * number) % 255)
        if at_ms == 40:
            out.say(at_ms, f'task {number % 3}')
    return out.close()


@pytest.fixture(scope='module')
def bags(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bags')
    return [tape(folder / f'{number}', number, 1200 + 200 * number) for number in range(BAGS)]


def command(bags, folder, *more):
    return [*map(str, bags), '--dataset', str(folder), '--fps', '25', *map(str, more)]


def content(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*')) if path.is_file()}


@pytest.fixture(scope='module')
def wanted(bags, tmp_path_factory):
    folder = tmp_path_factory.mktemp('one') / 'set'
    assert export.main(command(bags, folder, '--jobs', 1)) == 0
    out = content(folder)
    assert sum(name.endswith('.parquet') for name in out) == BAGS + 2
    return out


@pytest.mark.parametrize('count', [2, 4])
def test_the_data_set_is_the_same_byte_for_byte(bags, wanted, tmp_path, count, capsys):
    assert export.main(command(bags, tmp_path / 'set', '--jobs', count)) == 0
    assert content(tmp_path / 'set') == wanted
    assert not list(tmp_path.glob('*.partial'))
    told = capsys.readouterr()
    assert [told.out.index(f'messages of {bag}\n') for bag in bags] == sorted(
        told.out.index(f'messages of {bag}\n') for bag in bags)
    assert f'{BAGS} of {BAGS}' in told.err


def episodes(partial):
    """Return how many there are in the parts; none where a process is taking these away."""
    try:
        return sum(path.read_bytes().count(b'\n')
                   for path in partial.glob('parts/*/episodes.jsonl'))
    except FileNotFoundError:
        return 0


def test_killed_three_times_it_ends_the_same(bags, wanted, tmp_path):
    dice, folder, seen, kills = random.Random(8), tmp_path / 'set', 0, 0
    partial, words = tmp_path / 'set.partial', command(bags, folder, '--jobs', 2)
    while kills < 3:
        process = subprocess.Popen([sys.executable, '-m', 'pi0_ros', 'export', *words], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = seen + dice.randint(1, 2)  # episodes; then it dies
        end = time.monotonic() + 600
        while process.poll() is None:
            assert time.monotonic() < end
            if episodes(partial) >= goal:
                process.kill()
        process.wait()
        if folder.exists():  # it was done before it was hit: once more
            shutil.rmtree(folder)
            seen = 0
            continue
        assert process.returncode == -signal.SIGKILL
        seen, kills = episodes(partial), kills + 1
    assert export.main(command(bags, folder, '--jobs', 2)) == 0
    assert content(folder) == wanted


@pytest.mark.parametrize('count', [1, 2])
def test_a_bag_that_cannot_be_read_fails_alone(bags, tmp_path, count, capsys):
    bad = tmp_path / 'bad'
    bad.mkdir()
    (bad / 'bad_0.mcap').write_bytes(b'no bag at all')
    given = [bad, *bags[:2], tmp_path / 'nowhere']
    assert export.main(command(given, tmp_path / 'set', '--jobs', count)) == 1
    said = capsys.readouterr().err
    assert f"'{bad}' is not in it: bag" in said and "nowhere' does not exist" in said
    told = json.loads((tmp_path / 'set/meta/pi0_ros.json').read_text())['bags']
    assert [(one['bag'], one.get('episodes')) for one in told] == [
        ('bad', None), ('nowhere', None), ('0', 1), ('1', 1)]
    assert 'does not exist' in told[1]['failed']


def test_what_fails_while_it_is_read_fails_alone_too(bags, tmp_path, monkeypatch, capsys):
    make = export.export.__globals__['make_part']

    def refusing(job):
        if job.number == 1:
            raise ValueError('its middle is damaged')
        return make(job)

    with monkeypatch.context() as patched:
        patched.setitem(export.export.__globals__, 'make_part', refusing)
        assert export.main(command(bags[:3], tmp_path / 'set', '--jobs', 1)) == 1
    assert f"'{bags[1]}' is not in it: its middle is damaged" in capsys.readouterr().err
    alone = command([bags[0], bags[2]], tmp_path / 'two', '--jobs', 1)
    assert export.main(alone) == 0
    mine, two = content(tmp_path / 'set'), content(tmp_path / 'two')
    assert {name: value for name, value in mine.items() if name != 'meta/pi0_ros.json'} == {
        name: value for name, value in two.items() if name != 'meta/pi0_ros.json'}


def test_a_bag_that_grows_fails_alone(bags, tmp_path, monkeypatch, capsys):
    growing, add = shutil.copytree(bags[0], tmp_path / 'growing'), Part.add

    def record(self, *given):
        file, = growing.glob('*.mcap')
        os.utime(file)
        add(self, *given)

    monkeypatch.setattr(Part, 'add', record)
    assert export.main(command([growing, bags[1]], tmp_path / 'set', '--jobs', 1)) == 1
    assert "growing' is not in it: bag" in (said := capsys.readouterr().err)
    assert 'was written to while it was read: it is being recorded or copied. End that' in said
    monkeypatch.undo()
    assert export.main(command(bags[1:2], tmp_path / 'one', '--jobs', 1)) == 0
    assert content(tmp_path / 'set/data') == content(tmp_path / 'one/data')


def test_a_bag_that_grew_before_it_is_exported_fails_alone(bags, tmp_path, monkeypatch, capsys):
    growing, make = shutil.copytree(bags[0], tmp_path / 'growing'), export.export.__globals__[
        'make_part']

    def record(job):
        file, = growing.glob('*.mcap')
        shutil.copy(longer, file)
        return make(job)

    longer, = bags[2].glob('*.mcap')
    assert longer.stat().st_size != next(growing.glob('*.mcap')).stat().st_size
    told = command([growing, bags[1]], tmp_path / 'set', '--jobs', 1)
    with monkeypatch.context() as patched:
        patched.setitem(export.export.__globals__, 'make_part', record)
        assert export.main(told) == 1
    said = capsys.readouterr().err
    assert "growing' was written to since it was looked at: it is being recorded or copied" in said
    assert export.main(command(bags[1:2], tmp_path / 'one', '--jobs', 1)) == 0
    assert content(tmp_path / 'set/data') == content(tmp_path / 'one/data')


def test_two_exports_into_one_folder(bags, tmp_path, capsys):
    partial = tmp_path / 'set.partial'
    partial.mkdir()
    unlock = only_one(partial)
    for more in ((), ('--overwrite',)):
        assert export.main(command(bags, tmp_path / 'set', '--jobs', 1, *more)) == 1
        assert 'another export is writing' in capsys.readouterr().err and partial.exists()
    unlock()
    assert export.main(command(bags[:1], tmp_path / 'set', '--jobs', 1)) == 0


def test_a_part_that_is_gone_is_missed(bags, tmp_path, monkeypatch, capsys):
    """As on a cluster whose machines do not see the same folders."""
    words = command(bags[:2], tmp_path / 'set', '--jobs', 1)
    with monkeypatch.context() as patched:
        patched.setattr(DatasetWriter, 'take', lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export.main(words)
    shutil.rmtree(tmp_path / 'set.partial/parts/000000')
    assert export.main(words) == 1
    assert 'has 0 episodes, 1 were written: say --overwrite' in capsys.readouterr().err
    assert not (tmp_path / 'set').exists()


def test_ended_between_name_and_tidying_it_is_whole(bags, wanted, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        tidy = shutil.rmtree

        def ended(path, *given, **more):
            if Path(path).name == 'set.partial':
                raise KeyboardInterrupt
            tidy(path, *given, **more)

        patched.setattr('pi0_ros.dataset.writer.shutil.rmtree', ended)
        assert export.main(command(bags, tmp_path / 'set', '--jobs', 1)) == 130
    assert content(tmp_path / 'set') == wanted


def test_another_setting_is_another_export(bags, tmp_path, monkeypatch, capsys):
    words = command(bags[:2], tmp_path / 'set', '--jobs', 1)
    parameters = tmp_path / 'p.yaml'
    text = '/**:\n  ros__parameters:\n    joint_names: [a, b]\n    cameras: [camera_1]\n'
    parameters.write_text(text)
    words += ['--params-file', str(parameters)]
    with monkeypatch.context() as patched:
        patched.setattr(DatasetWriter, 'take', lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export.main(words)
    parameters.write_text(text + '    rotate: [90]\n')
    assert export.main(words) == 1
    assert 'the beginning of another data set' in capsys.readouterr().err


@pytest.mark.parametrize('first', [True, False])
def test_a_bag_without_joints_fails_alone_wherever_it_is(bags, tmp_path, first, capsys):
    out = Tape(tmp_path / 'blind')
    out.say(0, 'go')
    blind = out.close()
    given = [blind, bags[0]] if first else [bags[0], blind]
    assert export.main(command(given, tmp_path / 'set', '--jobs', 1)) == 1
    assert f"'{blind}' is not in it" in capsys.readouterr().err
    assert (tmp_path / 'set/meta/info.json').exists()


def test_a_disk_that_is_full_at_the_end_of_a_video_does_not_hang(tmp_path):
    code = ("import resource, signal, numpy as np; from pathlib import Path; "
            "from types import SimpleNamespace as N; "
            "from pi0_ros.dataset.video import CameraVideo; "
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
            "v = CameraVideo(Path('v.mp4'), 10, 'h264'); "
            "[v.add(N(__msgtype__='sensor_msgs/msg/Image', height=64, width=64, step=192, "
            "encoding='rgb8', is_bigendian=0, data=np.random.randint(0, 255, 12288, np.uint8)"
            ".tobytes())) for _ in range(4)]; v.close()")
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, timeout=600,
                          capture_output=True, text=True, env=os.environ | {
                              'PYTHONPATH': str(ROOT)})
    assert done.returncode == 1 and 'OSError' in done.stderr


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('PI0_ROS_BAG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def test_bags_that_lie_elsewhere_are_the_same(bags, wanted, tmp_path, cache):
    given = [f'file://{bag}' for bag in bags]
    assert export.main(command(given, tmp_path / 'set', '--jobs', 2)) == 0
    assert content(tmp_path / 'set') == wanted
    assert len(list(cache.iterdir())) == BAGS


def test_a_bag_on_a_web_server(bags, tmp_path, cache):
    pytest.importorskip('aiohttp', reason='fsspec reads http with aiohttp')
    file, = bags[0].glob('*.mcap')
    handler = partial(SimpleHTTPRequestHandler, directory=str(file.parent))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f'http://127.0.0.1:{server.server_port}/'
        assert export.main(command([there + file.name], tmp_path / 'set')) == 0
        assert stores.here(there + file.name).read_bytes() == file.read_bytes()
        server.shutdown()


def test_a_copy_is_whole_and_of_what_is_there_now(tmp_path, cache, monkeypatch):
    import fsspec
    files = fsspec.filesystem('memory')
    files.pipe('/month/monday/metadata.yaml', b'one')
    files.pipe('/month/monday/monday_0.mcap', bytes(100))
    first = stores.here('memory://month/monday')
    assert sorted(path.name for path in first.iterdir()) == ['metadata.yaml', 'monday_0.mcap']
    assert first.name == 'monday' and stores.here('memory://month/monday') == first
    files.pipe('/month/monday/monday_0.mcap', bytes(200))
    again = stores.here('memory://month/monday')
    assert again != first and (again / 'monday_0.mcap').stat().st_size == 200

    def cut(self, source, target, **more):
        Path(target).write_bytes(b'half')
        raise ConnectionError('the network is gone')

    files.pipe('/month/tuesday/tuesday_0.mcap', bytes(300))
    with monkeypatch.context() as patched:
        patched.setattr(type(files), 'get_file', cut)
        with pytest.raises(BagError, match='cannot be fetched: ConnectionError: the network'):
            stores.here('memory://month/tuesday')
    assert not [path for path in cache.rglob('tuesday*')]
    assert not list(cache.glob('part-*'))


def test_the_cache_keeps_its_bound(cache, monkeypatch):
    import fsspec
    files = fsspec.filesystem('memory')
    monkeypatch.setenv('PI0_ROS_BAG_CACHE_GIB', str(2500 / 2**30))
    for name in 'abc':
        files.pipe(f'/bound/{name}/{name}.mcap', bytes(1000))
    a, b = (stores.here(f'memory://bound/{name}') for name in 'ab')
    os.utime(b.parent, (1, 1))
    c = stores.here('memory://bound/c')
    assert a.exists() and c.exists() and not b.exists()
    files.pipe('/bound/large/large.mcap', bytes(3000))
    with pytest.raises(BagError, match='GiB, the cache .*: set PI0_ROS_BAG_CACHE_GIB higher'):
        stores.here('memory://bound/large')
    assert a.exists()


@pytest.mark.parametrize('bag, why', [
    ('memory://nowhere/monday', "bag 'memory://nowhere/monday' does not exist"),
    ('wrong://there/monday', 'cannot be fetched: ValueError: Protocol not known: wrong'),
    ('s3://bucket/monday', "bag 's3://bucket/monday'.*s3fs")])
def test_what_cannot_be_fetched_says_why(cache, bag, why):
    with pytest.raises(BagError, match=why):
        stores.here(bag)


def test_without_ray_it_says_what_to_install(bags, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs.importlib.util, 'find_spec', lambda name: None)
    assert export.main(command(bags, tmp_path / 'set', '--ray', 'local')) == 1
    assert 'this needs Ray: pip install' in capsys.readouterr().err


@pytest.fixture(scope='module')
def machines():
    """Yield the address of a cluster of two machines, as Ray sees them, and one's number."""
    pytest.importorskip('ray', reason='needs Ray')
    with cluster_of_two() as made:
        yield made


@contextmanager
def cluster_of_two(cpus=1, node=lambda one: one.node_id):
    """Yield an address and what is wanted of the second machine; the first has some cores."""
    from ray.cluster_utils import Cluster
    with pytest.MonkeyPatch.context() as patched:  # where workers find this module
        patched.setenv('PYTHONPATH', f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}")
        made = Cluster(initialize_head=True, head_node_args={
            'num_cpus': cpus, 'include_dashboard': False, 'num_gpus': 0})
        yield made.address, node(made.add_node(num_cpus=1))
    made.shutdown()


@pytest.mark.parametrize('what, said', [
    ('disk', 'No space left on device (on machine 127'),
    ('module', "No module named 'av'; what the package needs must be installed there, too")])
def test_a_machine_that_lacks_something_gets_no_more(machines, tmp_path, caplog, what, said):
    address, node = machines
    job = tmp_path / what
    job.write_text(node)
    found = results(Runner(ray=address), lack, dict.fromkeys(range(6), job))
    assert found == dict.fromkeys(range(6), (what, None))
    warned, = [one.message.replace(address.partition(':')[0], '127') for one in caplog.records]
    assert said in warned and warned.endswith('another could, and this one gets no more')


def test_what_no_machine_can_do_says_nothing_of_machines(machines, tmp_path, caplog):
    job = tmp_path / 'disk'
    job.write_text(' '.join(every_node(machines[0])))
    found = results(Runner(ray=machines[0]), lack, dict.fromkeys(range(3), job))
    for out, error in found.values():
        assert out is None and error.errno == errno.ENOSPC and 'of the cluster' in str(error)
    assert not caplog.records


def test_a_machine_that_is_gone_leaves_its_job_to_another(tmp_path):
    pytest.importorskip('ray', reason='needs Ray')
    job = tmp_path / 'power'
    with cluster_of_two() as (address, node):
        job.write_text(node)
        found = results(Runner(ray=address), lack, dict.fromkeys(range(4), job))
    assert found == dict.fromkeys(range(4), ('power', None))


def test_what_runs_is_not_given_up_with_a_machine_that_is_gone(tmp_path, monkeypatch):
    """The first machine is found unfit while it does something; then the second one is gone."""
    pytest.importorskip('ray', reason='needs Ray')
    able, found = jobs._able, {}
    with cluster_of_two(2, lambda one: one) as (address, second):
        def look(*given):
            if second.node_id not in (seen := able(*given)):
                (tmp_path / 'over').touch()
            return seen

        monkeypatch.setattr(jobs, '_able', look)
        for number, out, error in Runner(ray=address).run(
                fill, dict.fromkeys(range(3), (tmp_path, second.node_id)),
                dict.fromkeys(range(3), 1)):
            found[number] = (out, error)
            if len(found) == 2:
                second.kill_raylet(check_alive=False)
    assert sorted(found.values(), key=str) == [('first', None), ('second', None),
                                               ('second', None)]


def test_a_machine_that_does_not_see_the_folder_is_told(machines, tmp_path):
    found = list(Runner(ray=machines[0]).run(double, {0: 1}, {0: 1}, lambda job: [
        tmp_path / 'nowhere']))
    (number, out, error), = found
    assert out is None and f"'{tmp_path / 'nowhere'}'" in str(error)
    assert 'No such file or directory (on machine' in str(error)


def every_node(address):
    with jobs.cluster(address) as ray:
        return [one['NodeID'] for one in ray.nodes()]


def test_the_same_from_a_ray_cluster(bags, wanted, tmp_path):
    pytest.importorskip('ray', reason='needs Ray')
    assert export.main(command(bags, tmp_path / 'set', '--ray', 'local')) == 0
    assert content(tmp_path / 'set') == wanted
    with pytest.raises(JobError, match='no Ray cluster answers at'):
        next(Runner(ray='127.0.0.1:1').run(double, {0: 1}, {0: 1}))


@pytest.mark.parametrize('text,cause,said', [
    ('Version mismatch: The cluster was started with:\n  Ray: 2.60.0\n  Python: 3.11.7\nThis '
     'process was started with:\n  Ray: 2.59.0', None,
     r'of another version: .*Ray: 2\.60\.0 Python: 3\.11\.7 .*install the same Ray and Python'),
    ('Failed to connect to Ray cluster at x:6379',
     RuntimeError('Failed to connect to GCS. ray.exceptions.AuthenticationError: RPC error'),
     r'asks for its token: set RAY_AUTH_MODE=token, and copy ~/\.ray/auth_token'),
    ('Failed to connect to Ray cluster at x:6379', None, "'ray start --head' makes one")])
def test_a_cluster_that_cannot_be_used_is_told(text, cause, said):
    """Texts as Ray 2.60 has them."""
    error = ConnectionError(text)
    error.__cause__ = cause
    assert re.search(said, jobs._refusal('x:6379', error))
