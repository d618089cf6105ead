"""A log whose last line a kill or a full disk cut is read up to there, and goes on."""

from random import Random

import pandas as pd
import pytest

from pipelines.outcome.csv_log import append_record, read_records
from pipelines.schemas import RetrainingRecord


@pytest.mark.parametrize("said", ["größer", 'größer, "by far", so it\'s kept'])
def test_a_line_cut_inside_a_character_or_quotes_is_skipped_and_ended(tmp_path, said):
    path = tmp_path / "retraining.csv"
    records = [
        RetrainingRecord(started=f"2026-01-0{day}", seconds=1, outcome="rejected", said=said)
        for day in (1, 2, 3)
    ]
    for record in records[:2]:
        append_record(path, record)
    whole = path.read_bytes()
    for cut in range(whole.rindex(b"\n2026") + 2, len(whole)):
        path.write_bytes(whole[:cut])
        append_record(path, records[2])
        read = read_records(path, RetrainingRecord)
        assert (read[0], read[-1]) == (records[0], records[2])
        assert path.read_bytes()[:cut] == whole[:cut]
        assert pd.read_csv(path, encoding_errors="replace")["started"].iloc[-1] == "2026-01-03"


def test_any_damage_hides_no_later_record(tmp_path):
    path, random = tmp_path / "retraining.csv", Random(0)
    for day in (1, 2, 3):
        record = RetrainingRecord(
            started=f"2026-01-0{day}", seconds=1, outcome="failed", said='a, "b"'
        )
        append_record(path, record)
    whole = path.read_bytes()
    for _ in range(300):
        start = random.randrange(len(whole))
        noise = bytes(random.choices(b'\0"\n\r\xff\xc3,a', k=random.randrange(9)))
        path.write_bytes(whole[:start] + noise + whole[start + random.randrange(200) :])
        append_record(path, record)
        assert read_records(path, RetrainingRecord)[-1] == record
