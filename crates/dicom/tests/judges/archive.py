"""Stores objects in Orthanc and takes them back: `archive.py SERIES FOLDER`.

SERIES is the folder of the source, FOLDER holds the objects that `written.py` made of it. By REST all
of them; by C-STORE (dcmtk's storescu) all but LABELMAP, whose class Orthanc 1.10 does not accept.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import pydicom

HTTP, DICOM = 18042, 14242


def call(path, data=None, method=None):
    request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def main():
    series, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    objects = sorted(folder.glob("*.dcm"))
    with tempfile.TemporaryDirectory() as scratch:
        config = pathlib.Path(scratch) / "orthanc.json"
        config.write_text(json.dumps({
            "StorageDirectory": scratch, "IndexDirectory": scratch, "HttpPort": HTTP,
            "DicomPort": DICOM, "AuthenticationEnabled": False, "RemoteAccessAllowed": False,
            "DicomAlwaysAllowStore": True, "Plugins": []}))
        server = subprocess.Popen(["Orthanc", str(config)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    call("/system")
                    break
                except OSError:
                    time.sleep(0.2)
            for path in sorted(series.glob("*.dcm")):
                call("/instances", path.read_bytes())
            for path in objects:
                answer = json.loads(call("/instances", path.read_bytes()))
                back = call(f"/instances/{answer['ID']}/file")
                assert answer["Status"] == "Success", f"{path.name}: {answer}"
                same = hashlib.sha256(back).digest() == hashlib.sha256(path.read_bytes()).digest()
                assert same, f"{path.name} comes back as another file"
                print(f"{path.name}: stored and returned")
            studies = json.loads(call("/studies"))
            assert len(studies) == 1, "the objects are not of their source's study"
            for path in objects:
                done = subprocess.run(["storescu", "-R", "127.0.0.1", str(DICOM), str(path)],
                                      capture_output=True, text=True)
                taken = done.returncode == 0
                labelmap = pydicom.dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID.endswith("66.7")
                print(f"{path.name}: C-STORE {'taken' if taken else 'refused'}")
                assert taken or labelmap, done.stderr
        finally:
            server.terminate()
            server.wait()


main()
