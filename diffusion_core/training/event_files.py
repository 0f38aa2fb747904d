"""A run's numbers and strips as TensorBoard's event files, beside `metrics.sqlite`.

TensorBoard's record format is written here and not by tensorboardX's own writer: its thread ends
at the first full disk, and the training would then wait for it for ever.
"""

from __future__ import annotations

import io
import re
import socket
import struct
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from diffusion_core.files import complain
from diffusion_core.runs.metrics import Row


class EventWriter:
    """Writes `events.out.tfevents…` files; its methods are those of `MetricsWriter`.

    A disk that cannot be written keeps everything waiting for the next call; training continues.
    """

    def __init__(self, run: Path, keep_up_to_step: int = 0) -> None:
        """Each start writes a file of its own below `RUN/tensorboard`. TensorBoard then drops
        the entries of older files behind `keep_up_to_step`: those steps come again."""
        # Names in order of time: TensorBoard reads the files in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}"
        self.path = run / "tensorboard" / name
        self.file: io.FileIO | None = None
        self.waiting = bytearray()
        self.lock = threading.Lock()  # strips may come from a thread of their own
        self.complained = False
        now = time.time()
        version = Event(wall_time=now, file_version="brain.Event:2")
        start = SessionLog(status=SessionLog.START)
        self._write([version, Event(wall_time=now, step=keep_up_to_step + 1, session_log=start)])

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows; values that are not finite are left out."""
        self._write(
            Event(
                wall_time=wall_time,
                step=step,
                summary=Summary(value=[Summary.Value(tag=tag_of(name), simple_value=value)]),
            )
            for step, name, value, wall_time in rows
            if np.isfinite(value)
        )

    def add_strip(self, step: int, path: Path) -> None:
        """Write the sample strip of the PNG file `path`. Raises OSError where it cannot be read."""
        png = path.read_bytes()
        with Image.open(io.BytesIO(png)) as image:
            width, height = image.size
            colours = len(image.getbands())
        image = Summary.Image(
            height=height, width=width, colorspace=colours, encoded_image_string=png
        )
        summary = Summary(value=[Summary.Value(tag="samples", image=image)])
        self._write([Event(wall_time=path.stat().st_mtime, step=step, summary=summary)])

    def close(self) -> None:
        """Try once more to write what waits, and close the file."""
        self._write([])
        if self.file is not None:
            self.file.close()

    def _write(self, events: Iterable[Event]) -> None:
        records = b"".join(to_record(event.SerializeToString()) for event in events)
        with self.lock:
            self.waiting += records
            try:
                if self.file is None:
                    self.path.parent.mkdir(exist_ok=True)
                    self.file = io.FileIO(self.path, "x")
                while self.waiting:
                    # A disk that is nearly full takes a part; the rest follows where it ended.
                    del self.waiting[: self.file.write(self.waiting)]
            except OSError as error:
                if not self.complained:
                    complain(f"TensorBoard's files cannot be written: {error}; their rows wait.")
                self.complained = True
            else:
                self.complained = False


def to_record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, the data, its checksum."""
    length = struct.pack("<Q", len(data))
    checks = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checks[0] + data + checks[1]


def tag_of(name: str) -> str:
    """A curve's name in TensorBoard, which shows `group/name` in groups: the curves of the tenths
    of the schedule, `loss_t0` ... `loss_t9`, are one group."""
    return re.sub(r"^(.+)_t(\d+)$", r"\1_by_timestep/t\2", name)
