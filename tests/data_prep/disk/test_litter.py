from pathlib import Path

import pytest

from data_prep.disk.litter import is_litter, is_unfinished, without_litter

LITTER = [
    *(".DS_Store", "._0_tr1.mp4", ".nfs000000000001", ".Trashes", ".Trash-1000", ".Spotlight-V100", ".fseventsd"),
    *(".sync.ffs_db", ".stfolder", ".snapshot", ".hidden.mp4", "Thumbs.db", "THUMBS.DB", "desktop.ini", "Icon\r"),
    *(
        "@eaDir",
        "@EADIR",
        "@tmp",
        "@Recycle",
        "@Recently-Snapshot",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "RECYCLER",
    ),
    *("System Volume Information", "lost+found", "LOST.DIR", "FOUND.000", "__MACOSX", "~snapshot", "~$notes.docx"),
    *("0_tr1.mp4:Zone.Identifier", "0_tr1.mp4@SynoEAStream", "@SynoResource", "Network Trash Folder"),
]
SOMEBODYS = [
    "0_tr1.mp4",
    "8_smoking",
    "notes.txt",
    "0000.jpg",
    "recycling",
    "found.mp4",
    "FOUND.00",
    "@home",
    "#1",
    "$5",
]
UNFINISHED = ["0_tr1.mp4.part", "0_tr1.mp4.crdownload", "0_tr1.mp4.PARTIAL", "0_tr1.mp4.download", "0_tr1.tmp"]


@pytest.mark.parametrize("name", LITTER)
def test_litter(name: str) -> None:
    assert is_litter(name)


@pytest.mark.parametrize("name", [*SOMEBODYS, *UNFINISHED])
def test_what_somebody_may_mean_is_no_litter(name: str) -> None:
    assert not is_litter(name)


def test_unfinished_downloads() -> None:
    assert [name for name in [*LITTER, *SOMEBODYS, *UNFINISHED] if is_unfinished(name)] == UNFINISHED


def test_a_folder_without_its_litter(tmp_path: Path) -> None:
    for name in ("@eaDir", "__MACOSX", "clips"):
        (tmp_path / name).mkdir()
    for name in (".DS_Store", "Thumbs.db", "a.mp4", "b.mp4.part"):
        (tmp_path / name).touch()
    assert {path.name for path in without_litter(tmp_path)} == {"clips", "a.mp4", "b.mp4.part"}
