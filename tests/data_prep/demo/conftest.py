import pytest


@pytest.fixture
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of a fifth of a second: what these tests look at doesn't depend on the length."""
    monkeypatch.setattr("data_prep.demo.clips.MIN_SECONDS", 0.2)
    monkeypatch.setattr("data_prep.demo.clips.MAX_SECONDS", 0.25)
