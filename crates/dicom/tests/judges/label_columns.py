"""Prints what the program's label tables lack for DICOM: the meaning of each code, and category and
region of what is no anatomical structure.

    label_columns.py totalsegmentator_snomed_mapping.csv TABLE.json...

The mapping is that of TotalSegmentator's wheel (`totalsegmentator/resources`, Apache-2.0); meanings
and codes of the rest are pydicom's (the context groups of PS3.16). The side needs no column: it is the
word `left` or `right` of the name, unless the meaning says it; this is checked against the mapping.
"""

import csv
import json
import pathlib
import re
import sys

from pydicom.sr._concepts_dict import concepts

# Names of ours whose concept in PS3.16 has another one.
NAMES = {
    "bone": "Bone", "cortical_bone": "Cortical bone", "oral_cavity": "Oral cavity", "lips": "Lip",
    "brainstem": "Brain stem", "larynx": "Larynx", "mandible": "Mandible",
    "parotid_gland": "Parotid gland", "submandibular_gland": "Submandibular gland",
    "optic_nerve": "Optic nerve", "optic_chiasm": "Optic chiasm", "pituitary_gland": "Pituitary gland",
    "lacrimal_gland": "Lacrimal gland", "cochlea": "Cochlea", "larynx_supraglottic": "Supraglottis",
    "arytenoid": "Arytenoid cartilage", "glottic_area": "Glottis", "buccal_mucosa": "Buccal mucosa",
    "vertebrae_L6": "L6 vertebra", "vertebrae_T13": "T13 vertebra",
}


def words(text):
    return set(re.split("[ _-]", text.lower()))


def side(name, meaning):
    found = {"left", "right"} & words(name) - words(meaning)
    return found.pop() if len(found) == 1 else None


def main():
    part = lambda row, sequence: {k: row[f"{sequence}.{v}"] for k, v in
                                  (("code", "CodeValue"), ("meaning", "CodeMeaning"))}
    known = {}
    for row in csv.DictReader(open(sys.argv[1])):
        kind, category = part(row, "SegmentedPropertyTypeCodeSequence"), part(row, "SegmentedPropertyCategoryCodeSequence")
        modifier, region = part(row, "SegmentedPropertyTypeModifierCodeSequence"), part(row, "AnatomicRegionSequence")
        entry = {"snomed": kind["code"], "meaning": kind["meaning"]}
        if category["code"] != "123037004":
            entry["category"] = category
        if region["code"]:
            entry["region"] = region
        known[row["Structure"]] = entry
        told = modifier["meaning"].lower() if modifier["meaning"] in ("Left", "Right") else None
        if side(row["Structure"], kind["meaning"]) != told:
            print(f"# {row['Structure']}: side by name {side(row['Structure'], kind['meaning'])}, "
                  f"in the mapping {told}", file=sys.stderr)
    sct = [(code, meaning) for entries in concepts["SCT"].values() for code, (meaning, _) in entries.items()]
    by_code = dict(sct)
    by_meaning = {meaning.lower(): (code, meaning) for code, meaning in sct}
    result, without = {}, []
    for path in map(pathlib.Path, sys.argv[2:]):
        for label in json.loads(path.read_text())["labels"]:
            if isinstance(label, str) or label["name"] in result:
                continue
            name, code = label["name"], label.get("snomed")
            plain = re.sub("_(left|right)", "", name)
            if name in known:
                result[name] = known[name]
            elif code in by_code:
                result[name] = {"snomed": code, "meaning": by_code[code]}
            elif (found := by_meaning.get(NAMES.get(plain, plain.replace("_", " ")).lower())):
                result[name] = {"snomed": found[0], "meaning": found[1]}
            else:
                without.append(name)
    print(json.dumps(result, indent=1))
    print(f"# no concept found: {', '.join(without)}", file=sys.stderr)


main()
