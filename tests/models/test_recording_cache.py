from mmseg_m2f.models.graph_recording import Recording
from mmseg_m2f.models.recording_cache import RecordingCache


def test_recording_cache__records_what_comes_again_and_evicts_what_is_idle():
    cache, recording = RecordingCache(most=1), object.__new__(Recording)
    assert cache.find("a") is None
    assert not cache.wants("a")  # the first time
    assert cache.find("a") is None
    assert cache.wants("a")
    cache.keep("a", recording)
    assert cache.find("a") is recording
    for _ in range(3):
        assert cache.find("b") is None
        assert not cache.wants("b")  # full, and the other is in use
    for _ in range(64):
        cache.find("c")
    assert cache.find("b") is None
    assert cache.wants("b")
    assert list(cache.recordings) == []
