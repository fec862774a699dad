# Copyright 2026 pi0_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""openpi's messages: byte for byte, and nothing else."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import msgpack
import numpy as np
from pi0_ros.remote import schemas, wire
from pi0_ros.remote.schemas import Image, named, ours, parse
import pytest
from support import DATA

GOLDEN = sorted((DATA / 'openpi_remote').glob('*.msgpack'), key=lambda path: path.name)


def golden_arrays():
    with np.load(DATA / 'openpi_remote' / 'arrays.npz') as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_golden_messages_are_read_and_written_byte_for_byte(path):
    message = path.read_bytes()
    tree = wire.unpack(message)
    assert wire.pack(tree) == message
    found = {name: array for name, array in golden_arrays().items()
             if name.split('|')[0] == path.stem}
    for name, array in found.items():
        value = tree
        for key in name.split('|')[1:]:
            value = value[key]
        assert value.dtype == array.dtype
        np.testing.assert_array_equal(value, array)
        assert not isinstance(value, np.ndarray) or not value.flags.writeable
    assert found or 'metadata' in path.stem


kinds = st.sampled_from(['<f4', '<f8', '|u1', '<i8', '<i2', '|b1', '<f2', '>f4', '<U3', '|S4'])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(-2**63, 2**63 - 1), st.floats(allow_nan=False),
    st.text(max_size=9), st.binary(max_size=9),
    kinds.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(
        min_dims=0, max_dims=3, min_side=0, max_side=4))))
trees = st.dictionaries(st.text(max_size=5), st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=5), inner, max_size=3), max_leaves=8), max_size=4)


def same(one, other):
    if isinstance(one, np.ndarray):
        return (isinstance(other, np.ndarray) and one.dtype == other.dtype
                and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@given(trees)
def test_what_is_packed_is_unpacked(tree):
    assert same(tree, wire.unpack(wire.pack(tree)))


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_map_or_refused(message):
    try:
        assert isinstance(wire.unpack(message), dict)
    except wire.WireError:
        pass


@given(st.sampled_from(GOLDEN), st.data())
def test_a_damaged_message_is_a_map_or_refused(path, data):
    message = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] = data.draw(st.integers(0, 255))
    for damaged in (bytes(message), bytes(message[:at])):
        try:
            assert isinstance(wire.unpack(damaged), dict)
        except wire.WireError:
            pass


def array(changes=None):
    return msgpack.packb({'a': {b'__ndarray__': True, b'data': bytes(8), b'dtype': '<f8',
                                b'shape': [1], **(changes or {})}})


@pytest.mark.parametrize('message, why', [
    ('text', 'text'), (b'', 'cannot be read'), (msgpack.packb([1]), 'is a list'),
    (msgpack.packb({'a': msgpack.ExtType(4, b'x')}), 'cannot be read|extension type'),
    (msgpack.packb({'a': msgpack.Timestamp(1)}), 'cannot be read|extension'),
    (array({'a': 1}), None), (msgpack.packb({'a': {b'__ndarray__': True}}), 'type None'),
    (array().replace(b'<f8', b'|O8'), 'refused|none'), (b'\xdf\xff\xff\xff\xff', 'cannot'),
    (b'\x81\xa1a\xc6\x40\x00\x00\x00', 'cannot be read'),  # says that a gigabyte follows
    (b'\x81\xa1a' + 40 * b'\x91' + b'\x00', 'deep'),
    (b'\x81\xa1a' + 2000 * b'\x91' + b'\x00', 'deep|cannot be read'),
    (bytes(wire.MOST + 1), 'allowed are')])
def test_what_is_refused(message, why):
    if why is None:
        assert wire.unpack(message)['a'].shape == (1,)
        return
    with pytest.raises(wire.WireError, match=why):
        wire.unpack(message)


@pytest.mark.parametrize('changes, why', [
    ({b'shape': [2]}, 'has 8 bytes'), ({b'shape': [-1]}, 'is damaged'), ({b'shape': 1}, 'damaged'),
    ({b'shape': [2**40, 2**40]}, 'bytes'), ({b'shape': [True]}, 'damaged'),
    ({b'dtype': 'O'}, 'refused'), ({b'dtype': 'V8'}, 'refused'), ({b'dtype': '<c8'}, 'refused'),
    ({b'dtype': '<M8[s]'}, 'refused'), ({b'dtype': [['x', '<f8']]}, 'none|refused'),
    ({b'dtype': 'os.system'}, 'none'), ({b'data': 'text'}, 'damaged'),
    ({b'dtype': 'f8,f8'}, 'refused')])
def test_arrays_that_are_none(changes, why):
    with pytest.raises(wire.WireError, match=why):
        wire.unpack(array(changes))


@pytest.mark.parametrize('value', [np.array([object()]), np.zeros(2, 'c8'), np.zeros(2, 'M8[s]'),
                                   {1, 2}, object(), 2**70])
