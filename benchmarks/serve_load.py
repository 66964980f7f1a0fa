"""
Clients of the service, in a light process of their own: raw sockets, requests built beforehand, standard library only.

    python benchmarks/serve_load.py PORT CLIENTS SECONDS PICTURE [PICTURE …]

Each client sends a picture, waits for the record, and sends the next at once. Prints one JSON object.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path

BOUNDARY = "0123456789abcdef"


def request_of(picture: bytes) -> bytes:
    """A whole POST /score of one file."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()
    body = head + picture + f"\r\n--{BOUNDARY}--\r\n".encode()
    lines = ["POST /score HTTP/1.1", "Host: service", f"Content-Length: {len(body)}"]
    lines += [f"Content-Type: multipart/form-data; boundary={BOUNDARY}", "", ""]
    return "\r\n".join(lines).encode() + body


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(head[9:12]), await reader.readexactly(length)


async def client(first: int, requests: list[bytes], port: int, end: float, answers: list, problems: Counter) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in count(first):
        if time.monotonic() > end:
            break
        start = time.perf_counter()
        writer.write(requests[number % len(requests)])
        status, body = await answer_of(reader)
        answers.append((time.monotonic(), time.perf_counter() - start))
        if status != 200 or b'"error":null' not in body:
            problems[status] += 1
    writer.close()


async def main(port: int, clients: int, seconds: float, pictures: list[bytes]) -> None:
    requests, answers, problems = [request_of(picture) for picture in pictures], [], Counter()
    start = time.monotonic()
    end = start + seconds
    await asyncio.gather(*(client(first, requests, port, end, answers, problems) for first in range(clients)))
    inside = [latency for moment, latency in answers if moment <= end]  # what comes later ran beside fewer clients
    result = {"seconds": end - start, "latencies": inside, "problems": problems, "answers": len(answers)}
    result["cpu_share"] = time.process_time() / (time.monotonic() - start)
    print(json.dumps(result))


if __name__ == "__main__":
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    asyncio.run(main(port, clients, seconds, [Path(name).read_bytes() for name in sys.argv[4:]]))
