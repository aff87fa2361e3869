from typing import Any

def drain(
    fd: int, received: int, sending: int, table: dict[bytes, Any], rotating: type, seen: list[Any] | None
) -> tuple[int, list[tuple[int, bytes, Any]]]: ...
