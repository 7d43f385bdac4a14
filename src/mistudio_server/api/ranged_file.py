"""A file in ranges, whose refusals are problem documents like every other."""

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from mistudio_server.problem import problem_for_path, range_error

_REFUSALS = (400, 416)  # what FileResponse answers, as plain text, to a malformed and to an impossible Range


class RangedFile(FileResponse):
    """``FileResponse`` that answers an unusable Range header with a problem document of status 416."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, the range, or the refusal."""
        refused = False

        async def watched(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in _REFUSALS:
                refused = True
            if not refused:
                await send(message)

        await super().__call__(scope, receive, watched)
        if refused:
            response = problem_for_path(scope["path"], range_error(), {"Content-Range": f"bytes */{self._size()}"})
            await response(scope, receive, send)

    def _size(self) -> str:
        return self.headers.get("content-length", "*")
