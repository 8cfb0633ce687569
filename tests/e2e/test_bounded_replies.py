"""A client that has many large replies coming is served a few at a time; when its node goes away meanwhile, it is answered all the same."""

from local.cluster import Cluster
from support import Wire


def test_multi_get_after_large_values_when_the_node_is_gone(tmp_path):
    with Cluster(tmp_path, regions=("west",), nodes=1, database=False, config={"bus": None, "threads": 1}) as cluster:
        outrigger = cluster["west"].outrigger
        with Wire(outrigger.port) as wire:
            wire.send(b"set big 0 0 1000000\r\n" + b"x" * 1000000 + b"\r\n")
            assert wire.until(b"\r\n") == b"STORED\r\n"
            for _ in range(30):  # the sidecar learns that this client's replies are large
                wire.send(b"get big\r\n")
                assert len(wire.until(b"END\r\n")) > 1000000
            cluster["west"].nodes[0].kill()
            keys = b" ".join(b"k%d" % i for i in range(100))
            wire.send(b"get " + keys + b"\r\n")
            assert wire.until(b"\r\n").startswith(b"SERVER_ERROR node ")
            wire.send(b"get " + keys + b"\r\nversion\r\n")
            assert wire.until(b"\r\n").startswith(b"SERVER_ERROR node ")
            assert wire.until(b"\r\n").startswith(b"VERSION ")
