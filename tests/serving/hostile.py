"""Servers that answer with whatever bytes they are given: over TCP, TLS and gRPC.

As a program: `hostile.py ANSWER` serves a file's bytes over gRPC, in a process that can be stopped.
"""

import concurrent.futures
import contextlib
import pathlib
import socket
import sys
import threading
import time

import grpc


@contextlib.contextmanager
def raw_server(answer, context=None):
    """A port where each request is answered with the pieces of `answer(request)`, then closed.

    Yields its URL and a list, to which the number of bytes that went out is added at the end.
    """
    listener, sent = socket.create_server(("127.0.0.1", 0)), []

    def one(connection):
        with contextlib.suppress(OSError), connection:
            stream = context.wrap_socket(connection, server_side=True) if context else connection
            total = 0
            try:
                request = received(stream)
                for piece in answer(request):
                    stream.sendall(piece)
                    total += len(piece)
            finally:
                sent.append(total)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    scheme = "https" if context else "http"
    try:
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", sent
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def received(stream):
    """A request of HTTP with its body."""
    content = b""
    while b"\r\n\r\n" not in content:
        piece = stream.recv(1 << 16)
        if not piece:
            raise ConnectionResetError
        content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    while len(body) < int(size or 0):
        body += stream.recv(1 << 16)
    return head + b"\r\n\r\n" + body


def ok(content, status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(content), content)


def dripped(*pieces, seconds=0.05, times=1000):
    """The first piece at once, the others one by one, again and again."""
    yield pieces[0]
    for _ in range(times):
        for piece in pieces[1:]:
            time.sleep(seconds)
            yield piece


class _Answers(grpc.GenericRpcHandler):
    def __init__(self, answer):
        self.answer = answer

    def service(self, details):
        method = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(lambda request, _: self.answer(method))


@contextlib.contextmanager
def raw_grpc_server(answer, compression=None):
    """A port of gRPC where each call is answered with the bytes `answer(method)`."""
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(4),
        options=[("grpc.max_send_message_length", -1)],
        compression=compression,
    )
    server.add_generic_rpc_handlers((_Answers(answer),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


if __name__ == "__main__":
    content = pathlib.Path(sys.argv[1]).read_bytes()
    with (
        raw_grpc_server(lambda _: content) as url,
        raw_server(lambda _: [ok(content)]) as (rest, _),
    ):
        print(url, rest, flush=True)
        sys.stdin.read()
