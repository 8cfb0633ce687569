"""Random streams, answer for answer with memcached: a few of fixed seeds. tests/fuzz/differential runs as many as one likes."""

import pytest

import fuzzing

BATCH = 20


@pytest.mark.parametrize("batch", range(10))
@pytest.mark.parametrize("protocol", ["classic", "meta", "text", "binary"])
def test_streams(pair, protocol, batch):
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        failure = fuzzing.run(pair, protocol, seed)
        assert failure is None, f"tests/fuzz/differential --protocol {protocol} --seed {seed} --count 1\n{failure}"
