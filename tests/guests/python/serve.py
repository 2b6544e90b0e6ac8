"""A handler of wasi:http/incoming-handler@0.2: `/`, `/echo`, `/status/N` as `components/serve` has them."""

import wit_world.exports
from componentize_py_types import Err, Ok
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Fields, IncomingBody, OutgoingBody, OutgoingResponse, ResponseOutparam

READ = 64 * 1024
# The most that blocking_write_and_flush takes at once.
PIECE = 4096


class IncomingHandler(wit_world.exports.IncomingHandler):
    def handle(self, request, response_out) -> None:
        path = (request.path_with_query() or "").partition("?")[0]
        if path == "/":
            answer(response_out, 200, [b"hello from Python\n"])
        elif path == "/echo":
            answer(response_out, 200, pieces(request))
        elif path.startswith("/status/") and path[8:].isdigit():
            answer(response_out, int(path[8:]), [f"status {path[8:]}\n".encode()])
        else:
            answer(response_out, 404, [b"no such path\n"])


def pieces(request):
    """The body as it comes."""
    body = request.consume()
    with body.stream() as stream:
        while True:
            try:
                read = stream.blocking_read(READ)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    break
                raise
            for start in range(0, len(read), PIECE):
                yield read[start : start + PIECE]
    IncomingBody.finish(body)


def answer(response_out, status, content) -> None:
    response = OutgoingResponse(Fields.from_list([("content-type", b"text/plain")]))
    response.set_status_code(status)
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        for piece in content:
            stream.blocking_write_and_flush(piece)
    OutgoingBody.finish(body, None)
