"""The channels of exec and attach over a WebSocket, as the API server and the kubelet speak them to each other.

A message is a channel byte, then the payload: 0 stdin, 1 stdout, 2 stderr, 3 error (a Status as JSON, once, at the
end), 4 resize; in v5 also 255 and a channel number: that channel is closed.
"""

from typing import Final

import orjson

from fairlead.api import errors

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
MAX_MESSAGE = 16 * 1024 * 1024

# Without a Status at the end, clients take a command for successful.
LOST: Final = orjson.dumps(
    errors.internal(
        "the connection to the kubelet ended before the command did; how the command ended is not known"
    ).status
)
