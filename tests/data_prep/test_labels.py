import pytest

from data_prep.errors import InputError
from data_prep.labels import LABELS, PROMPT, SOURCE_CLASSES, chat_messages, fold_name, source_class_of_folder

FOLDERS = [
    ("0_safe_walkway_violation", "UNSAFE"),
    ("1_unauthorized_intervention", "UNSAFE"),
    ("2_opened_panel_cover", "UNSAFE"),
    ("3_carrying_overload_with_forklift", "UNSAFE"),
    ("4_safe_walkway", "SAFE"),
    ("5_authorized_intervention", "SAFE"),
    ("6_closed_panel_cover", "SAFE"),
    ("7_safe_carrying", "SAFE"),
]


def test_the_eight_classes_and_their_labels() -> None:
    assert [(source_class.folder, source_class.label) for source_class in SOURCE_CLASSES] == FOLDERS
    assert LABELS == ("SAFE", "UNSAFE")


def test_the_prompt_is_the_briefs() -> None:
    assert PROMPT == (
        "You are a workplace safety inspector reviewing CCTV footage. Classify the behavior as SAFE or UNSAFE. "
        "Answer with only one word."
    )


@pytest.mark.parametrize(
    ("folder", "digit"),
    [
        ("2_opened_panel cover", 2),
        ("2_opened_panel_cover", 2),
        ("2 Opened Panel Cover", 2),
        ("2-opened--panel_ cover_", 2),
        (" 7_SAFE_CARRYING ", 7),
        ("0_safe_walkway_violation", 0),
        ("4_safe_walkway", 4),
    ],
)
def test_spellings_of_a_class_folder(folder: str, digit: int) -> None:
    assert source_class_of_folder(folder).digit == digit


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("4_safe_walkway_violation", "digit 4 does not go with 'safe_walkway_violation', which is class 0"),
        ("0_safe_walkway", "digit 0 does not go with 'safe_walkway', which is class 4"),
        ("12_safe_carrying", "digit 12 does not go with"),
        ("safe_walkway", "none of the eight"),
        ("2_openedpanelcover", "none of the eight"),
        ("8_smoking", "none of the eight behaviours; allowed: 0_safe_walkway_violation"),
        ("", "none of the eight"),
    ],
)
def test_unknown_and_contradictory_class_folders(folder: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        source_class_of_folder(folder)


def test_fold_name() -> None:
    assert fold_name(" Opened-Panel  cover_") == "opened_panel_cover"


def test_chat_messages() -> None:
    picture = object()
    user = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "Well?"}]}
    assistant = {"role": "assistant", "content": [{"type": "text", "text": "SAFE"}]}
    assert chat_messages(picture, "Well?") == [user]
    assert chat_messages(picture, "Well?", "SAFE") == [user, assistant]
