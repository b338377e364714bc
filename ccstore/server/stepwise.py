"""Long answers: made in pieces of a millisecond, with everybody else's turn in between.

A handler hands over a generator of bytes, which runs between two turns of the event loop only. So it may look
at the store as it likes until it yields, and must not trust in any number of a place or a series afterwards.
"""

import itertools
from collections.abc import AsyncIterator, Iterator

import trio
from quart import Response, request

from ccstore.server.answers import JSON
from ccstore.server.compression import ENCODING, Compressed, is_wanted

__all__ = ["SMALL_ANSWER", "Stepwise", "answer_in_pieces"]

SMALL_ANSWER = 256 * 1024
"""Bytes. Up to here an answer is collected, so that it has a Content-Length; a larger one is streamed."""
_STEP = 0.001
"""Seconds for which an answer is made before others run. One piece may take longer: a window of
values takes up to two milliseconds."""


class Stepwise(AsyncIterator[bytes]):
    """Pieces of an answer, made for a millisecond at a time; others run before each time.

    An empty piece means that something was done, and there is nothing to send yet. This is no async generator
    because nobody can promise to close it: its client may leave at any moment.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    async def __anext__(self) -> bytes:
        while True:
            await trio.lowlevel.checkpoint()
            made, stop = [], trio.current_time() + _STEP
            for piece in self._pieces:
                made.append(piece)
                if trio.current_time() >= stop:
                    break
            if not made:
                raise StopAsyncIteration
            if joined := b"".join(made):
                return joined

    def put_back(self, piece: bytes) -> None:
        """Let `piece` be the next one."""
        self._pieces = itertools.chain([piece], self._pieces)


async def answer_in_pieces(pieces: Iterator[bytes]) -> Response:
    """Answer with pieces of JSON: as a whole if it is small, else streamed as they are made."""
    stream, collected = Stepwise(pieces), b""
    async for piece in stream:
        collected += piece
        if len(collected) > SMALL_ANSWER:
            stream.put_back(collected)
            return _stream(stream)
    return Response(collected, content_type=JSON)


def _stream(pieces: AsyncIterator[bytes]) -> Response:
    """Send pieces of JSON as they are made, compressed if the client takes that."""
    if is_wanted(request.accept_encodings):
        answer = Response(Compressed(pieces), content_type=JSON)
        answer.content_encoding = ENCODING
    else:
        answer = Response(pieces, content_type=JSON)
    answer.vary.add("Accept-Encoding")
    return answer
