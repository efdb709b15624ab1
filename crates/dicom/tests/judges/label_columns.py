"""Compares codes in the program's label tables with TotalSegmentator's mapping and with PS3.16.

    label_columns.py totalsegmentator_snomed_mapping.csv TABLE.json...

The mapping is that of TotalSegmentator's wheel (`totalsegmentator/resources`, Apache-2.0), the context
groups are pydicom's. Prints what differs, and what neither knows; exits with 1 if anything differs.
"""

import csv
import json
import pathlib
import re
import sys

from pydicom.sr._concepts_dict import concepts

KINDS = (("snomed", "SegmentedPropertyTypeCodeSequence"), ("side", "SegmentedPropertyTypeModifierCodeSequence"),
         ("category", "SegmentedPropertyCategoryCodeSequence"), ("region", "AnatomicRegionSequence"))
STRUCTURE = "123037004"
# The mapping has cysts without the side their names have.
SIDES_IT_LACKS = {"kidney_cyst_left", "kidney_cyst_right"}


def mapped(row):
    entry = {key: row[f"{sequence}.CodeValue"] or None for key, sequence in KINDS}
    meaning = row["SegmentedPropertyTypeModifierCodeSequence.CodeMeaning"].lower()
    entry["side"] = meaning if meaning in ("left", "right") else None
    if entry["category"] == STRUCTURE:
        entry["category"] = None
    return entry


def main():
    known = {row["Structure"]: mapped(row) for row in csv.DictReader(open(sys.argv[1]))}
    meanings = {code: meaning for entries in concepts["SCT"].values() for code, (meaning, _) in entries.items()}
    compared, differing, unknown = 0, 0, set()
    for path in map(pathlib.Path, sys.argv[2:]):
        for label in json.loads(path.read_text())["labels"]:
            if isinstance(label, str) or "snomed" not in label:
                continue
            name = label["name"]
            ours = {key: label.get(key) for key, _ in KINDS}
            for key in ("category", "region"):
                ours[key] = ours[key] and ours[key]["snomed"]
            # It has feet and hands without sides.
            bare = re.sub("_(left|right)$", "", name)
            theirs = known.get(name) or known.get(bare)
            if theirs:
                compared += 1
                keys = [key for key, _ in KINDS if name in known or key != "side"]
                for key in keys:
                    added = ours[key] and not theirs[key] and (key == "region" or name in SIDES_IT_LACKS)
                    if ours[key] != theirs[key] and not added:
                        differing += 1
                        print(f"{name}: {key} {ours[key]}, in the mapping {theirs[key]}")
            elif label["snomed"] not in meanings:
                unknown.add(name)
    print(f"{compared} compared, {differing} differ; in neither: {', '.join(sorted(unknown)) or 'none'}")
    sys.exit(differing > 0)


main()
