"""Which recordings are kept: those of keys that come again, as many as there is room for."""

from collections import OrderedDict
from collections.abc import Hashable

from mmseg_m2f.models.graph_recording import Recording

#: After so many other calls a recording may make room for that of another shape.
_PATIENCE = 64


class RecordingCache:
    """Which keys to record: those that come again, as many as there is room for.

    Args:
        most: recordings kept. Another key gets the place of the one not used for longest, if that was not used in the
            last 64 calls.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.recordings: OrderedDict[Hashable, Recording] = OrderedDict()
        self._last_use: dict[Hashable, int] = {}
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0

    def find(self, key: Hashable) -> Recording | None:
        """The recording of a key, if there is one."""
        self._calls += 1
        recording = self.recordings.get(key)
        if recording is not None:
            self.recordings.move_to_end(key)
            self._last_use[key] = self._calls
        return recording

    def wants(self, key: Hashable) -> bool:
        """Whether to record a key that has no recording, which makes room for it; asked once per call."""
        if key not in self._seen:
            self._seen[key] = None
            while len(self._seen) > 16 * self.most:
                self._seen.popitem(last=False)
            return False
        if len(self.recordings) >= self.most:
            oldest = next(iter(self.recordings))
            if self._calls - self._last_use[oldest] <= _PATIENCE:
                return False
            del self.recordings[oldest]
        return True

    def keep(self, key: Hashable, recording: Recording) -> None:
        """Add a recording."""
        self.recordings[key] = recording
        self._last_use[key] = self._calls

    def clear(self) -> None:
        """Forget everything."""
        self.recordings.clear()
        self._seen.clear()
