"""HTTP/1.1 as uvicorn speaks it, but for one thing: what is no HTTP is answered with a problem, too."""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from common.web.problem import problem


class Http1(HttpToolsProtocol):
    """A connection."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what came, and close: nobody can tell where the next request would begin."""
        detail = "A header, the request line, or the length of the body is not as RFC 9112 has it."
        answer = problem(400, "http", "Not HTTP", detail, headers={"connection": "close"})
        headers = b"".join(b"%b: %b\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[400] + headers + b"\r\n" + bytes(answer.body))
        self.transport.close()
