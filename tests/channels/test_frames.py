import random

import pytest

from penstock.channels.frames import FrameDecoder, encode_frame
from penstock.errors import FrameError

LIMIT = 4096


def test_payloads_survive_whatever_pieces_they_arrive_in() -> None:
    rng = random.Random(7)
    payloads = [rng.randbytes(rng.choice([0, 1, 5, 100, LIMIT])) for _ in range(200)]
    stream = b"".join(encode_frame(payload, limit_bytes=LIMIT) for payload in payloads)
    decoder = FrameDecoder(limit_bytes=LIMIT)
    found: list[bytes] = []
    while stream:
        cut = rng.choice([1, 2, 4, 5, 6, 50, 3000])
        found += decoder.feed(stream[:cut])
        stream = stream[cut:]
    assert found == payloads


def test_a_payload_of_exactly_the_limit_passes_and_one_byte_more_is_refused_before_it_is_sent() -> None:
    assert list(FrameDecoder(limit_bytes=LIMIT).feed(encode_frame(bytes(LIMIT), limit_bytes=LIMIT))) == [
        bytes(LIMIT)
    ]
    with pytest.raises(FrameError, match=r"4097 bytes exceeds limits\.frame_bytes = 4096; nothing was sent"):
        encode_frame(bytes(LIMIT + 1), limit_bytes=LIMIT)


def test_an_announced_length_beyond_the_limit_is_refused_before_anything_of_it_came() -> None:
    decoder = FrameDecoder(limit_bytes=LIMIT)
    with pytest.raises(FrameError, match="4294967295 bytes was announced"):
        list(decoder.feed(b"\x01\xff\xff\xff\xff"))


def test_frames_before_a_broken_one_are_still_given_out() -> None:
    decoder = FrameDecoder(limit_bytes=LIMIT)
    found: list[bytes] = []
    with pytest.raises(FrameError, match="version 71"):
        found.extend(decoder.feed(encode_frame(b"good", limit_bytes=LIMIT) + b"GET / HTTP/1.1"))
    assert found == [b"good"]