def test_what_cannot_be_sent(value):
    with pytest.raises(wire.WireError, match='cannot be sent'):
        wire.pack({'a': value})


# ---- schemas ----

def test_the_requests_of_aloha_and_droid_are_openpis():
    """Whole requests, from state, images and text, as openpi's own clients send them."""
    for case, name, width in (('request_aloha', 'aloha', 14), ('request_droid', 'droid', 8)):
        wanted = wire.unpack((DATA / 'openpi_remote' / f'{case}.msgpack').read_bytes())
        schema = named(name)
        state, images, text = schema.observation(wanted)
        assert state.shape == (width,) and text == wanted['prompt']
        assert all(image.shape == (4, 6, 3) for image in images.values())
        again = schema.request(state, images, text)
        assert again.keys() == wanted.keys()
        for path, image in schema.images.items():
            if image.camera in images:
                value = wanted
                for key in path:
                    value = value[key]
                assert again_at(again, path).shape[-3:] in ((3, 224, 224), (224, 224, 3))
        for path in schema.states:
            np.testing.assert_allclose(again_at(again, path), again_at(wanted, path), rtol=1e-6)


def again_at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def test_a_schema_of_ones_own():
    schema = parse(['image: camera front, hwc, 100x120, stretch', 'joints: state, 0 to 5, float32',
                    'images.wrist: camera wrist, chw, 64x64, float32', 'grip: state, 6 to 6',
                    'task: instruction'])
    grey = np.full((48, 64, 3), 51, np.uint8)
    got = schema.request(np.arange(7.0), {'front': grey, 'wrist': grey}, 'go')
    assert got['image'].shape == (100, 120, 3) and (got['image'] == 51).all()
    assert got['images']['wrist'].shape == (3, 64, 64) and got['images']['wrist'].dtype == 'f4'
    assert got['images']['wrist'].max() == np.float32(0.2)
    assert not got['images']['wrist'][:, 0].any(), 'a letterbox'
    assert got['joints'].dtype == np.float32 and got['joints'].tolist() == [0, 1, 2, 3, 4, 5]
    assert got['grip'].tolist() == [6.0] and got['task'] == 'go'
    assert 'wrist' not in schema.request(np.arange(7.0), {'front': grey}, 'go').get('images', {})
    state, images, text = schema.observation(got)
    np.testing.assert_array_equal(state, np.arange(7.0))
    assert images['wrist'].shape == (64, 64, 3) and images['wrist'].max() == 51 and text == 'go'


@pytest.mark.parametrize('texts, why', [
    (['a: photo front'], "'a: photo front'"), (['a: camera front, big'], "has 'big'"),
    (['a: camera front', 's: state, all'], "has 'all'"), (['a: camera front'], 'needs a camera'),
    (['s: state'], 'needs a camera and a state'), ([], 'nothing')])
def test_a_schema_that_says_nothing_is_refused(texts, why):
    with pytest.raises(ValueError, match=why):
        parse(texts)


def test_every_name_that_can_be_set_is_a_schema():
    from pi0_ros.policy.config import SCHEMAS
    assert set(schemas.NAMES) == set(SCHEMAS)
    for name in SCHEMAS:
        if name not in ('custom', 'pi0_ros'):
            assert named(name).cameras and named(name).instruction == ('prompt',)


@pytest.mark.parametrize('change, why', [
    ({'state': None}, "lacks 'state'"), ({'state': ['x']}, "'state' is"),
    ({'state': np.array([np.nan])}, 'finite'), ({'prompt': 3}, "'prompt' is 3"),
    ({'images': {'front': np.zeros((4, 4), np.uint8)}}, 'has shape'),
    ({'images': {'front': np.zeros((4, 4, 4), np.uint8)}}, 'has shape'),
    ({'images': {'front': np.zeros((0, 4, 3), np.uint8)}}, 'has shape'),
    ({'images': {'front': np.zeros((4, 4, 3), np.int64)}}, 'is int64'),
    ({'images': {'front': np.full((4, 4, 3), np.nan)}}, 'not finite'),
    ({'images': {'front': 'x'}}, 'no array')])
def test_a_question_that_is_none(change, why):
    good = {'state': np.zeros(3), 'prompt': 'go',
            'images': {'front': np.zeros((4, 4, 3), np.uint8)}}
    assert ours(('front',)).observation(good)
    with pytest.raises(ValueError, match=why):
        ours(('front',)).observation({**good, **change})


def test_floats_and_channels_of_clients():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for one in (Image('a'), Image('a', first=True)):
        np.testing.assert_array_equal(one.unpacked(one.packed(image)), image)
        floats = one.packed(image).astype(np.float32) / 255
        assert np.abs(one.unpacked(floats).astype(int) - image).max() <= 1
