"""A store that another process reads over TCP."""

import pytest
import torch
import zmq

import thinwire
from thinwire.errors import ConfigError, StoreError
from thinwire.stores import FolderStore, Store
from thinwire.weights import MemoryStore, RemoteStore, StoreServer


@pytest.mark.parametrize("kind", ["memory", "folder"])
def test_followers_of_a_server(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store: Store = MemoryStore() if kind == "memory" else FolderStore(tmp_path_factory.mktemp("store"))
    trained = {"w": torch.linspace(-1, 1, 1000).bfloat16()}
    publisher = thinwire.sync_weights(trained, to=store, snapshot_every=3)
    with StoreServer(store) as server:
        served = [{"w": torch.zeros_like(trained["w"])} for _ in range(2)]
        followers = [thinwire.sync_weights(each, of=RemoteStore(server.address)) for each in served]
        assert followers[0].follow().step == 0
        for step in range(5):
            trained["w"][step] += 0.5
            publisher.publish()
            assert [each.follow().step for each in followers] == [step + 1] * 2
            assert all(torch.equal(each["w"], trained["w"]) for each in served)


def test_what_a_remote_store_answers() -> None:
    store = MemoryStore()
    store.put("a/b", b"12345")
    store.put("a/c", b"")
    with StoreServer(store) as server:
        remote = RemoteStore(server.address)
        assert isinstance(remote, Store)
        assert remote.get("a/b", 5) == b"12345"
        assert remote.get("a/c", 5) == b""
        assert remote.get("a/d", 5) is None
        assert remote.names("a") == ["a/b", "a/c"]
        assert remote.names("") == ["a/b", "a/c"]
        assert remote.names("none") == []
        with pytest.raises(StoreError, match="longer than the 4 bytes"):
            remote.get("a/b", 4)
        with pytest.raises(ConfigError, match="object name"):
            remote.get("../up", 4)
        for refused in (lambda: remote.put("x", b""), lambda: remote.create("x", b""), lambda: remote.delete("a/b")):
            with pytest.raises(StoreError, match="can only be read"):
                refused()
    assert store.names("") == ["a/b", "a/c"]
    with pytest.raises(StoreError, match="did not answer within"):
        RemoteStore(server.address, timeout_s=0.05).get("a/b", 5)
    server.close()


@pytest.mark.parametrize(
    "request_",
    [
        [b"?"],
        [b"get"],
        [b"get", b"a", b"123"],
        [b"get", b"\xff", bytes(8)],
        [b"get", b"../a", bytes(8)],
        [b"names", b"/"],
    ],
)
def test_requests_that_are_not_known_are_refused_and_the_next_answered(request_: list[bytes]) -> None:
    store = MemoryStore()
    store.put("a", b"1")
    with StoreServer(store) as server, zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 30_000)
        socket.connect(server.address)
        socket.send_multipart(request_)
        assert socket.recv_multipart()[0] == b"refused"
        assert RemoteStore(server.address).get("a", 1) == b"1"


def test_an_address_that_cannot_be_listened_at() -> None:
    with pytest.raises(ConfigError, match="cannot be listened at"):
        StoreServer(MemoryStore(), "tcp://no such place")


def test_a_server_that_says_something_else() -> None:
    with zmq.Context() as context, context.socket(zmq.REP) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        remote = RemoteStore(f"tcp://127.0.0.1:{port}")
        import threading

        for answer in ([b"found"], [b"found", b"123456"], [b"else"], [b""]):
            thread = threading.Thread(target=lambda said=answer: (socket.recv_multipart(), socket.send_multipart(said)))
            thread.start()
            with pytest.raises(StoreError, match="refused"):
                remote.get("a", 5)
            thread.join()
