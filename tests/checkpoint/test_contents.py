"""What a file holds: weights at any depth, averaged copies, networks below prefixes."""

from __future__ import annotations

import pathlib

import pytest
import torch

from bnet_mm.checkpoint import contents_of, read_checkpoint
from bnet_mm.checkpoint.prefixes import beginnings, below, prefixes_of
from bnet_mm.errors import InputError

STATE = {'conv1.weight': torch.ones(2, 2, 1, 1), 'bn1.bias': torch.ones(2)}
AVERAGED = {name: value + 1 for name, value in STATE.items()}


def under(prefix, state=None):
    return {prefix + name: value for name, value in (state or STATE).items()}


@pytest.mark.parametrize(
    'checkpoint',
    [
        {'classy_state_dict': {'base_model': {'model': {'trunk': STATE}}}},
        {'model_state_dict': STATE, 'optimizer_state_dict': {'state': {0: torch.ones(2)}}},
        {
            **{'state_dict': STATE, 'loops': {}, 'callbacks': {'ema': {'w': torch.ones(1)}}},
            **{'pytorch-lightning_version': '2.4.0', 'hyper_parameters': {'lr': 0.1}},
        },
    ],
)
def test_the_weights_are_found_at_any_depth(checkpoint):
    contents = contents_of(checkpoint)
    assert list(contents.state) == list(STATE) and contents.unexplained == []


def test_a_dictionary_that_holds_itself():
    inner = {'weight': torch.ones(1)}
    inner['again'] = inner
    assert list(contents_of({'a': inner}).state) == ['weight']
    deep = {'weight': torch.ones(1)}
    for _ in range(5000):
        deep = {'a': deep}
    with pytest.raises(InputError, match='no tensors by name'):
        contents_of(deep)


def test_of_several_networks_one_is_taken():
    pair = {'student': under('module.backbone.'), 'teacher': under('backbone.', AVERAGED)}
    assert next(iter(contents_of(pair).state)) == 'student.module.backbone.conv1.weight'
    for prefix in ('student.backbone.', 'student.module.backbone', 'student.backbone'):
        contents = contents_of(pair, prefix)
        assert contents.state.keys() == STATE.keys()
        assert set(contents.dropped.values()) == {f'not below {prefix}'}
    assert torch.equal(
        contents_of(pair, 'teacher.backbone.').state['bn1.bias'], AVERAGED['bn1.bias']
    )
    with pytest.raises(InputError, match=r"no tensor below 'encoder\.'.*student.*teacher"):
        contents_of(pair, 'encoder.')


@pytest.mark.parametrize(
    'checkpoint',
    [
        {'state_dict': STATE, 'state_dict_ema': AVERAGED},
        {'model': STATE, 'model_ema': {**under('module.', AVERAGED), 'n_averaged': torch.ones(1)}},
        {'state_dict': {**STATE, **under('ema_', AVERAGED)}},
        {
            'state_dict': {
                **STATE,
                **{f'ema_{name.replace(".", "_")}': value for name, value in AVERAGED.items()},
            }
        },
        # mmengine's: what was averaged is the state_dict, and its own weights lie beside.
        {'state_dict': AVERAGED, 'ema_state_dict': {**under('module.'), 'steps': torch.ones(1)}},
    ],
)
def test_the_averaged_copy(checkpoint):
    contents = contents_of(checkpoint, 'module.' if 'model_ema' in checkpoint else '', True)
    assert contents.state.keys() == STATE.keys()
    assert all(torch.equal(contents.state[name], AVERAGED[name]) for name in STATE)
    assert contents.unexplained == []
    if 'steps' not in str(checkpoint.get('ema_state_dict')):
        plain = contents_of(checkpoint)
        assert all(torch.equal(plain.state[name], STATE[name]) for name in STATE)


def test_an_averaged_copy_that_is_not_there():
    with pytest.raises(InputError, match='no averaged copy'):
        contents_of({'state_dict': STATE}, averaged=True)


def test_paths_among_the_arguments(tmp_path):
    args = {'here': pathlib.Path('out/x'), 'pure': pathlib.PureWindowsPath('c:/x')}
    torch.save({'model': STATE, 'args': args}, tmp_path / 'x.pth')
    checkpoint = read_checkpoint(tmp_path / 'x.pth')
    assert list(contents_of(checkpoint).state) == list(STATE)
    assert checkpoint['args']['here'] == pathlib.PurePosixPath('out/x')


def test_prefixes():
    keys = [*under('module.encoder_q.'), *under('module.encoder_k.'), 'module.queue']
    assert prefixes_of(keys, STATE) == ['module.encoder_q.', 'module.encoder_k.']
    assert prefixes_of(STATE, STATE) == [''] and prefixes_of(keys, ['other']) == []
    assert list(below(keys, 'encoder_k.').values()) == list(STATE)
    assert beginnings(keys) == ['module.encoder_q.', 'module.encoder_k.', 'module.queue.']
    with pytest.raises(InputError, match='names nothing'):
        below(keys, '.')
